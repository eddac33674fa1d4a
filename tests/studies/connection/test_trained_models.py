"""What a run has trained opens again as what it was when the run tested it."""

import json
import shutil

import polars as pl
import pytest
import torch
from small_connection_study import run_bare, run_few_phases

from fluoroscope.activations.capture import capture
from fluoroscope.core.errors import ConfigError, MismatchError, ModelError, RunError
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.core.tensors import read_tensors
from fluoroscope.interventions.edits import AddDirection
from fluoroscope.interventions.steering import steer
from fluoroscope.models.generation import generate
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.sampling import Sampling
from fluoroscope.runs.run import Run
from fluoroscope.studies.connection.trained_models import kept_trainings, load_trained

SLOTS = "pointer_fixed.slots.42"


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Run:
    arms = ["slots", "none", "transformer"]
    return run_bare(tmp_path_factory.mktemp("runs"), arms=arms, seeds=1)


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Run:
    return run_few_phases(tmp_path_factory.mktemp("runs"), until="phase2", keep="all")


def answered(run: Run, step: str, arm: str) -> pl.DataFrame:
    """The test side's questions, and what the run had answered to them."""
    answers = pl.read_parquet(run.folder / step / "answers.parquet")
    asked = pl.read_parquet(
        run.folder / "questions" / "shards" / "pointer_fixed" / "questions.parquet"
    )
    return answers.filter(side="test", arm=arm).join(asked.select("id", "source"), on="id")


def changed(run: Run, folder, **thinking) -> str:
    """A copy of the run whose training was told to think otherwise."""
    shutil.copytree(run.folder, folder)
    if thinking:
        file = folder / "train" / "shards" / SLOTS / "state.json"
        state = read_json(file)
        write_json(file, {**state, "thinking": {**state["thinking"], **thinking}})
    return str(folder)


@pytest.mark.parametrize("arm", ["slots", "phases"])
def test_it_answers_as_it_did_when_it_was_tested(arm, done, swept):
    run, step, arm = (done, "train", "slots") if arm == "slots" else (swept, "phase1", "none")
    name = SLOTS if step == "train" else f"phase1/pointer_fixed.{arm}.42"
    for row in answered(run, step, arm).iter_rows(named=True):
        model = load_trained(run.folder, name, n_steps=2 * row["depth"])
        (answer,) = generate(model, [row["source"]], sampling=Sampling(temperature=0))
        assert model.text_tokenizer.decode(answer.tokens) == row["answer"]
        wanted = torch.tensor([model.encode(row["target"])])
        scores = model.answer_scores(*model.tokenize([row["source"]]), wanted)
        assert float(-scores.mean()) == pytest.approx(row["loss"], abs=1e-5)


def test_its_steps_are_layers_that_can_be_read_and_edited(done):
    model = load_trained(done.folder, SLOTS, n_steps=3)
    assert model.name == f"small/{SLOTS}"
    assert model.n_layers == 3
    assert not any(one.requires_grad for one in model.network.parameters())
    texts = answered(done, "train", "slots")["source"].to_list()
    tokens, mask = model.tokenize(texts)
    point = HookPoint(2, "resid_post")
    states = capture(model, tokens, [point], mask)[point]
    assert states.shape == (len(texts), 4, 16)
    direction = torch.ones(16)
    with steer(model, {str(point): AddDirection(direction)}):
        moved = capture(model, tokens, [point], mask)[point]
    torch.testing.assert_close(moved, states + direction)


def test_it_thinks_as_often_as_in_evaluation(done, tmp_path):
    halting = changed(done, tmp_path / "halting", steps="halting")
    assert load_trained(halting, SLOTS).n_steps is None
    for steps in ("all", "sampled"):
        run = changed(done, tmp_path / steps, steps=steps)
        assert load_trained(run, SLOTS).n_steps == 4
        assert load_trained(run, SLOTS, n_steps=7).n_layers == 7


def test_where_each_question_had_its_own_number_it_is_asked_for(done):
    with pytest.raises(ConfigError, match=r"by_depth, 2 steps .* n_steps is 2 times the hops"):
        load_trained(done.folder, SLOTS)


def test_a_run_is_also_known_by_its_name(done, monkeypatch):
    monkeypatch.setenv("FLUOROSCOPE_RUNS", str(done.folder.parent))
    assert load_trained("small", SLOTS, n_steps=2).n_steps == 2


def test_what_opens_is_listed(done, swept):
    assert kept_trainings(done.folder) == [SLOTS]
    assert kept_trainings(swept.folder) == [
        "phase1/pointer_fixed.bilinear_base.42",
        "phase1/pointer_fixed.none.42",
        "phase2/pointer_fixed.as_before.42",
    ]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("pointer_fixed.transformer.42", ModelError, "arm transformer, which has no slots"),
        ("pointer_fixed.none.42", ModelError, "left no weights, as the run has keep=main"),
        ("pointer_fixed.slot.42", RunError, f"Did you mean '{SLOTS}'"),
        ("phase1/pointer_fixed.none.42", RunError, "has no training"),
    ],
)
def test_what_does_not_open_says_why_and_what_does(name, error, words, done):
    with pytest.raises(error, match=words) as said:
        load_trained(done.folder, name, n_steps=2)
    assert SLOTS in str(said.value)


def test_a_network_without_steps_has_none_to_hook(done, tmp_path):
    run = changed(done, tmp_path / "still")
    path = tmp_path / "still" / "train" / "shards" / SLOTS / "state.json"
    state = read_json(path)
    state["reasoner"]["max_steps"] = 0
    write_json(path, state)
    with pytest.raises(ModelError, match="does not think at all"):
        load_trained(run, SLOTS)


def test_weights_of_another_training_are_refused(swept, tmp_path):
    run = changed(swept, tmp_path / "mixed")
    shards = tmp_path / "mixed" / "phase1" / "shards"
    one, other = (shards / f"pointer_fixed.{arm}.42" for arm in ("bilinear_base", "none"))
    assert read_tensors(one / "trained.safetensors").keys()
    shutil.copy(other / "trained.safetensors", one / "trained.safetensors")
    with pytest.raises(MismatchError, match=r"of pointer_fixed\.none\.42"):
        load_trained(run, "phase1/pointer_fixed.bilinear_base.42", n_steps=2)


def test_a_run_of_another_study_is_refused(done, tmp_path):
    run = changed(done, tmp_path / "other")
    record = json.loads((tmp_path / "other" / "run.json").read_text())
    write_json(tmp_path / "other" / "run.json", {**record, "study": "plugin"})
    with pytest.raises(RunError, match="of the study plugin, not of connection"):
        load_trained(run, SLOTS)
