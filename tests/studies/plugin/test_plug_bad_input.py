"""What cannot be is refused with what was expected, what came and what to do, before a step of
training is done; a disk that fills up while training costs nothing but the time.
"""

import errno
import os
import re
import shutil
from pathlib import Path

import httpx2
import huggingface_hub
import polars as pl
import pytest
from huggingface_hub.errors import GatedRepoError
from safetensors.torch import load_file, save_file
from small_plug_study import run_small, small, small_settings, step_bytes, write_table

from fluoroscope.core.errors import (
    ConfigError,
    CorpusError,
    DamagedError,
    DoesNotFitError,
    FluoroscopeError,
    ModelError,
    NumericsError,
    UserError,
)
from fluoroscope.models import hub
from fluoroscope.runs.events import read_metrics
from fluoroscope.studies.plugin.spec import PluginSpec
from fluoroscope.studies.plugin.steps.training_loop import TrainLoop
from fluoroscope.studies.plugin.study import PluginStudy
from fluoroscope.studies.settings import study_spec

pytestmark = pytest.mark.usefixtures("no_pictures")

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def material(small_material: Path) -> Path:
    """With tables and models that are of no use."""
    write_table(small_material / "one.csv", 40, ("good",))
    write_table(small_material / "few.csv", 4)
    for name in ("cut", "broken", "nothing"):
        shutil.copytree(small_material / "llm", small_material / name)
    cut = small_material / "cut" / WEIGHTS
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    for name in ("broken", "nothing"):
        tensors = load_file(small_material / name / WEIGHTS)
        for key, tensor in tensors.items():
            if name == "nothing":
                tensor.zero_()
            elif key.startswith("model.layers.1.mlp"):
                tensor[0, 0] = float("nan")
        save_file(tensors, small_material / name / WEIGHTS, metadata={"format": "pt"})
    return small_material


def part(material, key, **changes):
    return {key: {**small_settings(material)[key], **changes}}


AT_ONCE = [
    ({"mode": "pifi", "layer": 3}, ModelError, r"3 layers, so a layer is -3 to 2 .*; got 3"),
    ({"mode": "pifi", "layer": -4}, ModelError, r"-3 to 2 .*; got -4"),
    ({"datasets": ""}, ConfigError, "there must be one"),
    ({"datasets": "sst2 cola sst2"}, ConfigError, "named once each"),
    ({"datasets": "sst3"}, ConfigError, "Did you mean 'sst2'"),
    ({"datasets": "file:"}, CorpusError, "needs the path"),
    ({"test_on": "colla"}, ConfigError, "Did you mean 'cola'"),
    ({"seeds": 0}, ConfigError, "greater than 0"),
    ({"n_train": 0}, ConfigError, "greater than 0"),
    ({"epochs": 0}, ConfigError, "greater than 0"),
    ({"model": "/nowhere/bert"}, ModelError, "no model folder /nowhere/bert"),
    ({"llm": "/nowhere/llama"}, ModelError, "no model folder /nowhere/llama"),
    ({"selection": "logmee"}, ConfigError, "Did you mean 'logme'"),
    ({"selection": {"keep": [3, 4]}}, ConfigError, "the second no larger"),
    ({"selection": {"keep": [9, 7]}}, ConfigError, r"leaves more layers than the 3 of .*at most 3"),
    ({"selection": {"shares": [0.5, 0.1]}}, ConfigError, "the second no smaller"),
    ({"selection": {"ilm": {"top_pc": 20}}}, ConfigError, "cannot be chosen from n_pcs=16"),
]


@pytest.mark.parametrize(("changes", "kind", "said"), AT_ONCE)
def test_settings_that_no_data_would_mend_are_refused_at_once(material, changes, kind, said):
    with pytest.raises(kind, match=said) as refused:
        PluginStudy().resolve(small(material, **changes))
    assert isinstance(refused.value, UserError)


@pytest.mark.parametrize("pooling", ["mean", "average_pooling_with_padding"])
def test_a_mean_over_padding_is_refused_where_padding_is_by_chance(material, pooling):
    model = {"source": str(material / "encoder"), "pooling": pooling}
    for padding in ("buckets", "longest"):
        training = part(material, "training", padding=padding)
        with pytest.raises(ConfigError, match=r"beside. Take model\.pooling=masked_mean, or train"):
            PluginStudy().resolve(small(material, model=model, **training))
    training = part(material, "training", padding="max_length")
    assert PluginStudy().resolve(small(material, model=model, **training)).max_length == 24


def test_the_first_token_of_a_decoder_is_refused_with_what_to_take(material):
    with pytest.raises(ConfigError, match=r"a decoder, .*Take model\.pooling=last"):
        PluginStudy().resolve(small(material, model=str(material / "llm")))


def test_an_encoder_has_no_layer_to_lend_and_a_decoder_may_be_both(material):
    with pytest.raises(ModelError, match=r"'bert', whose layers cannot be taken out\. There are: "):
        PluginStudy().resolve(small(material, llm=str(material / "encoder")))
    both = {"model": {"source": str(material / "llm"), "pooling": "last"}}
    config = PluginStudy().resolve(small(material, **both))
    assert (config.encoder_kind, config.d_model, config.d_layer) == ("decoder", 16, 16)


@pytest.mark.parametrize(
    ("key", "typed", "meant"), [("model", "robertaa", "roberta"), ("llm", "lama3", "llama3")]
)
def test_a_mistyped_model_names_the_nearest_key(material, monkeypatch, key, typed, meant):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=f"{typed} .*Did you mean '{meant}'"):
        PluginStudy().resolve(small(material, **{key: typed}))


def test_a_gated_model_without_a_token_says_where_to_ask(material, monkeypatch):
    class Hub:
        def model_info(self, name: str, **_: object) -> None:
            request = httpx2.Request("GET", f"https://huggingface.co/{name}")
            raise GatedRepoError("gated", response=httpx2.Response(403, request=request))

    monkeypatch.setattr(hub, "HfApi", Hub)
    with pytest.raises(ModelError, match=r"Meta-Llama-3.1-8B is gated: ask for access at https://"):
        # Its shape is known without the hub; the run asks what it will read before it begins.
        run_small(material, material, "gated", llm="llama3.1")
    assert not (material / "gated").exists()


@pytest.mark.parametrize("name", ["models", "checkpoints", "results", "cache", "preprocessed"])
def test_a_file_where_results_are_to_go_is_refused_before_there_are_any(material, name):
    place = material / "texts.csv" / "below"
    with pytest.raises(ConfigError, match=rf"outputs\.{name}=.*texts\.csv is a file"):
        PluginStudy().resolve(small(material, outputs={name: str(place)}))


def test_a_missing_table_is_refused_before_there_is_a_run(material, tmp_path):
    with pytest.raises(CorpusError, match=r"There is no /nowhere/mine\.csv"):
        run_small(material, tmp_path, datasets=["file:/nowhere/mine.csv"])
    assert not (tmp_path / "small").exists()


def refused(material, root, kind, said, **changes):
    """The error, with no step of any training done."""
    with pytest.raises(kind, match=said) as error:
        run_small(material, root, **changes)
    assert isinstance(error.value, FluoroscopeError)
    assert not list(read_metrics(root / "small", "train"))
    assert not list((root / "small").glob("train/shards/*/state.json"))


@pytest.mark.parametrize(
    ("table", "changes", "said"),
    [
        ("one", {}, r"All \d+ examples on the train side of .*'good'. .*needs two classes"),
        ("few", {}, "nothing on its validation side"),
        ("texts", {"n_train": 1}, r"n_train=1\) are '(bad|good)'.*two classes on every side"),
        ("texts", {"n_train": 4, "mode": "pifi_ilm"}, "chosen by 10 texts or more"),
    ],
)
def test_too_few_examples_or_classes_are_refused(material, tmp_path, table, changes, said):
    datasets = [f"file:{material / table}.csv"]
    changes = {"mode": "base", "datasets": datasets, **changes}
    refused(material, tmp_path, CorpusError, said, **changes)


def test_an_epoch_without_a_batch_is_refused_before_layers_are_scored(material, tmp_path):
    training = part(material, "training", batch_size=500, drop_last=True)
    refused(material, tmp_path, CorpusError, "make none of 500 with drop_last", **training)
    assert not (tmp_path / "small" / "read").exists()


def test_a_shard_that_was_cut_off_is_named(material, tmp_path):
    lent = {"llm": str(material / "cut"), "layer": 2}
    refused(material, tmp_path / "lent", DamagedError, "ends before byte", mode="pifi", **lent)
    refused(material, tmp_path / "read", ModelError, r"weights in .*cut cannot be read", **lent)


def test_a_layer_with_what_is_no_number_is_named_and_not_the_learning_rate(material, tmp_path):
    lent = {"llm": str(material / "broken"), "layer": 1}
    said = r"Layer 1 of broken is not finite in float32: mlp\.\w+\.weight"
    refused(material, tmp_path / "lent", NumericsError, said, mode="pifi", **lent)
    refused(material, tmp_path / "read", NumericsError, "layer 1 are not finite", **lent)


def test_a_model_whose_states_say_nothing_chooses_nothing(material, tmp_path):
    llm = str(material / "nothing")
    refused(material, tmp_path, NumericsError, "All states are the same", llm=llm)


def test_a_full_disk_while_training_is_named_and_only_what_was_undone_is_done_again(
    material, tmp_path, monkeypatch
):
    changes = {"mode": "base", "seeds": 2}
    whole = run_small(material, tmp_path / "whole", **changes)
    finish = TrainLoop.finish

    def full(self: TrainLoop, folder: Path, sink: object) -> None:
        if self.training.seed == 2024:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finish(self, folder, sink)

    with monkeypatch.context() as patched:
        patched.setattr(TrainLoop, "finish", full)
        with pytest.raises(DoesNotFitError, match=r"disk is full: shard .*\.base\.2024 of step tr"):
            run_small(material, tmp_path, **changes)
    (first,) = (tmp_path / "small" / "train" / "shards").glob("*/state.json")
    written = first.stat().st_mtime_ns
    run = run_small(material, tmp_path, **changes)
    assert first.stat().st_mtime_ns == written
    assert step_bytes(run) == step_bytes(whole)


def test_every_preset_of_the_study_is_one_that_can_be(material, monkeypatch):
    """With models that are here, and each pooling of the plan."""
    place = re.escape(str(material))
    for preset in ("tiny", "sound", "paper"):
        words = [f"model.source={material / 'encoder'}", f"llm={material / 'llm'}"]
        spec = study_spec("plugin", preset, None, [*words, "model.pooling=masked_mean"])
        assert isinstance(spec, PluginSpec)
        assert re.match(place, PluginStudy().resolve(spec).llm.source)


def test_names_of_files_that_no_folder_may_have_are_no_hindrance(material, tmp_path):
    odd = tmp_path / "my (1) tëxts.csv"
    pl.read_csv(material / "texts.csv").write_csv(odd)
    name = f"file:{'/.' * 150}{odd}"
    run = run_small(material, tmp_path, mode="base", epochs=1, datasets=[name])
    (shard,) = (run.folder / "train" / "shards").iterdir()
    assert len(shard.name) < 100
