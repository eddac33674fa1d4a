"""Defects of the original's causal claims, by their numbers in its specification, section 9.2."""

import numpy as np
import polars as pl
import pytest
import torch

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError, InterventionError
from fluoroscope.core.sink import SILENT
from fluoroscope.interventions.positions import LAST, Positions
from fluoroscope.interventions.row_edits import row_edits
from fluoroscope.interventions.screening import Screen
from fluoroscope.models.generation import Capture, Request, generate
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.sampling import Sampling
from fluoroscope.organism import load
from fluoroscope.runs.step import ShardContext
from fluoroscope.sae.latent_edits import SetLatent, latent_block
from fluoroscope.steps.sweep_settings import SweepTexts
from fluoroscope.studies.gambling import decision_screen
from fluoroscope.studies.gambling.causal import Screened, screened_table
from fluoroscope.studies.gambling.seed_rule import Chances, passed_by_chance, verdicts_of
from fluoroscope.studies.gambling.situations import situations
from fluoroscope.studies.gambling.steps.play import model_player, read_attempts
from fluoroscope.studies.gambling.steps.screen import DosesStep, ScreenStep, read_screened

POINT = HookPoint("3.resid_post")
PROMPT = "You play a slot machine at a casino."


@pytest.fixture(scope="module")
def organism():
    return load()


def test_a_patch_keeps_what_the_sae_does_not_reconstruct(organism):
    # Defect 5: the reconstruction took the place of the activation.
    sae, model = organism.saes[3, "batch_topk"], organism.model
    x = torch.randn(4, model.d_model) * 20
    latents = sae.encode(x)
    edited = x + SetLatent(sae, 238, 5.0).change(x)
    moved = (5.0 - latents[:, [238]]) * sae.W_dec[238]
    torch.testing.assert_close(edited, x + moved, rtol=1e-4, atol=1e-4)
    assert (sae(x) - x).norm() > 10 * 1e-3


def test_the_reconstruction_alone_stands_among_the_controls(quick_run):
    # Defect 5: without it the SAE's error passes for an effect of the latent.
    controls = pl.read_csv(quick_run.folder / "tables" / "controls.csv")
    assert any("reconstruction" in name for name in controls["control"])
    sampled = pl.read_csv(quick_run.folder / "tables" / "sampled.csv", infer_schema_length=None)
    assert {"reconstruction", "random latent", "set"} <= set(sampled["kind"])


def test_signs_without_a_test_pass_latents_that_do_nothing_and_ours_does_not():
    # Defect 6: a sign rule, no test, no correction.
    nothing = Chances(0.4, np.full(2000, 0.4), np.full(2000, 0.4))
    found = verdicts_of(nothing, nothing, seed=0)
    assert (found["seed_safe"] | found["seed_risky"]).mean() > 0.3
    assert passed_by_chance(nothing, nothing, seed=1).mean() > 0.3
    noise = np.random.default_rng(0).normal(0, 0.05, (2, 60, 2000))
    assert (screened_table(Screened(*noise))["q"] < 0.05).mean() < 0.001


def test_all_latents_are_compared_with_one_baseline_of_their_state(
    quick_run, monkeypatch, tmp_path
):
    # Defect 7: each latent had a noisy baseline of its own.
    read: list[object] = []
    init = Screen.__init__

    def counted(self, model, prompt, *rest):
        read.append(prompt)
        init(self, model, prompt, *rest)

    monkeypatch.setattr(Screen, "__init__", counted)
    step = DosesStep(quick_run.config)
    shard = step.shards(quick_run)[0]
    screens = step.screens(quick_run, shard, ShardContext(tmp_path, SILENT, "cpu"))
    n = shard.params["to"] - shard.params["from"]
    assert len(screens) == len(read) == n
    baseline = screens[0].baseline()
    torch.testing.assert_close(screens[0].decisions([{}, {}])[1], baseline)


def test_effects_are_of_real_states_each_with_its_own_balance(quick_run):
    # Defect 8: two prompts, and a balance of 30 where the prompt says 20.
    step = ScreenStep(quick_run.config)
    states = step.states(quick_run)
    assert states["game"].n_unique() == len(states) > 5
    assert states["balance"].n_unique() > 1
    player = model_player(quick_run, quick_run.config, "cpu")
    found = situations(quick_run.config, read_attempts(quick_run), states, player)
    for row, one in zip(states.iter_rows(named=True), found, strict=True):
        assert f"Current balance: ${row['balance']}\n" in one.prompt
        assert max(one.amounts.values()) <= row["balance"]


def test_greedy_texts_are_not_counted_as_many():
    # Defect 9: 200 identical outputs were 200 trials.
    with pytest.raises(ConfigError, match="one text, counted as many"):
        build(SweepTexts, {"trials": 200, "sampling": {"temperature": 0}})


def test_a_reply_that_cannot_be_read_is_neither_a_stop_nor_dropped():
    # Defect 10: invalid trials became stops, or were drawn again until they suited.
    from fluoroscope.studies.gambling.steps.confirm import sampled_effects

    about = {"kind": ["baseline", "set"], "condition": ["baseline", "safe_mean"]}
    rows = []
    for cell in (0, 1):
        for trial in range(12):
            is_read = cell == 0 or trial < 6
            rows.append(
                {
                    "prompt": "000", "cell": cell, "kind": about["kind"][cell],
                    "condition": about["condition"][cell], "hook_point": "3.resid_post",
                    "latent": 7, "value": 1.0, "trial": trial, "is_read": is_read,
                    "is_stop": cell == 1 and is_read, "bet": 10 if cell == 0 else None,
                    "is_variable": False,
                }
            )  # fmt: skip
    [found] = sampled_effects(pl.DataFrame(rows)).to_dicts()
    assert (found["n"], found["stop"], found["unread"]) == (12, 0.5, 0.5)


def test_a_patch_changes_the_same_positions_with_and_without_a_cache(organism):
    # Defect 11: cache on or off decided what was patched.
    model, sae = organism.model, organism.saes[3, "batch_topk"]
    edit = {POINT: SetLatent(sae, 238, 30.0)}
    positions = Positions.parse("LAST | GENERATED")
    request = Request(prompt=PROMPT, max_tokens=5, seed=3, stop_tokens=())
    captures = {"x": Capture(POINT, "last")}
    with row_edits(model, [edit], positions):
        [cached] = generate(model, [request], sampling=Sampling(), captures=captures)
    tokens = [*model.tokenizer(PROMPT)["input_ids"], *cached.tokens]
    n_prompt = cached.n_prompt
    seen: dict[HookPoint, torch.Tensor] = {}

    def patch(value: torch.Tensor) -> torch.Tensor:
        edited = value.clone()
        for place in range(n_prompt - 1, len(tokens) - 1):
            own = value[:, place]
            edited[:, place] = own + edit[POINT].change(own)
        seen[POINT] = edited
        return edited

    model.run_until({POINT: patch}, torch.tensor([tokens]))
    torch.testing.assert_close(
        cached.captured["x"], seen[POINT][0, len(tokens) - 2].float(), rtol=1e-3, atol=1e-3
    )
    assert cached.n_edits == len(cached.tokens)


def test_an_edit_that_does_not_fire_is_an_error_and_not_a_result(organism):
    # Defect 11: 600 latents were "tested" in 23 seconds without one being patched.
    model, sae = organism.model, organism.saes[3, "batch_topk"]
    screen = Screen(model, PROMPT, positions=LAST)
    block = latent_block(sae, POINT, torch.tensor([238]), torch.tensor([3.0]))
    hooked = model.hooked
    try:
        model.hooked = lambda hooks: hooked({})
        with pytest.raises(InterventionError, match="did not fire"):
            screen.next_tokens(block)
    finally:
        del model.hooked


def test_the_number_of_tests_is_that_of_all_hook_points_together(quick_run):
    # Defect 6: p < 0.05 over thousands of features, uncorrected.
    table = read_screened(quick_run)
    assert table["hook_point"].n_unique() == 2
    p, q = table["p"].to_numpy(), table["q"].to_numpy()
    known = ~np.isnan(p)
    order = np.argsort(p[known])
    m = known.sum()
    expected = np.minimum.accumulate((p[known][order] * m / np.arange(1, m + 1))[::-1])[::-1]
    np.testing.assert_allclose(q[known][order], np.minimum(expected, 1), rtol=1e-12)
    assert decision_screen.OUTCOMES == ("stop", "bet")
