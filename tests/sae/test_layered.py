"""SAEs as one file a layer: the plan's own formula, and ours without loss."""

import shutil
import sys

import numpy as np
import pytest
import torch

from fluoroscope.core.errors import ConfigError, DamagedError, MismatchError
from fluoroscope.core.tensors import read_metadata, read_tensors
from fluoroscope.models import hub
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.identity import ModelIdentity
from fluoroscope.sae.architectures import SAES
from fluoroscope.sae.formats.layered import (
    layer_in_name,
    layered_facts,
    load_layered,
    save_layered,
)
from fluoroscope.sae.formats.native import load_sae
from fluoroscope.steps.models import ModelConfig
from fluoroscope.steps.sae_sources import find_saes, load_choice

D_MODEL, D_SAE, THRESHOLD = 6, 16, 0.4


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plan_state(seed=0):
    """What the plan's state_dict holds: one threshold, linear layers, unit decoder columns."""
    decoder = normal(D_MODEL, D_SAE, seed=seed + 2)
    return {
        "threshold": torch.tensor(THRESHOLD),
        "W_enc.weight": normal(D_SAE, D_MODEL, seed=seed),
        "W_enc.bias": normal(D_SAE, seed=seed + 1) / 3,
        "W_dec.weight": decoder / decoder.norm(dim=0),
        "W_dec.bias": normal(D_MODEL, seed=seed + 3),
    }


def plan_formula(x, state):
    pre = x @ state["W_enc.weight"].T + state["W_enc.bias"]
    z = pre * (pre > THRESHOLD)
    return z, z @ state["W_dec.weight"].T + state["W_dec.bias"]


def write_checkpoint(folder, layer, said=None, **more):
    """As the plan's training loop saves it: history and optimiser beside the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    state = plan_state(seed=10 * layer)
    weight = torch.nn.Parameter(state["W_enc.weight"].clone())
    optimizer = torch.optim.Adam([weight], lr=1e-4)
    weight.sum().backward()
    optimizer.step()
    checkpoint = {
        "layer_idx": layer if said is None else said,
        "epoch": 19,
        "model_state_dict": state,
        "optimizer_state_dict": optimizer.state_dict(),
        "best_loss": 0.004,
        "history": {"train_loss": [0.1, np.float64(0.004)], "sparsity": [np.float32(0.3)]},
        "config": {"d_model": D_MODEL, "d_hidden": D_SAE},
        **more,
    }
    file = folder / f"sae_layer_{layer}_best.pt"
    torch.save(checkpoint, file)
    return file, state


def model_config(n_layers=4, d_model=D_MODEL):
    return ModelConfig(
        name="some/model",
        revision=None,
        dtype="float32",
        d_model=d_model,
        n_layers=n_layers,
        is_organism=False,
    )


def test_the_plans_own_checkpoint_is_its_formula(tmp_path):
    file, state = write_checkpoint(tmp_path, 2)
    sae, x = load_layered(file), normal(400, D_MODEL, seed=99)
    z, reconstruction = plan_formula(x, state)
    assert 0 < (z > 0).sum() < z.numel() / 2
    torch.testing.assert_close(sae.encode(x), z, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae(x), reconstruction, atol=1e-5, rtol=1e-5)
    assert sae.hook_point == HookPoint("2.resid_post")
    assert layered_facts(file) == (HookPoint("2.resid_post"), D_MODEL, D_SAE)


def test_a_state_dict_alone_is_read_too(tmp_path):
    file, state = write_checkpoint(tmp_path, 1)
    expected = load_layered(file)
    torch.save(state, file)
    x = normal(50, D_MODEL, seed=5)
    # The first SAE is its own by now, whatever becomes of the file.
    assert torch.equal(load_layered(file).encode(x), expected.encode(x))


class Sneaky:
    def __reduce__(self):
        return print, ("run",)


def test_a_pickle_that_could_run_something_is_refused(tmp_path, capsys):
    file, _ = write_checkpoint(tmp_path, 0, config=Sneaky())
    with pytest.raises(DamagedError, match=r"Nothing else is loaded from a pickle"):
        load_layered(file)
    assert capsys.readouterr().out == ""
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(DamagedError, match="sae_layer_0_best"):
        layered_facts(file)


def test_the_layer_in_a_name_must_be_that_of_the_checkpoint(tmp_path):
    file, _ = write_checkpoint(tmp_path, 3, said=1)
    with pytest.raises(MismatchError, match="layer 3 by its name, and of 1"):
        layered_facts(file)
    assert [layer_in_name(name) for name in ("sae_layer_12_best.pt", "sae_layer_1_final.pt")] == [
        12,
        None,
    ]


@pytest.mark.parametrize("said", ["zero", [0], float("inf"), torch.zeros(2)])
def test_a_layer_that_is_no_number_is_said_to_be_none(tmp_path, said):
    file, _ = write_checkpoint(tmp_path, 0, said=said)
    with pytest.raises(DamagedError, match=r"'layer_idx' which block .* a number from 0 on; got"):
        layered_facts(file)


@pytest.mark.parametrize("architecture", ["jumprelu", "batch_topk", "relu"])
def test_our_saes_are_the_same_function_after_they_were_written_so(tmp_path, architecture):
    kind = SAES.load(architecture)
    sae = kind(kind.config_type(d_model=D_MODEL, d_sae=D_SAE, **target(architecture)), seed=3)
    with torch.no_grad():
        sae.b_enc.copy_(normal(D_SAE, seed=1) / 5)
        sae.b_dec.copy_(normal(D_MODEL, seed=2))
        if architecture != "relu":
            sae.threshold.copy_(normal(D_SAE, seed=4).abs() / 3)
    point = HookPoint("5.mlp_out")
    file = save_layered(sae, tmp_path, point, {"note": "kept"})
    assert file.name == "sae_layer_5_best.safetensors"
    read, x = load_layered(file), normal(300, D_MODEL, seed=6) * 2
    torch.testing.assert_close(read.encode(x), sae.eval().encode(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(read(x), sae(x), atol=1e-5, rtol=1e-5)
    assert read.hook_point == point
    about = read_metadata(file)
    assert about["architecture"] == architecture
    assert about["config"] == sae.config.model_dump(mode="json")
    assert about["provenance"] == {"note": "kept"}
    # The plan's own reader takes these names and shapes, and applies its formula.
    state = read_tensors(file)
    pre = x @ state["W_enc.weight"].T + state["W_enc.bias"]
    latents = pre * (pre > state["threshold"])
    torch.testing.assert_close(latents, sae.encode(x), atol=1e-5, rtol=1e-5)


def target(architecture):
    return {"jumprelu": {"target_l0": 4}, "batch_topk": {"k": 4}, "relu": {}}[architecture]


def test_latents_that_compete_have_no_such_form(tmp_path):
    kind = SAES.load("topk")
    sae = kind(kind.config_type(d_model=D_MODEL, d_sae=D_SAE, k=4))
    with pytest.raises(ConfigError, match="architecture topk cannot be written"):
        save_layered(sae, tmp_path, HookPoint("0.resid_post"))


def test_a_folder_of_checkpoints_is_a_source_of_saes(tmp_path):
    for layer in (0, 1, 10):
        write_checkpoint(tmp_path, layer)
    (tmp_path / "sae_layer_0_final.pt").write_bytes(b"not read")
    choices = find_saes(str(tmp_path), None, model_config(12))
    assert [one.hook_point for one in choices] == [
        "0.resid_post",
        "1.resid_post",
        "10.resid_post",
    ]
    assert {(one.format, one.d_sae, one.d_model) for one in choices} == {
        ("layered", D_SAE, D_MODEL)
    }
    x = normal(20, D_MODEL, seed=7)
    z, _ = plan_formula(x, plan_state(seed=10))
    torch.testing.assert_close(load_choice(choices[1]).encode(x), z, atol=1e-5, rtol=1e-5)
    (chosen,) = find_saes(str(tmp_path), "10.resid_post", model_config(12))
    assert chosen.file == "sae_layer_10_best.pt"
    with pytest.raises(MismatchError, match="made for another"):
        find_saes(str(tmp_path), None, model_config(4))
    with pytest.raises(MismatchError, match=r"width 6; some/model has .* width 7"):
        find_saes(str(tmp_path), None, model_config(12, 7))
    write_checkpoint(tmp_path, 11)
    shutil.copy(tmp_path / "sae_layer_11_best.pt", tmp_path / "sae_layer_10_best.pt")
    with pytest.raises(MismatchError, match="SHA-256"):
        load_choice(choices[2])


def test_of_a_checkpoint_and_its_conversion_the_conversion_is_read(tmp_path):
    file, _ = write_checkpoint(tmp_path, 2)
    save_layered(load_layered(file), tmp_path, HookPoint("2.resid_post"))
    (choice,) = find_saes(str(tmp_path), None, model_config())
    assert choice.file == "sae_layer_2_best.safetensors"
    x = normal(20, D_MODEL, seed=7)
    torch.testing.assert_close(load_choice(choice).encode(x), load_layered(file).encode(x))


def test_what_was_exported_into_a_run_stands_back_behind_its_own(tmp_path):
    shipped = hub.SHIPPED["organism"] / "saes" / "batch_topk" / "3.resid_post"
    shutil.copytree(shipped, tmp_path / "saes" / "best")
    sae = load_sae(shipped)
    save_layered(sae, tmp_path / "models" / "checkpoints" / "organism", HookPoint("3.resid_post"))
    (choice,) = find_saes(str(tmp_path), None, model_config(6, sae.d_model))
    assert choice.format == "native"


def test_an_sae_of_ours_is_refused_for_another_model(tmp_path):
    shipped = hub.SHIPPED["organism"] / "saes" / "batch_topk" / "3.resid_post"
    sae = load_sae(shipped)
    own = ModelIdentity("organism", None, "0" * 64, "1" * 64)
    save_layered(sae, tmp_path, HookPoint("3.resid_post"), {"model": own.to_json()})
    (choice,) = find_saes(str(tmp_path), None, model_config(6, sae.d_model))
    load_choice(choice, model=own)
    other = ModelIdentity("other", None, "2" * 64, "1" * 64)
    with pytest.raises(MismatchError, match=r"belongs to model 'organism'.*'other'"):
        load_choice(choice, model=other)


def test_what_lacks_a_part_says_which(tmp_path):
    file, state = write_checkpoint(tmp_path, 0)
    for name, said in (
        ("threshold", "one number or 16"),
        ("W_dec.weight", r"no tensor W_dec\.weight"),
        ("W_enc.weight", r"no matrix W_enc\.weight"),
    ):
        torch.save({k: v for k, v in state.items() if k != name}, file)
        with pytest.raises(DamagedError, match=said):
            load_layered(file)


def test_names_alone_need_no_torch():
    import subprocess

    code = "import sys, fluoroscope.steps.sae_places; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
