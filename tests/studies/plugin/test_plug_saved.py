"""A classifier that was saved says what it said in its run, and only beside what it learnt with."""

import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from small_plug_study import run_small, small_settings, write_model

from fluoroscope.core.errors import DamagedError, FluoroscopeError, MismatchError
from fluoroscope.core.tensors import read_metadata, read_tensors, write_tensors
from fluoroscope.runs.run import Run
from fluoroscope.studies.plugin.saved import SavedClassifier
from fluoroscope.studies.plugin.steps.texts import load_texts

pytestmark = pytest.mark.usefixtures("no_pictures")


def trained(run: Run) -> Path:
    (file,) = run.step_folder("train").rglob("trained.safetensors")
    return file


@pytest.fixture(scope="module")
def lent(small_material: Path, tmp_path_factory) -> Path:
    """A file of a classifier with a layer; what it was made of is a copy of its own."""
    own = tmp_path_factory.mktemp("lent")
    for name in ("encoder", "llm"):
        shutil.copytree(small_material / name, own / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fluoroscope.runs.report.save_chart", lambda *_: None)
        changes = {"model": str(own / "encoder"), "llm": str(own / "llm"), "mode": "pifi"}
        return trained(run_small(small_material, own, **changes, layer=1, beside=[], epochs=1))


@pytest.mark.parametrize("mode", ["base", "pifi"])
def test_a_mean_over_padding_is_over_as_much_padding_as_in_the_run(
    small_material,
    tmp_path,
    mode,
):
    training = {**small_settings(small_material)["training"], "padding": "max_length"}
    changes = {
        "mode": mode,
        "beside": [],
        "epochs": 1,
        "model": {"source": str(small_material / "encoder"), "pooling": "mean"},
    }
    run = run_small(small_material, tmp_path, **changes, training=training)
    rows = pl.read_parquet(trained(run).parent / "predictions.parquet").filter(side="test")
    expected = dict(zip(rows["id"], rows["log_probs"], strict=True))
    test = load_texts(run.step_folder("texts"), run.config.datasets[0]).side("test")
    saved = SavedClassifier.load(trained(run), cache=small_material / "layers")
    said = saved.predict([one.text for one in test], batch_size=5)
    for one, row in zip(test, said.drop("predicted").rows(), strict=True):
        assert list(row) == pytest.approx(torch.tensor(expected[one.id]).exp().tolist(), abs=1e-5)


def test_one_text_or_none_can_be_asked_for(lent):
    saved = SavedClassifier.load(lent)
    alone = saved.predict(["a warm one"])
    among = saved.predict(["a warm one", "dull " * 5, "so"])
    assert alone.columns == ["predicted", "bad", "good"]
    assert among.row(0)[1:] == pytest.approx(alone.row(0)[1:], abs=1e-5)
    with pytest.raises(FluoroscopeError):
        saved.predict([])


def test_another_layer_in_its_place_is_refused(lent):
    llm = Path(read_metadata(lent)["llm"])
    kept = llm.rename(llm.with_name("kept"))
    try:
        write_model(llm, "llama", seed=3)
        with pytest.raises(MismatchError, match=r"was trained with the layer of .*train again"):
            SavedClassifier.load(lent)
    finally:
        shutil.rmtree(llm)
        kept.rename(llm)
    assert SavedClassifier.load(lent).about.layer["layer"] == 1


def test_tensors_of_another_classifier_and_a_cut_file_are_refused(lent, tmp_path):
    tensors = read_tensors(lent)
    fewer = {name: one for name, one in tensors.items() if name != "plug.into.weight"}
    write_tensors(tmp_path / "fewer.safetensors", fewer, read_metadata(lent))
    with pytest.raises(MismatchError, match=r"plug\.into\.weight"):
        SavedClassifier.load(tmp_path / "fewer.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(lent.read_bytes()[:-100])
    with pytest.raises(DamagedError):
        SavedClassifier.load(cut)


def test_a_file_of_something_else_is_refused(tmp_path):
    other = tmp_path / "other.safetensors"
    write_tensors(other, {"weight": torch.zeros(2)}, {"model": "x"})
    with pytest.raises(FluoroscopeError, match="other"):
        SavedClassifier.load(other)
    with pytest.raises(FluoroscopeError, match="nowhere"):
        SavedClassifier.load(tmp_path / "nowhere.safetensors")
