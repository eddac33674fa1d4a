import os
from pathlib import Path

import pytest
from small_layers import VARIANTS, saved

from fluoroscope.core.errors import ModelError
from fluoroscope.models.single_layer.facts import check_layer, layer_facts
from fluoroscope.models.single_layer.known import LLMS, llm_source
from fluoroscope.models.single_layer.loading import load_layer


# Weights of a layer and of its one-token form: attention d * (2 heads + 2 kv heads) * head_dim,
# less queries and keys; three matrices of d * ffn, two of Falcon's; norms and biases.
@pytest.mark.parametrize(
    ("key", "d_model", "n_layers", "n_params", "n_live"),
    [
        ("llama3.1", 4096, 32, 218_112_000, 197_140_480),
        ("llama3", 4096, 32, 218_112_000, 197_140_480),
        ("llama2", 4096, 32, 202_383_360, 168_828_928),
        ("qwen2_0.5b", 896, 24, 14_912_384, 13_993_856),
        ("qwen2_1.5b", 1536, 28, 46_797_824, 44_043_520),
        ("qwen2_7b", 3584, 28, 233_057_792, 218_373_632),
        ("mistral0.3", 4096, 32, 218_112_000, 197_140_480),
        ("gemma2", 3584, 42, 198_195_200, 176_175_104),
        ("falcon", 4544, 32, 207_070_080, 186_131_328),
    ],
)
def test_well_known_models_need_no_network(key, d_model, n_layers, n_params, n_live):
    facts = layer_facts(key)
    assert (facts.d_model, facts.n_layers) == (d_model, n_layers)
    assert (facts.n_params, facts.n_live) == (n_params, n_live)


@pytest.mark.parametrize("variant", VARIANTS)
def test_counts_are_those_of_the_tensors(variant, tmp_path):
    family, changes = VARIANTS[variant]
    network = saved(tmp_path, family, **changes)
    facts = layer_facts(str(tmp_path))
    for form, expected in (("sequence", facts.n_params), ("token", facts.n_live)):
        tensors = load_layer(str(tmp_path), 0, form=form).tensors
        assert sum(tensor.numel() for tensor in tensors.values()) == expected
    assert (facts.family, facts.n_layers, facts.context) == (family, 3, 64)
    assert facts.d_model == network.config.hidden_size


def test_an_index_counts_from_either_end():
    assert [check_layer(layer, 3, "it") for layer in (0, 2, -1, -3)] == [0, 2, 2, 0]
    for layer in (3, -4):
        with pytest.raises(ModelError, match=rf"it has 3 layers, so a layer is -3 to 2.*{layer}"):
            check_layer(layer, 3, "it")


def test_keys_are_repositories_and_other_names_are_themselves():
    assert llm_source("llama3.1") == "meta-llama/Meta-Llama-3.1-8B"
    assert llm_source("falcon") == LLMS["falcon"] == "tiiuae/falcon-7b"
    for name in ("organism", "./folder", "someone/a-model"):
        assert llm_source(name) == name


def test_stories260k_is_looked_for_beside_the_data(tmp_path, monkeypatch):
    folder = tmp_path / "weights" / "stories260K"
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("FLUOROSCOPE_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path / "data")
    with pytest.raises(ModelError, match=r"stories260k is not here.* Set FLUOROSCOPE_DATA"):
        llm_source("stories260k")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert Path(llm_source("stories260k")) == folder
    monkeypatch.delenv("FLUOROSCOPE_DATA")
    (tmp_path / "shared").mkdir()
    os.renames(tmp_path / "weights", tmp_path / "shared" / "weights")
    assert Path(llm_source("stories260k")) == tmp_path / "shared" / "weights" / "stories260K"
