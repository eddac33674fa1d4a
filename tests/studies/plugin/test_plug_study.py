"""Whole runs of the plug-in study, small: what they leave, and that nothing changes it."""

import csv
import json
from pathlib import Path

import polars as pl
import pytest
import torch
from small_plug_study import run_small, small_settings, step_bytes
from strikes import end_after_strikes

from fluoroscope.core.errors import ConfigError, MismatchError
from fluoroscope.core.storage import read_json
from fluoroscope.core.tensors import read_tensors
from fluoroscope.runs.run import Run
from fluoroscope.studies.plugin.metrics import scores_of
from fluoroscope.studies.plugin.saved import SavedClassifier
from fluoroscope.studies.plugin.selection.features import LayerFeatures
from fluoroscope.studies.plugin.steps.choose import chosen_layer
from fluoroscope.studies.plugin.steps.read import FEATURES
from fluoroscope.studies.plugin.steps.texts import load_texts, set_key
from fluoroscope.studies.plugin.steps.train import read_train, trainings
from fluoroscope.studies.plugin.study import PluginStudy
from fluoroscope.studies.settings import study_spec

pytestmark = pytest.mark.usefixtures("no_pictures")

EXTRA = {
    "seeds": 2,
    "beside": ["base", "random_layer"],
    "selection": {"n_samples": 60, "also": ["plug_side"], "ilm": {"n_samples": 40}},
}


@pytest.fixture(scope="module")
def done(small_material: Path, tmp_path_factory) -> Run:
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fluoroscope.runs.report.save_chart", lambda *_: None)
        changes = {**EXTRA, "test_on": [f"file:{small_material / 'other.csv'}"]}
        return run_small(small_material, root, **changes)


def dataset(run: Run) -> str:
    return run.config.datasets[0]


def test_every_arm_and_seed_is_trained_and_none_twice(done):
    found = {(one.arm.key, one.seed) for one in trainings(done, done.config)}
    layer = chosen_layer(done, done.config, dataset(done))
    names = {f"faithful-{layer:02d}", "base", f"random_layer-{layer:02d}"}
    assert found == {(name, seed) for name in names for seed in (2023, 2024)}
    assert trainings(done, done.config)[0].arm.name == "faithful"


def test_scores_are_counted_once_over_the_predictions(done):
    predictions = read_train(done, "predictions.parquet")
    scores = read_train(done, "scores.parquet")
    for row in scores.iter_rows(named=True):
        of = [
            pl.col(name).eq_missing(pl.lit(row[name])) for name in ("arm", "layer", "seed", "side")
        ]
        some = predictions.filter(*of)
        logits = torch.tensor(some["log_probs"].to_list(), dtype=torch.float64)
        expected = scores_of(logits, torch.tensor(some["label"].to_list()))
        assert row["n"] == len(some)
        assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_layers_are_chosen_from_training_texts_alone(done):
    sides = load_texts(done.step_folder("texts"), dataset(done))
    folder = done.shard_folder("read", set_key(dataset(done)))
    read = set(LayerFeatures.read(folder / FEATURES).ids)
    assert read <= {one.id for one in sides.side("train")}
    others = {one.id for side in ("validation", "test") for one in sides.side(side)}
    assert not read & others


def test_the_choice_is_the_best_layer_of_its_method(done):
    key = set_key(dataset(done))
    record = read_json(done.shard_folder("choose", key) / "selection.json")
    rows = list(csv.DictReader((done.shard_folder("select", key) / "layer_scores.csv").open()))
    best = max(rows, key=lambda row: (float(row["final"]), -int(row["layer"])))
    assert record["best_llm_layer"] == int(best["layer"])
    assert record["best_llm_layer"] == chosen_layer(done, done.config, dataset(done))
    assert len(record["effects"]) == done.config.n_layers == len(rows)


def test_another_set_is_judged_by_the_main_arm_alone(done):
    sides = read_train(done, "scores.parquet").group_by("arm").agg(pl.col("side").n_unique())
    n_sides = dict(sides.iter_rows())
    assert n_sides == {"faithful": 3, "base": 2, "random_layer": 2}


def test_what_is_saved_is_what_learnt_and_the_layers_name(done):
    one = trainings(done, done.config)[0]
    folder = done.shard_folder("train", one.key)
    names = set(read_tensors(folder / "trained.safetensors"))
    assert not [name for name in names if "middle.layer" in name]
    assert {"plug.into.weight", "plug.out_of.weight"} <= names
    layer = read_json(folder / "state.json")["made_of"]["layer"]
    assert (layer["layer"], layer["n_layers"], layer["form"]) == (one.arm.layer, 3, "token")
    others = [one for one in trainings(done, done.config) if one.arm.name != "faithful"]
    kept = [done.shard_folder("train", one.key) / "trained.safetensors" for one in others]
    assert not [path for path in kept if path.exists()]


def test_a_saved_classifier_says_what_the_run_said(done, small_material):
    one = trainings(done, done.config)[0]
    folder = done.shard_folder("train", one.key)
    saved = SavedClassifier.load(folder / "trained.safetensors", cache=small_material / "layers")
    test = load_texts(done.step_folder("texts"), dataset(done)).side("test")
    said = saved.predict([example.text for example in test])
    rows = pl.read_parquet(folder / "predictions.parquet").filter(pl.col("side") == "test")
    expected = dict(zip(rows["id"], rows["predicted"], strict=True))
    names = saved.about.classes
    assert said["predicted"].to_list() == [names[expected[example.id]] for example in test]


def test_another_encoder_in_its_place_is_refused(done, small_material, tmp_path):
    from small_plug_study import write_model

    one = trainings(done, done.config)[0]
    path = done.shard_folder("train", one.key) / "trained.safetensors"
    moved = small_material / "encoder"
    kept = moved.rename(small_material / "kept")
    try:
        write_model(moved, "bert", seed=5)
        with pytest.raises(MismatchError, match="was trained with the encoder"):
            SavedClassifier.load(path)
    finally:
        for file in moved.iterdir():
            file.unlink()
        moved.rmdir()
        kept.rename(moved)


def test_the_same_run_again_has_the_same_bytes(done, small_material, tmp_path):
    changes = {**EXTRA, "test_on": [f"file:{small_material / 'other.csv'}"]}
    again = run_small(small_material, tmp_path, **changes)
    assert step_bytes(again) == step_bytes(done)


def test_struck_in_every_step_it_ends_with_the_same_bytes(
    done,
    small_material,
    tmp_path,
    monkeypatch,
):
    monkeypatch.setattr(PluginStudy, "steps", PluginStudy.steps)
    changes = {**EXTRA, "test_on": [f"file:{small_material / 'other.csv'}"]}
    run, strikes = end_after_strikes(
        PluginStudy,
        lambda: run_small(small_material, tmp_path / "runs", **changes),
        ["train-merge"],
        tmp_path / "struck",
    )
    assert strikes == {"texts", "read", "select", "choose", "train", "train-merge"}
    assert step_bytes(run) == step_bytes(done)


def test_the_order_of_a_tables_rows_plays_no_part(small_material, tmp_path):
    table = pl.read_csv(small_material / "texts.csv")
    place = tmp_path / "texts.csv"
    scores = []
    for frame in (table, table.sample(fraction=1.0, shuffle=True, seed=3)):
        frame.write_csv(place)
        changes = {"datasets": [f"file:{place}"], "mode": "base", "beside": [], "epochs": 1}
        run = run_small(small_material, tmp_path / f"runs{len(scores)}", **changes)
        scores.append(read_train(run, "predictions.parquet").sort("side", "id").drop("dataset"))
    assert scores[0].equals(scores[1])


def test_the_plans_files_are_written_and_another_training_does_not_take_their_place(
    small_material,
    tmp_path,
):
    folders = {name: str(tmp_path / name) for name in ("checkpoints", "models", "results")}
    outputs = {**folders, "cache": str(small_material / "layers")}
    for seed in (1, 2):
        changes = {"outputs": outputs, "epochs": 1, "beside": [], "seed": seed}
        run_small(small_material, tmp_path / "runs", f"seed{seed}", **changes)
    key = set_key(f"file:{small_material / 'texts.csv'}")
    own = tmp_path / "models" / "classification" / key / "cls" / "encoder" / "pifi" / "llm"
    states = sorted(own.rglob("state.json"))
    assert sorted(json.loads(path.read_text())["seed"] for path in states) == [1, 2]
    assert all((path.parent / "final_model.safetensors").exists() for path in states)
    # Other seeds draw other samples, so that the scores differ too.
    chosen = sorted((tmp_path / "results").rglob("selection.json"))
    assert len(chosen) == 2
    assert all((path.parent / "layer_scores.csv").exists() for path in chosen)
    assert not list(tmp_path.rglob("*.pt"))


def test_halving_ends_with_one_of_the_layers_that_it_tried(small_material, tmp_path):
    selection = {**small_settings(small_material)["selection"], "method": "halving", "keep": [3, 2]}
    run = run_small(small_material, tmp_path, selection=selection, beside=[])
    second = read_json(run.step_folder("halve-second") / "losses.json")[dataset(run)]
    assert len(second) == 2
    best = min(second, key=lambda layer: second[layer])
    assert chosen_layer(run, run.config, dataset(run)) == int(best)


def test_a_layer_that_reads_at_its_own_scale_needs_the_model_to_read(
    small_material,
    tmp_path,
):
    run = run_small(small_material, tmp_path, mode="pifi", layer=1, variant="rms", beside=[])
    assert (run.folder / "read").is_dir()
    assert not (run.folder / "select").exists()


def test_a_preset_with_controls_trains_the_encoder_alone_where_nothing_is_plugged_in(
    small_material,
):
    words = ["mode=base", f"model={small_material / 'encoder'}"]
    spec = study_spec("plugin", "sound", None, words)
    config = PluginStudy().resolve(spec)
    assert [arm.key for arm in config.arms(None)] == ["base"]


def test_another_number_of_classes_cannot_be_tested_on(small_material, tmp_path):
    with pytest.raises(ConfigError, match="the classes"):
        run_small(
            small_material, tmp_path, mode="base", test_on=[f"file:{small_material / 'three.csv'}"]
        )


@pytest.mark.slow
def test_killed_in_every_step_it_ends_with_the_same_bytes(small_material, tmp_path):
    from small_plug_study import small
    from strikes import end_after_kills

    changes = {"beside": ["base"], "seeds": 2}
    whole = run_small(small_material, tmp_path / "whole", **changes)
    codes = end_after_kills("plugin", small(small_material, **changes), "small", tmp_path)
    assert codes[-1] == 0
    assert len(codes) > len(("texts", "read", "select", "choose", "train"))
    assert step_bytes(Run.open(tmp_path / "small")) == step_bytes(whole)


@pytest.mark.slow
def test_two_workers_and_two_processes_a_training_give_what_one_does(
    small_material,
    tmp_path,
):
    from fluoroscope.runs.how import How

    changes = {"mode": "pifi", "layer": 0, "seeds": 2}
    alone = run_small(small_material, tmp_path, "alone", **changes)
    how = How(devices="cpu", executor="processes", workers=2)
    spread = run_small(small_material, tmp_path, "spread", how, **changes)
    assert step_bytes(alone) == step_bytes(spread)
    training = {**small_settings(small_material)["training"], "processes": 2}
    shared = run_small(small_material, tmp_path, "shared", **changes, training=training)
    one, two = (read_train(run, "scores.parquet")["loss"] for run in (alone, shared))
    assert two.to_list() == pytest.approx(one.to_list(), abs=2e-2)
