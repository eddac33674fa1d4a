"""Defects of the original's engineering, by their numbers in specs/gambling.md 9.4: what would
be false if ours had them.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest
import torch
from quick_study import quick_spec

import fluoroscope
from fluoroscope.core.config import build
from fluoroscope.core.sink import SILENT
from fluoroscope.core.storage import sha256_folder
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.sampling import Sampling
from fluoroscope.runs.engine import execute
from fluoroscope.runs.events import read_events
from fluoroscope.runs.how import How
from fluoroscope.runs.run import DONE, Run
from fluoroscope.runs.step import ShardContext
from fluoroscope.steps import sae_sources
from fluoroscope.studies.gambling.episodes import Retries, converse
from fluoroscope.studies.gambling.players.model_player import ModelPlayer
from fluoroscope.studies.gambling.spec import GamblingSpec
from fluoroscope.studies.gambling.steps import record
from fluoroscope.studies.gambling.steps.doses import DosesStep
from fluoroscope.studies.gambling.steps.latents import read_latents
from fluoroscope.studies.gambling.steps.play import make_seats, read_attempts
from fluoroscope.studies.gambling.steps.record import RecordStep, read_activations, read_prompts
from fluoroscope.studies.gambling.steps.screen import ScreenStep
from fluoroscope.studies.gambling.study import GamblingStudy

PACKAGE = Path(fluoroscope.__file__).parent
TREE = PACKAGE.parent
LOCAL = How(devices="cpu", retries=0)


@pytest.fixture
def run(quick_run) -> Run:
    """The finished run with a memory of its own."""
    return Run(quick_run.folder, "gambling", quick_run.config)


def context(folder: Path, name: str) -> ShardContext:
    (folder / name).mkdir()
    return ShardContext(folder / name, SILENT, "cpu")


def test_all_games_of_a_shard_are_in_flight_at_once(run, stranger, monkeypatch):
    # Defect 18: one game at a time, one text at a time.
    calls: list[int] = []
    own = ModelPlayer._generate

    def counted(player, requests):
        calls.append(len(requests))
        return own(player, requests)

    monkeypatch.setattr(ModelPlayer, "_generate", counted)
    model = LanguageModel.load(str(stranger / "model"))
    player = ModelPlayer(model, Sampling(), max_tokens=2)
    retries = Retries(max_attempts=2, max_skips=2)
    seats = make_seats(run.config, range(3))
    player.play([converse(seat, retries) for seat in seats])
    assert calls == [len(seats)] * 4


def test_an_sae_is_loaded_once_by_a_process_for_all_shards_and_doses(run, tmp_path, monkeypatch):
    # Defect 18: each of up to five processes a GPU loaded its SAE anew for every task.
    loaded: list[str] = []
    own = sae_sources.load_choice

    def counted(choice, **rest):
        loaded.append(choice.hook_point)
        return own(choice, **rest)

    monkeypatch.setattr(sae_sources, "load_choice", counted)
    screen, doses = ScreenStep(run.config), DosesStep(run.config)
    for step, shard in (*((screen, shard) for shard in screen.shards(run)),
                        (doses, doses.shards(run)[-1])):  # fmt: skip
        step.work(run, shard, context(tmp_path, f"{step.name}-{shard.key}"))
    assert sorted(loaded) == sorted(run.config.hook_points)


def sources() -> list[Path]:
    return [file for file in PACKAGE.rglob("*.py") if "__pycache__" not in file.parts]


def test_no_module_chooses_gpus_by_the_environment_or_empties_caches():
    # Defect 18: CUDA_VISIBLE_DEVICES was set after torch was imported, empty_cache after each text.
    assert len(sources()) > 100
    for file in sources():
        text = file.read_text(encoding="utf-8")
        # It may be read (which GPUs a process sees), and never written.
        named = text.count('"CUDA_VISIBLE_DEVICES"')
        assert named == text.count('environ.get("CUDA_VISIBLE_DEVICES")'), file
        assert "empty_cache(" not in text, file


def test_no_module_names_a_place_of_one_machine():
    # Defect 18: folders and GPU numbers of the authors' machines.
    for file in sources():
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"[\"'](/home/|/data/|/root/|/mnt/|/scratch/|/work/)", text), file


@pytest.mark.parametrize("n_points", [1, 2])
def test_one_pass_over_each_prompt_feeds_all_layers_and_all_latents(
    run, tmp_path, monkeypatch, n_points
):
    # Defect 19: a pass a layer, and a pass a latent and text: 2.8 million instead of 6,400.
    rows: list[int] = []
    shard = RecordStep(run.config).shards(run)[0]
    saes = run.config.subject.saes[:n_points]
    subject = run.config.subject.model_copy(update={"saes": saes})
    config = run.config.model_copy(update={"subject": subject})
    own = record.model_player

    def watched(*args):
        player = own(*args)
        player.model.network.register_forward_pre_hook(
            lambda _, args, kwargs: rows.append(len(kwargs.get("input_ids", *args[:1]))),
            with_kwargs=True,
        )
        return player

    monkeypatch.setattr(record, "model_player", watched)
    RecordStep(config).work(run, shard, context(tmp_path, "record"))
    prompts = read_prompts(run)[shard.params["from"] : shard.params["to"]]
    assert len(set(prompts)) == len(prompts)
    assert sum(rows) == len(prompts)
    decisions = read_attempts(run).filter(pl.col("attempt") == 1)
    assert len(read_prompts(run)) == decisions["prompt"].n_unique() < len(decisions)


def test_latents_are_kept_by_what_is_active(run):
    # Defect 20: 32,768 numbers a decision and layer as text, 14 GB.
    for point in run.config.hook_points:
        latents = read_latents(run, run.config, point)
        n, d_sae = latents.shape
        size = (run.folder / "latents" / "shards" / point / "latents.safetensors").stat().st_size
        # Four bytes a number, eight where it stands, eight a row.
        assert size <= 12 * latents.nnz + 8 * (n + 1) + 1000
        dense = latents.toarray()
        assert size < len(json.dumps(dense.tolist())) / 5
        assert latents.nnz < 0.2 * n * d_sae


def test_a_finished_shard_is_not_written_again(run, tmp_path):
    # Defect 20: every checkpoint wrote all that there was.
    shutil.copytree(run.folder, tmp_path / "quick")
    folder = tmp_path / "quick"
    (folder / "doses" / DONE).unlink()
    shutil.rmtree(folder / "doses" / "shards" / "00006")
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*/shards/**/*.safetensors")}
    before = len(read_events(folder, "shard started"))
    execute(GamblingStudy(), quick_spec(), "quick", LOCAL, root=tmp_path)
    assert len(read_events(folder, "shard started")) == before + 1
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_run_goes_on_by_what_files_are_and_not_by_which_is_the_newest(run, tmp_path):
    # Defect 20: the newest file by name was taken for the state of the run.
    shutil.copytree(run.folder, tmp_path / "quick")
    folder = tmp_path / "quick"
    for i, file in enumerate(sorted(folder.rglob("*"), reverse=True)):
        os.utime(file, (1e9 + i, 1e9 + i))
    newest = folder / "record" / "shards" / "9999999_20991231_235959"
    shutil.copytree(folder / "record" / "shards" / "0000000", newest)
    copied = Run(folder, "gambling", run.config)
    for point in run.config.hook_points:
        assert torch.equal(read_activations(copied, point), read_activations(run, point))
    shutil.rmtree(newest)
    shutil.rmtree(folder / "latents")
    execute(GamblingStudy(), quick_spec(), "quick", LOCAL, root=tmp_path)
    before, after = sha256_folder(run.folder / "latents"), sha256_folder(folder / "latents")
    assert before == after


def test_what_the_environment_keeps_secret_is_nowhere_in_a_run(stranger, monkeypatch, no_pictures):
    # Defect 20: keys lay in the tree.
    secrets = {"OPENAI_API_KEY": "sk-of-nobody-at-all", "HF_TOKEN": "hf_of_nobody_at_all"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    settings = {
        "model": str(stranger / "model"),
        "game": {"name": "coin_flip", "conditions": ["fixed-BASE"], "rules": {"max_rounds": 2}},
        "play": {"repetitions": 1, "max_tokens": 2, "retries": {"max_attempts": 1, "max_skips": 1}},
    }
    run = execute(GamblingStudy(), build(GamblingSpec, settings), "run", LOCAL, root=stranger)
    files = [file for file in run.folder.rglob("*") if file.is_file()]
    assert len(files) > 10
    for file in files:
        data = file.read_bytes()
        assert not any(value.encode() in data for value in secrets.values()), file


def test_no_file_of_the_tree_holds_a_key():
    # Defect 20.
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=TREE, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    files = [TREE / name for name in listed if name] or sources()
    key = re.compile(rb"\b(sk-[A-Za-z0-9]{24,}|hf_[A-Za-z0-9]{30,}|AKIA[A-Z0-9]{16})\b")
    for file in files:
        if file.is_file() and file.stat().st_size < 2**22:
            assert not key.search(file.read_bytes()), file
