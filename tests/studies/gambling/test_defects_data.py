"""Defects of the original's data, by their numbers in specs/gambling.md 9: what was false there."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file
from scipy.sparse import csc_array
from seed_games import bare, imported, told, write
from test_seed_files import feature, sae, seed_file

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError, MismatchError, RunError
from fluoroscope.features.contrasts import Rows, contrasts
from fluoroscope.models.requests import prompt_tokens
from fluoroscope.runs.engine import execute
from fluoroscope.sae.formats.llama_scope import load_llama_scope
from fluoroscope.studies.gambling.seed_files.features import import_features
from fluoroscope.studies.gambling.spec import GamblingSpec
from fluoroscope.studies.gambling.states import codes, covariates
from fluoroscope.studies.gambling.steps.latents import read_latents
from fluoroscope.studies.gambling.steps.play import read_attempts, read_games
from fluoroscope.studies.gambling.steps.record import read_activations, read_prompts
from fluoroscope.studies.gambling.study import GamblingStudy

SECRETS = {"OPENAI_API_KEY": "sk-of-nobody", "HF_TOKEN": "hf_of_nobody", "API_KEY": "of-nobody"}
LAYERS = (1, 3, 5)


class FirstSteps(GamblingStudy):
    """Plays, records and encodes, where there is an SAE."""

    def steps(self, config):
        return super().steps(config)[: 3 if config.subject.saes else 1]

    def report(self, run, sink):
        pass


def played(folder: Path, **settings):
    return execute(FirstSteps(), build(GamblingSpec, settings), "run", root=folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        return played(
            tmp_path_factory.mktemp("runs"),
            model="organism",
            saes={
                "source": "organism:batch_topk",
                "hook_points": [f"{layer}.resid_post" for layer in LAYERS],
            },
            game={
                "rules": {"wording": "organism", "max_balance": 9999, "max_rounds": 6},
                "conditions": ["fixed-BASE", "variable-GM"],
            },
            play={"repetitions": 3, "max_tokens": 16},
        )


# Defect 1: dimensions of the hidden state were patched as if they were latents.


def test_dimensions_of_the_hidden_state_do_not_pass_as_latents(tmp_path):
    """By the sign of their means: a latent is never negative."""
    path = seed_file(tmp_path, {3: [feature(400), feature(7, safe_mean=-0.2)]})
    with pytest.raises(MismatchError, match=r"1 of 2 have a negative mean.*hidden state"):
        import_features(path, [sae(3)], "block_output")


def test_numbers_that_all_are_small_do_not_pass_as_latents(tmp_path):
    """Of 512 latents, 64 wide: seven important ones are all among the first 64 by chance in one of
    two million cases.
    """
    path = seed_file(tmp_path, {3: [feature(i) for i in range(7)]})
    with pytest.raises(MismatchError, match="all 7 numbers are below 64"):
        import_features(path, [sae(3)], "block_output")
    few = seed_file(tmp_path, {3: [feature(i) for i in range(6)]})
    assert len(import_features(few, [sae(3)], "block_output")) == 6


@pytest.mark.parametrize(
    ("layers", "header", "said"),
    [
        ({3: [feature(512)]}, {}, "feature 512 at 3.resid_post, of 512 latents"),
        ({3: [feature(400), feature(400)]}, {}, "feature 400 at 3.resid_post twice"),
        ({3: [feature(400)]}, {"feature_type": "hidden_states_4096"}, "it says that its features"),
    ],
)
def test_what_cannot_be_a_latent_is_refused_with_the_reason(tmp_path, layers, header, said):
    path = seed_file(tmp_path, layers, **header)
    with pytest.raises(MismatchError, match=said):
        import_features(path, [sae(3)], "block_output")


def test_features_that_were_searched_in_another_space_are_refused(tmp_path):
    path = tmp_path / "features.json"
    result = {"n_features": 64, "significant_features": [feature(40)]}
    path.write_text(json.dumps({"layer_results": {"3": result}}))
    with pytest.raises(MismatchError, match=r"layer 3 was searched for 64 features.* has 512"):
        import_features(path, [sae(3)], "block_output")


# Defect 2: statistics of one block, patched in the next.


def test_entry_l_of_hidden_states_is_what_leaves_the_block_before(tmp_path):
    path = seed_file(tmp_path, {3: [feature(400)]})
    assert import_features(path, [sae(3)], "block_output")["hook_point"][0] == "3.resid_post"
    assert import_features(path, [sae(2)], "hidden_states")["hook_point"][0] == "2.resid_post"
    with pytest.raises(MismatchError, match=r"2\.resid_post.*SAEs are of 3\.resid_post"):
        import_features(path, [sae(3)], "hidden_states")
    embedding = seed_file(tmp_path, {0: [feature(400)]})
    with pytest.raises(MismatchError, match="is the embedding"):
        import_features(embedding, [sae(0)], "hidden_states")


def test_what_is_recorded_leaves_the_block_that_it_names(run, organism_model):
    prompts = read_prompts(run)
    n_layers = organism_model.network.config.num_hidden_layers
    assert max(LAYERS) == n_layers - 1
    for row in (0, len(prompts) - 1):
        tokens = torch.tensor([prompt_tokens(organism_model, prompts[row])])
        with torch.no_grad():
            states = organism_model.network(tokens, output_hidden_states=True).hidden_states
        assert len(states) == n_layers + 1
        for layer in LAYERS:
            recorded = read_activations(run, f"{layer}.resid_post")[row]
            assert not torch.allclose(recorded, states[layer][0, -1], atol=0.1)
            # The last entry is after the final norm, and of no block.
            is_last = layer == n_layers - 1
            same = torch.allclose(recorded, states[layer + 1][0, -1], atol=1e-4)
            assert same is not is_last


# Defect 3: Llama Scope read as a plain ReLU.


def test_a_latent_of_llama_scope_below_its_threshold_is_not_active(tmp_path):
    width, d_sae, norm, threshold = 4, 8, 2.0, 0.5
    folder = tmp_path / "Llama3_1-8B-Base-L1R-8x"
    (folder / "checkpoints").mkdir(parents=True)
    settings = {
        "act_fn": "jumprelu",
        "d_model": width,
        "d_sae": d_sae,
        "dataset_average_activation_norm": {"in": norm},
        "hook_point_in": "blocks.1.hook_resid_post",
        "jump_relu_threshold": threshold,
    }
    (folder / "hyperparams.json").write_text(json.dumps(settings))
    directions = torch.eye(width).repeat(2, 1) * torch.tensor([1.0] * 4 + [-1.0] * 4)[:, None]
    weights = {
        "encoder.weight": directions / (math.sqrt(width) / norm),
        "encoder.bias": torch.zeros(d_sae),
        "decoder.weight": directions.T.contiguous(),
        "decoder.bias": torch.zeros(width),
    }
    save_file(weights, folder / "checkpoints" / "final.safetensors")
    x = torch.tensor([[0.4, -0.6, 3.0, -0.1]])
    found = load_llama_scope(folder).encode(x)[0]
    assert found.nonzero().flatten().tolist() == [2, 5]
    # A ReLU would have four.
    assert (x @ directions.T > 0).sum() == 4
    del settings["jump_relu_threshold"]
    (folder / "hyperparams.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="jump_relu_threshold"):
        load_llama_scope(folder)


# Defect 4: bankrupt games differ in their balance, and so does whatever reads it.


def test_a_latent_that_only_reads_the_balance_is_not_called_different():
    random = np.random.default_rng(0)
    n = 600
    balance = random.integers(5, 200, n)
    # Who has little is more often about to go bankrupt; risk comes on top of it.
    risk = random.normal(size=n)
    is_bankrupt = random.random(n) < 1 / (1 + np.exp((balance - 60) / 15 - risk))
    noise = random.normal(size=(2, n))
    of_balance = np.maximum((120 - balance) / 20 + noise[0], 0)
    of_risk = np.maximum(risk + 0.3 * noise[1], 0)
    states = pl.DataFrame(
        {
            "game": [f"g{i:03d}" for i in range(n)],
            "balance": balance,
            "round": random.integers(1, 9, n),
            "losses": random.integers(0, 3, n),
            "last_won": random.random(n) < 0.3,
            "row": np.arange(n),
            "bet_type": random.choice(["fixed", "variable"], n),
            "components": random.choice(["BASE", "G", "GM"], n),
        }
    )
    lengths = random.integers(200, 300, n)
    rows = Rows(
        is_bankrupt,
        codes(states["game"]),
        covariates(states, lengths, ["bet_type", "components"]),
        np.zeros(n, np.int64),
    )
    latents = csc_array(np.stack([of_balance, of_risk], axis=1))
    reads_balance, reads_risk = contrasts({"3.resid_post": latents}, rows).to_dicts()
    # By the statistics of the original, both are; the one of the balance above all.
    assert reads_balance["cohen_d"] > 1
    assert reads_balance["p_welch"] < 1e-20
    assert not reads_balance["is_different"]
    assert abs(reads_balance["adjusted_d"]) < 0.2
    assert reads_risk["is_different"]


# Defects 12, 15 and 17: what files of the original say of their games, and how it was.


def test_bets_that_a_fixed_game_does_not_offer_are_counted(tmp_path):
    # Defect 12: any amount was played.
    games = [bare((25, False), bet_type="fixed"), bare((10, False), bet_type="fixed", repetition=1)]
    found = imported(tmp_path, *games, bare((25, False)))
    assert found.files["odd_bets"].to_list() == [1]


def test_prompts_that_show_another_balance_than_there_was_are_counted(tmp_path):
    # Defect 15: the second prompt showed what a first result would have left.
    given = told((10, True), (10, False), first_result="L")
    given["round_features"][1]["prompt"] = "First game result: Loss.\nCurrent balance: $90\n"
    assert imported(tmp_path, given).files["wrong_prompts"].to_list() == [1]


def test_a_game_that_ran_out_of_rounds_is_no_voluntary_stop(tmp_path):
    # Defect 17.
    endless = bare(*[(5, False), (5, True), (5, False)] * 34, repetition=0)
    endless["history"] = endless["history"][:100]
    endless["total_rounds"] = 100
    endless["final_balance"] = endless["history"][-1]["balance"]
    found = imported(tmp_path, endless, bare((5, False), repetition=1))
    assert found.games["outcome"].to_list() == ["max_rounds", "voluntary_stop"]
    assert found.attempts.filter(pl.col("action") == "stop")["repetition"].to_list() == [1]
    assert found.files["relabelled"].to_list() == [1]
    told_so = imported(tmp_path, told(*[(5, True)] * 100, stop=False, voluntary_stop=False))
    assert told_so.games["outcome"].to_list() == ["max_rounds"]


def test_a_game_that_broke_off_is_no_voluntary_stop(tmp_path):
    # Defect 17: whatever was not bankrupt counted as stopped.
    found = imported(tmp_path, told((5, False), stop=False))
    assert found.games["outcome"].to_list() == ["invalid"]


# Defect 20: 32,768 floats a decision as text, and secrets within the tree.


def test_latents_on_disk_grow_with_what_is_active_and_not_with_the_sae(run):
    for layer in LAYERS:
        point = f"{layer}.resid_post"
        latents = read_latents(run, run.config, point)
        n_rows, d_sae = latents.shape
        (file,) = (run.folder / "latents/shards" / point).glob("*.safetensors")
        # 4 bytes a value, 8 its number, 8 a row, and the header.
        assert file.stat().st_size < 12 * latents.nnz + 8 * (n_rows + 1) + 1024
        assert 12 * latents.nnz < 4 * n_rows * d_sae / 4


def test_no_secret_of_the_environment_is_in_a_run(run):
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        assert not [name for name, value in SECRETS.items() if value.encode() in content], path


# Games of the original, through the study itself.


def test_a_log_plays_as_its_games_were(tmp_path):
    log = write(tmp_path / "games.json", told((10, True), (5, False)), bare((10, False)))
    run = played(tmp_path, play={"log": str(log)})
    found = imported(tmp_path, told((10, True), (5, False)), bare((10, False)))
    assert read_games(run).equals(found.games)
    assert read_attempts(run).equals(found.attempts)


def test_a_run_is_not_continued_on_another_log(tmp_path):
    log = write(tmp_path / "games.json", bare((10, False)))
    played(tmp_path, play={"log": str(log)})
    write(log, bare((20, False)))
    with pytest.raises(RunError, match=r"games\.json"):
        played(tmp_path, play={"log": str(log)})


def test_nothing_is_recorded_of_games_without_prompts(tmp_path):
    log = write(tmp_path / "games.json", told((10, False)), bare((10, False)))
    settings = {"model": "organism", "saes": "organism:batch_topk", "play": {"log": str(log)}}
    with pytest.raises(ConfigError, match=r"2 of 4 decisions.*have no prompt.*saes\.source=null"):
        played(tmp_path, **settings)


def test_a_log_of_the_slot_machine_plays_no_other_game(tmp_path):
    log = write(tmp_path / "games.json", bare((10, False)))
    with pytest.raises(ConfigError, match="games of slot_machine, and game is coin_flip"):
        played(tmp_path, game="coin_flip", play={"log": str(log)})
