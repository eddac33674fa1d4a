"""SAELens folders are found and chosen as other SAEs are, here and on the hub."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from fluoroscope.core.errors import ConfigError, DamagedError, MismatchError, ModelError
from fluoroscope.core.storage import sha256_file
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.formats.native import save_sae
from fluoroscope.sae.formats.saelens import load_saelens
from fluoroscope.sae.relu import ReLU, ReLUConfig
from fluoroscope.steps.known_releases import find_or_sketch_saes, sketched_saes
from fluoroscope.steps.models import ModelConfig
from fluoroscope.steps.sae_sources import find_saes, load_choice, load_saes

D, S = 6, 16
NAME = "someone/GPT2-Small-SAEs-Reformatted"


def model(n_layers=12, d_model=D):
    return ModelConfig(
        name="openai-community/gpt2",
        revision=None,
        dtype="float32",
        d_model=d_model,
        n_layers=n_layers,
        is_organism=False,
    )


def write(root, hook, folder=None, **said):
    place = root / (folder or hook)
    place.mkdir(parents=True)
    config = {"model_name": "gpt2-small", "hook_point": hook, "d_in": D, "d_sae": S, **said}
    (place / "cfg.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(len(hook))
    shapes = {"W_enc": (D, S), "W_dec": (S, D), "b_enc": (S,), "b_dec": (D,)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(tensors, place / "sae_weights.safetensors")
    save_file({"sparsity": torch.zeros(S)}, place / "sparsity.safetensors")
    return place


def hook(layer, stream="resid_pre"):
    return f"blocks.{layer}.hook_{stream}"


def test_a_layer_of_a_repository_costs_two_files_and_only_when_it_is_loaded(fake_hub):
    for layer in (0, 8, 11):
        write(fake_hub.root / NAME, hook(layer))
    write(fake_hub.root / NAME, hook(11, "resid_post"))
    (choice,) = find_saes(NAME, "8.resid_pre", model())
    assert fake_hub.fetched == [f"{hook(8)}/cfg.json"]
    assert fake_hub.looked_up == [f"{hook(8)}/sae_weights.safetensors"]
    assert (choice.format, choice.hook_point, choice.d_model, choice.d_sae) == (
        "saelens", "8.resid_pre", D, S,
    )  # fmt: skip
    place = fake_hub.root / NAME / hook(8)
    assert choice.weights_sha256 == sha256_file(place / "sae_weights.safetensors")
    assert choice.settings_sha256 == sha256_file(place / "cfg.json")
    fake_hub.fetched.clear()
    sae, x = load_choice(choice), torch.randn(50, D)
    assert fake_hub.fetched == [f"{hook(8)}/cfg.json", f"{hook(8)}/sae_weights.safetensors"]
    assert torch.equal(sae.encode(x), load_saelens(place).encode(x))
    assert sae.reads_centred
    everything = find_saes(f"{NAME}@main", None, model())
    assert [found.hook_point for found in everything] == [
        "0.resid_pre", "8.resid_pre", "11.resid_pre", "11.resid_post",
    ]  # fmt: skip
    (inside,) = find_saes(f"{NAME}/{hook(8)}", None, model())
    assert inside == choice


def test_a_folder_of_any_name_is_what_its_file_says(fake_hub, tmp_path):
    name = "someone/pythia__res-sm_processed"
    write(fake_hub.root / name, hook(3), "3-res-sm")
    (far,) = find_saes(f"hf:{name}", None, model())
    assert (far.repository, far.hook_point) == (name, "3.resid_pre")
    (near,) = find_saes(str(fake_hub.root / name), None, model())
    assert near.folder.endswith("3-res-sm")
    assert near.weights_sha256 == far.weights_sha256
    x = torch.randn(50, D)
    assert torch.equal(load_choice(near).encode(x), load_choice(far).encode(x))
    (alone,) = find_saes(near.folder, "3.resid_pre", model())
    assert alone == near
    write(tmp_path / "wrong", hook(3), hook(4))
    with pytest.raises(
        MismatchError, match=r"4\.resid_pre by its name, .* 3\.resid_pre by its cfg"
    ):
        find_saes(str(tmp_path / "wrong"), None, model())


def test_a_name_that_does_not_say_what_it_is_needs_hf(fake_hub):
    write(fake_hub.root / "some/model", hook(3))
    fake_hub.is_down = True
    with pytest.raises(ConfigError, match=r"There is no SAE in .*hf:OWNER/NAME"):
        find_saes("some/model", None, model())
    with pytest.raises(ModelError, match="repository some/model cannot be had"):
        find_saes("hf:some/model", None, model())
    fake_hub.is_down = False
    assert len(find_saes("hf:some/model", None, model())) == 1


def test_places_that_are_no_stream_are_named_and_in_nobodys_way(tmp_path):
    write(tmp_path, hook(3))
    write(tmp_path, "blocks.3.attn.hook_z", "z-3")
    (choice,) = find_saes(str(tmp_path), "3.resid_pre", model())
    assert choice.hook_point == "3.resid_pre"
    with pytest.raises(ConfigError, match=r"those of 3\.resid_pre, blocks\.3\.attn\.hook_z"):
        find_saes(str(tmp_path), "3.attn_out", model())
    with pytest.raises(ConfigError, match=r"'blocks\.3\.attn\.hook_z', which is no stream"):
        find_saes(str(tmp_path), None, model())


def test_a_folder_with_our_sidecar_is_ours(tmp_path):
    sae = ReLU(ReLUConfig(d_model=D, d_sae=S))
    save_sae(sae, tmp_path / "a", HookPoint("3.resid_pre"), {"model": {"id": "gpt2"}})
    (native,) = find_saes(str(tmp_path / "a"), None, model())
    assert native.format == "native"
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "fluoroscope.json").unlink()
    (plain,) = find_saes(str(tmp_path / "b"), None, model())
    assert plain.format == "saelens"
    x = torch.randn(50, D)
    loaded = load_saes([plain])["3.resid_pre"]
    torch.testing.assert_close(loaded.encode(x), sae.encode(x), atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match=r"two SAEs of 3\.resid_pre"):
        find_saes(str(tmp_path), None, model())


def test_an_sae_of_another_width_or_depth_is_refused(fake_hub):
    write(fake_hub.root / NAME, hook(8))
    with pytest.raises(MismatchError, match=r"8\.resid_pre with width 6; .* width 7"):
        find_saes(NAME, None, model(d_model=7))
    with pytest.raises(MismatchError, match=r"8\.resid_pre .* layers 0 to 5"):
        find_saes(NAME, None, model(n_layers=6))


def test_a_file_that_was_exchanged_is_refused(tmp_path):
    folder = write(tmp_path, hook(8))
    (choice,) = find_saes(str(tmp_path), None, model())
    before = (folder / "cfg.json").read_text()
    (folder / "cfg.json").write_text(before.replace("gpt2-small", "gpt2-large"))
    with pytest.raises(MismatchError, match=r"cfg\.json is not a part of the SAE of 8\.resid_pre"):
        load_choice(choice)
    (folder / "cfg.json").write_text(before)
    load_choice(choice)
    weights = folder / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(MismatchError, match=rf"should be {choice.weights_sha256[:12]}"):
        load_choice(choice)
    weights.unlink()
    with pytest.raises(DamagedError, match=r"sae_weights\.safetensors is missing"):
        load_choice(choice)


def test_the_factor_of_activations_is_a_part_of_the_sae(fake_hub):
    folder = write(fake_hub.root / NAME, hook(8), normalize_activations="expected_average_only_in")
    with pytest.raises(ConfigError, match=r"activation_scaler\.json .*is not there"):
        find_saes(NAME, None, model())
    scaler = folder / "activation_scaler.json"
    scaler.write_text(json.dumps({"scaling_factor": 0.5}))
    (choice,) = find_saes(NAME, None, model())
    (near,) = find_saes(str(folder), None, model())
    assert near.settings_sha256 == choice.settings_sha256
    fake_hub.fetched.clear()
    load_choice(choice)
    assert f"{hook(8)}/activation_scaler.json" in fake_hub.fetched
    scaler.write_text(json.dumps({"scaling_factor": 0.6}))
    for one in (choice, near):
        with pytest.raises(MismatchError, match="is not a part of"):
            load_choice(one)


def test_a_plan_with_the_public_saes_of_gpt2_needs_no_network(fake_hub):
    fake_hub.is_down = True
    name, gpt2 = "jbloom/GPT2-Small-SAEs-Reformatted", model(d_model=768)
    found = find_or_sketch_saes(name, "all.resid_pre", gpt2, is_sketch=True)
    assert [choice.hook_point for choice in found] == [f"{i}.resid_pre" for i in range(12)]
    assert {(c.format, c.d_model, c.d_sae, c.repository) for c in found} == {
        ("saelens", 768, 24576, name)
    }
    every = sketched_saes([f"hf:{name}@main"], None, gpt2)
    assert [choice.hook_point for choice in every][-2:] == ["11.resid_pre", "11.resid_post"]
    assert len(every) == 13
    assert sketched_saes(name, None, model(d_model=1024)) is None
    with pytest.raises(ModelError, match="cannot be had"):
        find_or_sketch_saes(name, "all.resid_pre", gpt2, is_sketch=False)
