"""A run in the forms of the plan's files: every number stands where the plan has it."""

import csv
import json
import math
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from fluoroscope.cli import app
from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError, RunError
from fluoroscope.core.tensors import read_metadata, read_tensors
from fluoroscope.features.matching import Neighbours
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.runs.run import Run
from fluoroscope.sae.formats.native import load_sae
from fluoroscope.steps.sae_sources import find_saes, load_saes
from fluoroscope.studies.hallucination import methods as all_methods
from fluoroscope.studies.hallucination.detection.scores import auroc, scored
from fluoroscope.studies.hallucination.export import export_run, missing_files, run_of_results
from fluoroscope.studies.hallucination.seed_files.checkpoints import history_json
from fluoroscope.studies.hallucination.seed_files.detection import (
    out_of_fold_calibrated,
    per_fold,
    scores_json,
)
from fluoroscope.studies.hallucination.seed_files.evaluation import class_accuracy
from fluoroscope.studies.hallucination.seed_files.trajectories import tracks_json
from fluoroscope.studies.hallucination.seed_files.writing import plain, write_lines
from fluoroscope.studies.hallucination.spec import HallucinationSpec
from fluoroscope.studies.hallucination.steps import detect, evaluate, features
from fluoroscope.studies.hallucination.steps.read import read_shards
from fluoroscope.studies.hallucination.study import HallucinationStudy
from fluoroscope.studies.hallucination.tracking.families import feature_families

SMALL = {
    "model": "organism",
    "saes": {"source": "organism:batch_topk", "hook_points": "2-3.resid_post"},
    "data": {"name": "organism", "limit": 40},
    "answers": {"max_tokens": 8, "samples": 0},
    "read": {"answers_per_shard": 15},
    "tracking": {"sample": 100},
    "detection": {"folds": 2, "repeats": 2, "also": [], "resamples": 50, "permutations": 1},
}
KEPT = ("style", all_methods.BASELINE, all_methods.TRACKING, all_methods.COMBINED)
NAMES = {
    "tracking/hypothesis_trajectories.json",
    "tracking/semantic_clusters.json",
    "tracking/semantic_clusters.npz",
    "tracking/feature_activations.safetensors",
    "tracking/tracking_results.json",
    "tracking/tracking_summary.json",
    "detection/hallucination_scores.json",
    "detection/classifications.csv",
    "detection/detection_metrics.json",
    "evaluation/final_report.json",
    "evaluation/confusion_matrix.png",
    "evaluation/roc_curve.png",
    "models/checkpoints/organism/sae_layer_2_best.safetensors",
    "models/checkpoints/organism/sae_layer_3_best.safetensors",
}


STEPS = {"answers", "read", "associate", "track", "detect", "permute", "evaluate"}


class ToScores(HallucinationStudy):
    """Without what the files have nothing of: causes, running scores, known tracks."""

    def steps(self, config):
        return [step for step in super().steps(config) if step.name in STEPS]

    def report(self, run, sink):
        """Of a report there is nothing in the files."""


def few_methods(config):
    return {name: one for name, one in all_methods.methods(config).items() if name in KEPT}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole run but for methods that are only more of the same."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (detect, evaluate, features):
            patch.setattr(module, "methods", few_methods)
        spec = build(HallucinationSpec, SMALL)
        root = tmp_path_factory.mktemp("runs")
        yield execute(ToScores(), spec, "small", How(devices="cpu"), root=root)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    paths = export_run(run, out)
    assert {path.relative_to(out).as_posix() for path in paths} == NAMES
    assert missing_files(run) == {}
    return out


def loaded(folder, name):
    def refuse(token):
        raise AssertionError(f"{name} has {token}, which is no JSON")

    return json.loads((folder / name).read_text(), parse_constant=refuse)


def answers(run):
    return pl.read_parquet(run.folder / "read" / "answers.parquet")


def test_every_json_file_is_json_to_the_letter(exported):
    names = [name for name in NAMES if name.endswith(".json")]
    for name in names:
        assert loaded(exported, name), name
    texts = (exported / "tracking/hypothesis_trajectories.json").read_text().splitlines()
    # A text a line, for a program that does not want all of them in memory.
    assert [json.loads(line.rstrip(","))["id"] for line in texts[1:-1]] == [
        text["id"] for text in loaded(exported, "tracking/hypothesis_trajectories.json")
    ]


def test_trajectories_have_every_point_of_every_track(exported, run):
    texts = loaded(exported, "tracking/hypothesis_trajectories.json")
    assert [text["id"] for text in texts] == answers(run)["id"].to_list()
    points = pl.concat(
        [pl.read_parquet(f) for f in (run.folder / "track").glob("shards/*/tracks.parquet")]
    )
    assert sum(len(t["points"]) for text in texts for t in text["tracks"]) == len(points)
    for text in texts:
        mine = points.filter(pl.col("id") == text["id"])
        assert {t["position"] for t in text["tracks"]} == set(mine["position"])
        for track in text["tracks"]:
            assert track["birth"] == track["points"][0][0]
            assert track["death"] in (None, track["points"][-1][0])
            assert (track["death"] is None) == (track["points"][-1][0] == 3)
    # Layers are blocks of the model, not places in the list of those that are tracked.
    assert {p[0] for text in texts for t in text["tracks"] for p in t["points"]} == {2, 3}


def test_tracks_know_their_parents_and_children_within_a_position():
    rows = [
        (0, 0, 0, 7, 1.0, 0.5, 0.9, -1), (0, 0, 1, 8, 2.0, 0.6, 0.9, -1),
        (0, 1, 1, 9, 3.0, 0.7, 0.8, 0), (1, 0, 2, 5, 4.0, 0.8, 0.7, -1),
    ]  # fmt: skip
    names = [
        "position", "track", "layer", "latent", "activation", "strength", "existence", "parent",
    ]  # fmt: skip
    found = tracks_json(pl.DataFrame(rows, schema=names, orient="row"), [4, 6, 9])
    assert found == [
        {
            "id": 0, "position": 0, "birth": 4, "death": 6, "existence": 0.9, "parent": None,
            "children": [1], "points": [[4, 7, 1.0, 0.5], [6, 8, 2.0, 0.6]],
        },
        {
            "id": 1, "position": 0, "birth": 6, "death": 6, "existence": 0.8, "parent": 0,
            "children": [], "points": [[6, 9, 3.0, 0.7]],
        },
        {
            "id": 0, "position": 1, "birth": 9, "death": None, "existence": 0.7, "parent": None,
            "children": [], "points": [[9, 5, 4.0, 0.8]],
        },
    ]  # fmt: skip


def test_activations_are_those_that_were_read(exported, run):
    path = exported / "tracking/feature_activations.safetensors"
    found, ids = read_tensors(path), read_metadata(path)["ids"]
    assert ids == answers(run)["id"].to_list()
    start = 0
    for some, readings in read_shards(run):
        for layer in (2, 3):
            point = next(point for point in readings.latents if point.layer == layer)
            dense = readings.latents[point].dense()
            offsets = found[f"{layer}/offsets"]
            for row in range(len(dense)):
                mine = slice(int(offsets[start + row]), int(offsets[start + row + 1]))
                back = torch.zeros(dense.shape[1])
                back[found[f"{layer}/features"][mine].long()] = found[f"{layer}/values"][mine]
                assert torch.equal(back, dense[row])
        rows = slice(start, start + len(dense))
        texts = [ids[i] for i in found["row_text"][rows].tolist()]
        expected = [name for name, n in some["id", "n_tokens"].iter_rows() for _ in range(n + 1)]
        assert texts == expected
        positions = [p for n in some["n_tokens"] for p in range(-1, n)]
        assert found["row_position"][rows].tolist() == positions
        start = rows.stop
    assert start == len(found["row_text"])


def test_clusters_are_the_same_as_arrays_and_as_json(exported, run):
    told = loaded(exported, "tracking/semantic_clusters.json")
    with np.load(exported / "tracking/semantic_clusters.npz", allow_pickle=False) as arrays:
        members = list(
            zip(*(arrays[n].tolist() for n in ("clusters", "layers", "features")), strict=True)
        )
        assert (arrays["cosines"] >= told["min_cosine"]).all()
        sources, targets = arrays["sources"], arrays["targets"]
        assert (arrays["layers"][sources] < arrays["layers"][targets]).all()
        assert (arrays["clusters"][sources] == arrays["clusters"][targets]).all()
    in_json = [(c["id"], *member) for c in told["clusters"] for member in c["members"]]
    assert in_json == members
    assert told["n_clusters"] == len(told["clusters"]) > 0
    assert told["cosine_of_random_pairs_99"] < told["min_cosine"]
    assert all(len(c["tokens"]) == 5 and len(c["members"]) >= 2 for c in told["clusters"])
    # Latents that are active are among them, and counted as often as they are points.
    points = sum(c["n_points"] for c in told["clusters"])
    texts = loaded(exported, "tracking/hypothesis_trajectories.json")
    clustered = {(layer, latent) for _, layer, latent in members}
    said = [(p[0], p[1]) for text in texts for t in text["tracks"] for p in t["points"]]
    assert points == sum(one in clustered for one in said) > 0


def near(rows, n_targets):
    """Neighbours as (index, cosine) of each source, nearest first."""
    return Neighbours(
        np.array([[i for i, _ in row] for row in rows], np.int32),
        np.array([[c for _, c in row] for row in rows], np.float32),
        n_targets,
    )


def test_a_family_is_what_is_nearest_both_ways_and_near_enough():
    # Layer 0: latents 0, 1; layer 1: 0, 1, 2; layer 2: 0, 1.
    first = near([[(1, 0.9), (0, 0.1)], [(1, 0.8), (2, 0.2)]], 3)  # 1 prefers 0
    second = near([[(0, 0.3), (1, 0.2)], [(1, 0.7), (0, 0.1)], [(1, 0.6), (0, 0.1)]], 2)
    leap = near([[(1, 0.4), (0, 0.1)], [(0, 0.95), (1, 0.1)]], 2)
    found = feature_families([[first, second], [leap]], [2, 3, 2], min_cosine=0.5)
    members = list(
        zip(found.families.tolist(), found.layers.tolist(), found.latents.tolist(), strict=True)
    )
    assert members == [(0, 0, 0), (0, 1, 1), (0, 2, 1), (1, 0, 1), (1, 2, 0)]
    assert len(found) == 2
    edges = sorted(zip(found.sources.tolist(), found.targets.tolist(), strict=True))
    assert edges == [(0, 1), (1, 2), (3, 4)]
    assert len(feature_families([[first, second], [leap]], [2, 3, 2], min_cosine=0.99)) == 0
    with pytest.raises(ConfigError, match="neighbours less one"):
        feature_families([[first]], [2, 3, 2])


def test_scores_are_of_every_text_and_agree_with_the_table(exported, run):
    texts = loaded(exported, "detection/hallucination_scores.json")
    with (exported / "detection/classifications.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "group", "dataset", "label", "score", "pred", "fold", "split"]
    assert [row["id"] for row in rows] == [text["id"] for text in texts]
    for row, text in zip(rows, texts, strict=True):
        assert float(row["score"]) == pytest.approx(text["probability"], abs=1e-12)
        assert (row["pred"] == "1") == text["predicted"] == (text["probability"] >= 0.5)
        assert text["interval"]["low"] <= text["probability"] <= text["interval"]["high"]
        assert text["interval"]["n_repeats"] == 2
        assert 0 <= text["calibrated"] <= 1
        assert set(text["scores"]) == set(KEPT)
        assert text["scores"]["baseline + tracking"] == text["probability"]
    groups = {}
    for row in rows:
        groups.setdefault(row["group"], set()).add(row["fold"])
    assert all(len(folds) == 1 for folds in groups.values())


def test_detection_metrics_have_intervals_and_every_fold(exported, run):
    found = loaded(exported, "detection/detection_metrics.json")
    combined = found["methods"]["baseline + tracking"]
    for name in ("accuracy", "auroc", "precision", "recall", "f1"):
        assert found[name] == combined[name]["value"]
    assert combined["auroc"]["low"] <= found["auroc"] <= combined["auroc"]["high"]
    assert [(f["repeat"], f["fold"]) for f in found["per_fold"]] == [
        (0, 0), (0, 1), (1, 0), (1, 1),
    ]  # fmt: skip
    for repeat in (0, 1):
        mine = [f for f in found["per_fold"] if f["repeat"] == repeat]
        assert sum(f["n"] for f in mine) == len(answers(run))
    assert 0 <= found["noise"]["auroc"][1] <= 0.5 <= found["noise"]["auroc"][2]


def test_the_final_report_says_what_was_found_and_which_targets_were_met(exported, run):
    found = loaded(exported, "evaluation/final_report.json")
    assert (found["run"], found["model"], found["n_layers"]) == ("small", "organism", 6)
    assert found["n_answers"] == len(answers(run))
    assert "AUROC" in found["headline"]["sentence"]
    gates = {one["what"]: one for one in found["quality_assessment"]}
    assert gates["auroc"]["passed"] == (found["detection"]["auroc"]["value"] > 0.9)
    recall = found["detection"]["recall"]["value"]
    assert found["class_accuracy"]["hallucinated"]["value"] == pytest.approx(recall)
    for name in ("confusion_matrix", "roc_curve"):
        picture = (exported / f"evaluation/{name}.png").read_bytes()
        assert picture[:8] == b"\x89PNG\r\n\x1a\n"


def test_checkpoints_are_saes_that_a_study_takes(exported, run):
    folder = exported / "models/checkpoints/organism"
    choices = find_saes(str(folder), None, run.config.model)
    assert [one.hook_point for one in choices] == ["2.resid_post", "3.resid_post"]
    saes = load_saes(choices)
    x = torch.randn(200, 128, generator=torch.Generator().manual_seed(0)) * 3
    for own in run.config.saes:
        expected = load_sae(own.folder).encode(x)
        torch.testing.assert_close(saes[own.hook_point].encode(x), expected, atol=1e-3, rtol=1e-3)
    about = read_metadata(folder / "sae_layer_2_best.safetensors")
    assert about["architecture"] == "batch_topk"
    assert about["provenance"]["model"]["weights_sha256"]


def test_the_same_run_gives_the_same_bytes(exported, run, tmp_path):
    export_run(run, tmp_path)
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (exported / name).read_bytes(), name


def test_a_run_that_is_partly_done_gives_what_there_is_and_says_the_rest(run, tmp_path):
    folder = tmp_path / "partly"
    shutil.copytree(run.folder, folder)
    for step in ("detect", "evaluate"):
        (folder / step / "done.json").unlink()
    found = CliRunner().invoke(
        app, ["hallucination", "export", str(folder), "--out", str(tmp_path / "out")]
    )
    assert found.exit_code == 0, found.output
    written = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    assert written == {name for name in NAMES if name.startswith(("tracking", "models"))}
    missing = missing_files(Run.open(folder))
    assert set(missing) == NAMES - written
    assert "detection/classifications.csv, as the step detect is not done" in found.stderr
    assert missing["evaluation/roc_curve.png"] == "the step evaluate is not done"


def test_results_are_found_by_whatever_they_are_called(exported, run, tmp_path, monkeypatch):
    monkeypatch.setenv("FLUOROSCOPE_RUNS", str(run.folder.parent))
    for name in ("small", str(run.folder), str(exported), "./results/small", "./results/small/"):
        assert run_of_results(name).resolve() == run.folder.resolve()
    with pytest.raises(RunError, match=r"results/smal is neither a run.*Did you mean 'small'"):
        run_of_results("./results/smal")


def some_scores(seed=0, n_groups=30):
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), 3)
    labels = random.random(len(groups)) < 0.4
    folds = np.stack([groups % 3, (groups // 2) % 3])
    scores = np.clip(0.3 * labels + random.random((2, len(groups))) * 0.7, 0, 1)
    return scored(scores, labels, groups, folds)


def test_figures_of_a_fold_are_those_of_its_rows_alone():
    rows = some_scores()
    found = per_fold(rows, seed=0)
    one = next(f for f in found if (f["repeat"], f["fold"]) == (1, 2))
    here = rows.folds[1] == 2
    alone = scored(rows.scores[1][here], rows.labels[here], rows.groups[here])
    assert one["auroc"] == auroc(alone, 0).value
    assert one["n"] == here.sum()
    one_kind = scored(rows.scores, rows.labels & (rows.folds[0] == 0), rows.groups, rows.folds)
    assert per_fold(one_kind, seed=0)[1]["auroc"] is None


def test_a_calibrated_score_has_not_seen_the_labels_of_its_own_fold():
    rows = some_scores()
    here = rows.folds[0] == 1
    once = scored(rows.scores[:1], rows.labels, rows.groups, rows.folds[:1])
    turned = scored(rows.scores[:1], rows.labels ^ here, rows.groups, rows.folds[:1])
    np.testing.assert_array_equal(
        out_of_fold_calibrated(once)[here], out_of_fold_calibrated(turned)[here]
    )
    assert not np.array_equal(
        out_of_fold_calibrated(once)[~here], out_of_fold_calibrated(turned)[~here]
    )
    unlearnable = scored(rows.scores[:1], rows.labels & here, rows.groups, rows.folds[:1])
    assert out_of_fold_calibrated(unlearnable) is None


def test_class_accuracy_counts_each_kind_by_itself():
    scores = np.array([[0.9, 0.1, 0.8, 0.2], [0.9, 0.9, 0.8, 0.2]])
    rows = scored(scores, np.array([1, 1, 0, 0]), np.arange(4))
    found = class_accuracy(rows, seed=0)
    assert found["hallucinated"]["value"] == pytest.approx(0.75)
    assert found["factual"]["value"] == pytest.approx(0.5)
    assert math.isnan(found["factual"]["low"])


def test_one_repeat_has_no_interval_over_repeats():
    rows = some_scores()
    once = scored(rows.scores[:1], rows.labels, rows.groups, rows.folds[:1])
    texts = pl.DataFrame({"id": [str(i) for i in range(len(rows.labels))]})
    found = scores_json(texts, {all_methods.COMBINED: once})
    assert found[0]["interval"] == {"low": None, "high": None, "n_repeats": 1}


def test_a_history_has_the_plans_names_and_units():
    curves = {
        "step": [10, 20], "loss": [0.5, 0.4], "fvu": [0.3, 0.2], "l0": [64.0, 32.0],
        "dead_fraction": [0.0, 0.1],
    }  # fmt: skip
    found = history_json(curves, {"best_step": 20}, 128)
    assert found["sparsity"] == [0.5, 0.25]
    assert (found["val_loss"], found["recon_loss"]) == ([0.5, 0.4], [0.3, 0.2])
    assert found["best_step"] == 20


def test_what_is_not_defined_is_null(tmp_path):
    value = {"a": [math.nan, 1.0, {"b": math.inf}], "c": "nan"}
    assert plain(value) == {"a": [None, 1.0, {"b": None}], "c": "nan"}
    path = write_lines(tmp_path / "x.json", iter([]))
    assert json.loads(path.read_text()) == []
