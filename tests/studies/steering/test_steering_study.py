"""The whole study on the organism, as `--preset tiny` has it, and on a real model's files."""

import json

import numpy as np
import polars as pl
import pytest
from small_study import small_spec

from fluoroscope.core.config import build
from fluoroscope.core.errors import FluoroscopeError
from fluoroscope.interventions.positions import GENERATED, LAST
from fluoroscope.interventions.replies.answering import reply_all
from fluoroscope.interventions.vectors import load_vector
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.steps.replies_table import replies_of
from fluoroscope.studies.settings import study_spec
from fluoroscope.studies.steering.spec import SteeringSpec
from fluoroscope.studies.steering.steps.select import load_plans
from fluoroscope.studies.steering.steps.stored import load_material
from fluoroscope.studies.steering.study import SteeringStudy

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _no_pictures(no_pictures):
    """What is drawn is tested where figures are."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fluoroscope.runs.report.save_chart", lambda *_: None)
        spec = study_spec("steering", "tiny", None, [])
        return executed(tmp_path_factory.mktemp("tiny"), spec)


def executed(root, spec, **how):
    return execute(SteeringStudy(), spec, "run", How(devices="cpu"), root=root, **how)


def results(run):
    return pl.read_parquet(run.step_folder("evaluate") / "results.parquet")


def test_the_tiny_preset_repairs_some_bias_and_random_latents_repair_less(run):
    found = results(run).filter(~pl.col("is_swept"))
    moved = dict(zip(found["recipe"], found["difference"], strict=True))
    controls = [value for name, value in moved.items() if name.startswith("random-latents")]
    assert len(controls) == 2
    assert moved["corrsteer-a"] > max(abs(value) for value in controls) + 0.05
    assert moved["planted"] > 0.05


def test_what_is_not_steered_differs_by_nothing_and_says_so(run):
    unsteered = results(run).filter(pl.col("recipe") == "")
    assert unsteered["is_steered"].to_list() == [False]
    assert unsteered.select("difference", "difference_low", "difference_high").row(0) == (0, 0, 0)
    assert unsteered["n_edits"].to_list() == [0]
    parts = pl.read_parquet(run.step_folder("evaluate") / "parts.parquet")
    own = parts.filter(pl.col("recipe") == "")
    assert (own["difference_high"] == 0).all()
    assert results(run).filter(pl.col("recipe") == "corrsteer-a")["is_steered"].all()


def test_sides_do_not_overlap_and_nothing_before_evaluate_reads_the_test_side(run):
    folder = run.step_folder("evaluate")
    tested = pl.read_parquet(folder / "replies.parquet")
    collected = pl.read_parquet(run.step_folder("collect") / "replies.parquet")
    assert not set(tested["group"]) & set(collected["group"])
    validation = {one.group_id for one in load_material(run, run.config, "cpu").validation}
    assert not validation & (set(tested["group"]) | set(collected["group"]))


def test_the_test_side_is_asked_in_evaluate_alone(tmp_path, monkeypatch):
    from fluoroscope.interventions.replies import answering

    asked = set()

    def noting(model, samples, *rest, **more):
        asked.update(sample.split for sample in samples)
        return reply_all(model, samples, *rest, **more)

    for step in ("stored", "evaluate"):
        monkeypatch.setattr(f"fluoroscope.studies.steering.steps.{step}.reply_all", noting)
    monkeypatch.setattr("fluoroscope.steps.collect.reply_all", noting)
    assert answering.reply_all is reply_all
    executed(tmp_path, small_spec(), until="tune")
    assert asked == {"train", "validation"}
    executed(tmp_path, small_spec())
    assert asked == {"train", "validation", "test"}


def test_a_row_of_replies_is_what_its_plan_says_again(run):
    """The stored replies of the main recipe are those of its plan at its strength."""
    material = load_material(run, run.config, "cpu")
    trial = results(run).filter((pl.col("recipe") == "corrsteer-a") & ~pl.col("is_swept"))
    strength = trial["strength"][0]
    edits = load_plans(run, run.config)["corrsteer-a"].edits(strength, material.saes)
    replies = reply_all(material.model, material.data.sides["test"], material.data.asking, edits)
    stored = pl.read_parquet(run.step_folder("evaluate") / "replies.parquet").filter(
        (pl.col("recipe") == "corrsteer-a") & ~pl.col("is_swept")
    )
    for one, other in zip(replies, replies_of(stored), strict=True):
        assert one.numbers == pytest.approx(other.numbers, abs=1e-5)
    mean = np.mean([one.score.value for one in replies])
    assert trial["after"][0] == pytest.approx(mean, abs=1e-6)


def test_strengths_are_those_that_the_validation_side_likes_best(run):
    tried = pl.read_parquet(run.step_folder("tune") / "tried.parquet")
    chosen = pl.read_parquet(run.step_folder("tune") / "chosen.parquet")
    for row in chosen.iter_rows(named=True):
        own = tried.filter((pl.col("recipe") == row["recipe"]) & pl.col("refused").is_null())
        if not own.is_empty():
            best = own.sort("score", descending=True).row(0, named=True)
            assert row["strength"] == best["strength"]
    assert set(tried["strength"]) == {0.0, 0.5, 1.0, 2.0}


def test_controls_have_as_many_parts_and_the_strength_of_corrsteer_a(run):
    chosen = pl.read_parquet(run.step_folder("tune") / "chosen.parquet")
    strength = dict(zip(chosen["recipe"], chosen["strength"], strict=True))
    plans = load_plans(run, run.config)
    main = plans["corrsteer-a"]
    for draw in (1, 2):
        latents = plans[f"random-latents {draw}"]
        assert [part.point for part in latents.parts] == [part.point for part in main.parts]
        for part, other in zip(latents.parts, main.parts, strict=True):
            assert part.latent != other.latent
            assert abs(part.coefficient) == pytest.approx(abs(other.coefficient), rel=1e-6)
        directions = plans[f"random-direction {draw}"]
        for part in directions.parts:
            added = main.added()[part.point]
            assert float((part.coefficient * part.direction).norm()) == pytest.approx(
                float(added.norm()), rel=1e-5
            )
        for method in ("random-latents", "random-direction"):
            assert strength[f"{method} {draw}"] == (strength["corrsteer-a"] or 1.0)


def test_progress_never_counts_beyond_its_total(run):
    events = (run.folder / "events.jsonl").read_text().splitlines()
    for event in map(json.loads, events):
        if {"done", "total"} <= event.keys():
            assert event["done"] <= event["total"]


def test_recipes_that_add_become_vectors_that_fluoro_steer_reads(tmp_path):
    spec = small_spec(steer={"sign": "either", "coefficient": "difference"}, against=[])
    run = executed(tmp_path, spec)
    folder = run.step_folder("evaluate") / "vectors"
    made = sorted(file.name for file in folder.iterdir())
    assert made
    for file in made:
        vector = load_vector(folder / file)
        assert vector.positions == LAST | GENERATED
        assert vector.coefficient != 0


def test_a_fact_that_is_not_there_is_refused_before_anything_is_searched(tmp_path):
    evaluate = {"within": "is_odd", "ablations": False, "draws": 1}
    with pytest.raises(FluoroscopeError, match=r"is_odd.*trait, form, is_biased"):
        executed(tmp_path, small_spec(evaluate=evaluate))
    assert not (tmp_path / "run" / "select" / "done.json").exists()


REAL = {
    "train": {
        "corpus": {"context": 64},
        "n_tokens": 4000,
        "hook_points": "1-2.resid_post",
        "sae": {"d_sae": 96, "k": 8},
        "training": {"batch_size": 256, "validate_every": 10},
        "evaluation": {"n_tokens": 500, "cards": 1, "contexts": 2},
    },
    "against": [],
    "steer": {"sign": "either", "coefficient": "active"},
    "collect": {"shuffles": 20, "resamples": 5, "min_active": 3},
    "strength": {"grid": [1.0], "refinements": 0, "n_texts": 8},
    "evaluate": {"ablations": False, "draws": 1, "sweep": [2.0]},
}


def real(stories_folder, data_folder, task):
    corpus = {"source": str(data_folder / "tinyshakespeare"), **REAL["train"]["corpus"]}
    return build(
        SteeringSpec,
        {
            **REAL,
            "model": str(stories_folder),
            "data_dir": str(data_folder),
            "train": {**REAL["train"], "corpus": corpus},
            "task": task,
        },
    )


@pytest.mark.slow
def test_a_real_model_is_collected_and_steered_on_emgsd(tmp_path, stories_folder, data_folder):
    task = {"name": "emgsd", "limit": 40, "max_tokens": 12}
    run = executed(tmp_path, real(stories_folder, data_folder, task))
    collected = pl.read_parquet(run.step_folder("collect") / "replies.parquet")
    assert len(collected) == 40
    assert 0 < collected["score"].mean() < 1
    assert (collected["n_tokens"] > 1).all()
    found = results(run)
    assert found["is_steered"].to_list().count(False) >= 1
    assert (found.filter("is_steered")["n_edits"] > 0).all()


@pytest.mark.slow
def test_a_real_model_is_judged_on_stereoset_by_sums(tmp_path, stories_folder, data_folder):
    task = {"name": "stereoset", "limit": 40}
    run = executed(tmp_path, real(stories_folder, data_folder, task))
    replies = pl.read_parquet(run.step_folder("collect") / "replies.parquet")
    numbers = replies["numbers"].to_list()
    assert all(len(several) == 3 for several in numbers)
    assert all(number < 0 for several in numbers for number in several)
    assert (results(run).filter("is_steered")["n_edits"] > 0).all()
