"""Defects of the original's engineering, by their numbers in its specification, section 9.4."""

import re
from pathlib import Path

import polars as pl
import torch

import fluoroscope
from fluoroscope.core.config import what_half
from fluoroscope.core.sink import SILENT
from fluoroscope.models.sampling import Sampling
from fluoroscope.organism import load
from fluoroscope.runs.run import DONE
from fluoroscope.runs.step import ShardContext
from fluoroscope.studies.gambling.episodes import Retries, converse
from fluoroscope.studies.gambling.logs import attempts_frame
from fluoroscope.studies.gambling.players.model_player import ModelPlayer
from fluoroscope.studies.gambling.steps.play import make_seats, read_attempts
from fluoroscope.studies.gambling.steps.record import RecordStep, read_prompts, read_states

PACKAGE = Path(fluoroscope.__file__).parent


def test_all_games_of_a_shard_are_in_flight_together_and_change_nothing(quick_run, monkeypatch):
    # Defect 18: batch size 1, no cache.
    config, model = quick_run.config, load().model
    seats = make_seats(config, range(4))
    waves: list[int] = []
    answer = ModelPlayer._answer

    def counted(self, games, asks):
        waves.append(len(asks))
        return answer(self, games, asks)

    monkeypatch.setattr(ModelPlayer, "_answer", counted)
    player = ModelPlayer(model, Sampling(), max_tokens=12)
    together = player.play([converse(seat, Retries()) for seat in seats])
    assert waves[0] == len(seats) >= 12
    alone = [player.play([converse(seat, Retries())])[0] for seat in seats[:4]]
    columns = ["game", "decision", "response", "action", "amount", "balance_after"]
    some = attempts_frame(together[:4]).select(columns)
    assert some.equals(attempts_frame(alone).select(columns))


def test_no_module_sets_devices_by_the_environment_or_empties_the_cache_of_a_gpu():
    # Defect 18: CUDA_VISIBLE_DEVICES set after torch was imported, empty_cache() after each sample.
    sources = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    setting = re.compile(r"environ\[.CUDA_VISIBLE_DEVICES.\]\s*=")
    assert not [path for path, text in sources.items() if setting.search(text)]
    own = {path: text for path, text in sources.items() if "gambling" in path.parts}
    assert own
    assert not [path for path, text in own.items() if "empty_cache" in text]


def test_each_prompt_is_read_once_for_all_layers_and_latents(quick_run, monkeypatch, tmp_path):
    # Defect 19: a forward pass for every feature and response.
    read: list[tuple[int, int]] = []
    model = load().model
    run_until = type(model).run_until

    def counted(self, hooks, tokens, mask=None):
        read.append((len(tokens), len(hooks)))
        run_until(self, hooks, tokens, mask)

    monkeypatch.setattr(type(model), "run_until", counted)
    step = RecordStep(quick_run.config)
    for shard in step.shards(quick_run):
        step.work(quick_run, shard, ShardContext(tmp_path, SILENT, "cpu"))
    prompts = read_prompts(quick_run)
    assert sum(rows for rows, _ in read) == len(prompts) == len(set(prompts))
    assert {n_points for _, n_points in read} == {2}
    assert len(read_states(quick_run)) > len(prompts)


def test_what_is_kept_grows_with_what_is_active_and_says_what_it_is(quick_run):
    # Defect 20: 14 GB of JSON, dense; resumed by the newest file name.
    states = read_states(quick_run)
    for point in quick_run.config.hook_points:
        folder = quick_run.folder / "latents" / "shards" / point
        dense = states["row"].n_unique() * 512 * 4
        assert (folder / "latents.safetensors").stat().st_size < dense
        recorded = pl.read_json(folder / "provenance.json")
        assert {"feature_space", "hook_point", "d_sae", "weights_sha256", "layers"} <= set(
            recorded.columns
        )
    for step in ("play", "record", "latents", "contrast", "screen", "doses"):
        assert (quick_run.folder / step / DONE).exists()


def test_every_reply_has_its_prompt_seed_and_grammar(quick_run):
    # Defect 20: no seeds, no versions, no prompts.
    attempts = read_attempts(quick_run)
    for name in ("prompt", "response", "seed", "grammar", "rule"):
        assert attempts[name].null_count() == 0
    assert attempts["seed"].n_unique() > 20


def test_the_recorded_settings_are_those_that_were_played(quick_run):
    # Defect 17: the stored settings said 10 repetitions, and 50 were run.
    attempts = read_attempts(quick_run)
    settings = what_half(quick_run.config)
    assert settings["play"]["repetitions"] == attempts["repetition"].n_unique()
    assert set(settings["table"]["conditions"]) == set(attempts["condition"])
    assert torch.get_num_threads() >= 1
