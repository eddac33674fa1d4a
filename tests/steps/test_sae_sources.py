"""SAEs are found by name, known by content, and fetched only when they are loaded."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from fake_hub import Hub
from safetensors.torch import save_file

from fluoroscope.core.config import build, what_half
from fluoroscope.core.errors import ConfigError, DamagedError, MismatchError, ModelError
from fluoroscope.core.storage import sha256_file
from fluoroscope.models import hub
from fluoroscope.models.identity import ModelIdentity
from fluoroscope.sae.formats.native import load_sae
from fluoroscope.steps.models import ModelConfig
from fluoroscope.steps.sae_sources import (
    SAEChoice,
    check_recorded,
    find_saes,
    load_choice,
    load_saes,
)
from fluoroscope.studies.patch.spec import PatchSpec
from fluoroscope.studies.patch.study import PatchStudy

D_MODEL, D_SAE = 6, 16
LLAMA = "fnlp/Llama3_1-8B-Base-LXR-8x"
GEMMA = "google/gemma-scope-tiny-pt-res"


def model(n_layers=32, d_model=D_MODEL):
    return ModelConfig(
        name="some/model",
        revision=None,
        dtype="float32",
        d_model=d_model,
        n_layers=n_layers,
        is_organism=False,
    )


def write_llama_scope(root, layer, site="R", hook="resid_post", said=None):
    folder = root / f"Llama3_1-8B-Base-L{layer}{site}-8x"
    (folder / "checkpoints").mkdir(parents=True)
    point = f"blocks.{layer if said is None else said}.hook_{hook}"
    settings = {
        "act_fn": "jumprelu",
        "d_model": D_MODEL,
        "d_sae": D_SAE,
        "dataset_average_activation_norm": {"in": 10.0, "out": 10.0},
        "hook_point_in": point,
        "hook_point_out": point,
        "jump_relu_threshold": 0.3,
    }
    (folder / "hyperparams.json").write_text(json.dumps(settings))
    generator = torch.Generator().manual_seed(layer)
    shapes = {
        "encoder.weight": (D_SAE, D_MODEL),
        "encoder.bias": (D_SAE,),
        "decoder.weight": (D_MODEL, D_SAE),
        "decoder.bias": (D_MODEL,),
    }
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(weights, folder / "checkpoints" / "final.safetensors")
    return folder


def write_gemma_scope(root, layer, below, d_sae=D_SAE):
    folder = root / f"layer_{layer}" / below
    folder.mkdir(parents=True)
    rng = np.random.default_rng(layer)
    shapes = {
        "W_enc": (D_MODEL, d_sae),
        "W_dec": (d_sae, D_MODEL),
        "b_enc": (d_sae,),
        "b_dec": (D_MODEL,),
        "threshold": (d_sae,),
    }
    arrays = {name: rng.random(shape, dtype=np.float32) for name, shape in shapes.items()}
    np.savez(folder / "params.npz", **arrays)
    return folder


def test_a_layer_of_llama_scope_costs_two_files_and_only_when_it_is_loaded(fake_hub):
    for layer in (0, 15, 31):
        write_llama_scope(fake_hub.root / LLAMA, layer)
    folder = "Llama3_1-8B-Base-L15R-8x"
    weights = f"{folder}/checkpoints/final.safetensors"
    (choice,) = find_saes(LLAMA, "15.resid_post", model())
    assert fake_hub.fetched == [f"{folder}/hyperparams.json"]
    assert fake_hub.looked_up == [weights]
    assert choice == SAEChoice(
        hook_point="15.resid_post",
        format="llama_scope",
        repository=LLAMA,
        revision=Hub.commit,
        file=weights,
        weights_sha256=sha256_file(fake_hub.root / LLAMA / weights),
        settings_sha256=sha256_file(fake_hub.root / LLAMA / folder / "hyperparams.json"),
        d_model=D_MODEL,
        d_sae=D_SAE,
    )
    fake_hub.fetched.clear()
    sae = load_choice(choice)
    assert fake_hub.fetched == [f"{folder}/hyperparams.json", weights]
    assert str(sae.hook_point) == "15.resid_post"


def test_without_hook_points_all_layers_are_found_in_order(fake_hub):
    for layer in (2, 10, 0):
        write_llama_scope(fake_hub.root / LLAMA, layer)
    choices = find_saes(f"{LLAMA}@main", None, model())
    assert [choice.hook_point for choice in choices] == [
        "0.resid_post",
        "2.resid_post",
        "10.resid_post",
    ]
    assert not any("safetensors" in file for file in fake_hub.fetched)
    saes = load_saes(choices)
    assert list(saes) == [choice.hook_point for choice in choices]
    assert not any(weight.requires_grad for sae in saes.values() for weight in sae.parameters())


def test_streams_of_llama_scope_come_from_their_own_repositories(fake_hub):
    repositories = {"M": LLAMA.replace("LXR", "LXM"), "A": LLAMA.replace("LXR", "LXA")}
    write_llama_scope(fake_hub.root / repositories["M"], 3, "M", "mlp_out")
    write_llama_scope(fake_hub.root / repositories["A"], 3, "A", "attn_out")
    write_llama_scope(fake_hub.root / LLAMA, 3)
    choices = find_saes([LLAMA, *repositories.values()], None, model())
    assert [choice.hook_point for choice in choices] == ["3.attn_out", "3.mlp_out", "3.resid_post"]


def test_gemma_scope_is_chosen_by_layer_and_width(fake_hub):
    for layer in (0, 20):
        for below in ("width_16/canonical", "width_16/average_l0_71", "width_32/average_l0_114"):
            write_gemma_scope(fake_hub.root / GEMMA, layer, below, 16 if "16" in below else 32)
    (choice,) = find_saes(f"{GEMMA}/width_16", "20.resid_post", model())
    assert (choice.file, choice.d_sae) == ("layer_20/width_16/canonical/params.npz", 16)
    assert fake_hub.fetched == []
    assert fake_hub.looked_up == [choice.file]
    sae = load_choice(choice)
    assert fake_hub.fetched == [choice.file]
    assert (str(sae.hook_point), sae.d_sae) == ("20.resid_post", 16)
    named = {"average_l0_71": 16, "layer_20/width_32/average_l0_114": 32}
    for inside, d_sae in named.items():
        (choice,) = find_saes(f"{GEMMA}/{inside}", "20.resid_post", model())
        assert choice.d_sae == d_sae
        assert choice.file.endswith(f"{inside.rpartition('/')[2]}/params.npz")
    with pytest.raises(ConfigError, match=r"two SAEs of 20\.resid_post: .*width_16.*width_32"):
        find_saes(GEMMA, "20.resid_post", model())
    with pytest.raises(ConfigError, match=r"no SAE that can be read in .*width_64.*layer_0/width"):
        find_saes(f"{GEMMA}/width_64", None, model())


def test_the_saes_of_the_embedding_are_of_no_layer_and_left_out(fake_hub):
    layer = write_gemma_scope(fake_hub.root / GEMMA, 3, "width_16/canonical")
    shutil.copytree(layer, fake_hub.root / GEMMA / "embedding" / "width_16" / "average_l0_6")
    (choice,) = find_saes(GEMMA, None, model())
    assert choice.hook_point == "3.resid_post"


def test_gemma_scope_of_another_model_is_refused_before_anything_is_fetched(fake_hub):
    write_gemma_scope(fake_hub.root / "google/gemma-scope-9b-pt-res", 20, "width_16k/canonical")
    name = "google/gemma-scope-9b-pt-res"
    with pytest.raises(MismatchError, match=r"width 3584; some/model has .* width 2304"):
        find_saes(name, "20.resid_post", model(26, 2304))
    (choice,) = find_saes(name, "20.resid_post", model(42, 3584))
    assert (choice.d_model, choice.d_sae) == (3584, 2**14)
    with pytest.raises(MismatchError, match=r"16384 latents of width 3584; .* 16 latents of width"):
        load_choice(choice)


def test_a_small_file_that_the_hub_does_not_hash_is_hashed_here(fake_hub, monkeypatch):
    write_llama_scope(fake_hub.root / LLAMA, 3)
    monkeypatch.setattr(fake_hub, "_lfs", lambda _: None)
    (choice,) = find_saes(LLAMA, "3.resid_post", model())
    assert choice.weights_sha256 == sha256_file(fake_hub.root / LLAMA / choice.file)
    load_choice(choice)


def test_without_a_network_the_cache_is_used(fake_hub, monkeypatch):
    write_llama_scope(fake_hub.root / LLAMA, 3)
    (online,) = find_saes(LLAMA, "3.resid_post", model())

    snapshot = fake_hub.root / LLAMA
    cached = snapshot.with_name("c0ffee" + 34 * "0")
    shutil.copytree(snapshot, cached)
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(cached))
    monkeypatch.setattr(hub, "hf_hub_download", lambda name, file, revision: str(cached / file))
    fake_hub.is_down = True
    (offline,) = find_saes(LLAMA, "3.resid_post", model())
    assert offline.revision == cached.name
    assert what_half(offline) == what_half(online)
    load_choice(offline)


def test_what_cannot_be_had_says_what_to_do(fake_hub, monkeypatch):
    write_llama_scope(fake_hub.root / LLAMA, 3)
    (choice,) = find_saes(LLAMA, "3.resid_post", model())
    fake_hub.is_down = True
    with pytest.raises(ModelError, match=r"cannot be reached .*`hf download fnlp/Llama3.*folder"):
        load_choice(choice)

    def nothing(*_, **__):
        raise OSError

    monkeypatch.setattr(hub, "snapshot_download", nothing)
    with pytest.raises(ModelError, match=r"repository fnlp/.* not in the hub's cache.*name resol"):
        find_saes(LLAMA, "3.resid_post", model())


def test_a_layer_that_is_not_there_is_named_with_those_that_are(fake_hub):
    write_llama_scope(fake_hub.root / LLAMA, 3)
    with pytest.raises(ConfigError, match=r"no SAE of 4\.resid_post in fnlp.*those of 3\.resid_"):
        find_saes(LLAMA, "3,4.resid_post", model())


def test_an_sae_of_another_model_or_layer_is_refused_with_both_sides(tmp_path):
    write_llama_scope(tmp_path, 15)
    with pytest.raises(MismatchError, match=r"15\.resid_post with width 6; .* width 7.*another"):
        find_saes(str(tmp_path), None, model(d_model=7))
    with pytest.raises(MismatchError, match=r"15\.resid_post .* layers 0 to 14"):
        find_saes(str(tmp_path), None, model(n_layers=15))
    write_llama_scope(tmp_path / "renamed", 16, said=14)
    with pytest.raises(MismatchError, match=r"16\.resid_post by its name, .* 14\.resid_post by"):
        find_saes(str(tmp_path / "renamed"), None, model())


def test_releases_are_read_from_folders_as_well(tmp_path):
    llama = write_llama_scope(tmp_path / "llama", 15)
    gemma = write_gemma_scope(tmp_path / "gemma-scope-2b-pt-mlp", 20, "width_16k/canonical")
    for name in (tmp_path, llama.parent):
        (choice,) = find_saes(str(name), "15.resid_post", model())
        assert choice.folder == str(llama.resolve())
        assert str(load_choice(choice).hook_point) == "15.resid_post"
    (choice,) = find_saes(str(gemma), None, model())
    # The sizes of a file on this machine are the file's, not the name's.
    assert (choice.hook_point, choice.d_sae) == ("20.mlp_out", D_SAE)
    load_choice(choice)
    llama.rename(tmp_path / "mine")
    (choice,) = find_saes(str(tmp_path / "mine"), None, model())
    assert choice.hook_point == "15.resid_post"
    shutil.move(gemma, tmp_path / "bare")
    with pytest.raises(MismatchError, match="in names of folders alone"):
        find_saes(str(tmp_path / "bare"), None, model())


def test_an_exchanged_file_is_refused(tmp_path):
    folder = write_llama_scope(tmp_path, 15)
    (choice,) = find_saes(str(folder), None, model())
    settings = folder / "hyperparams.json"
    before = settings.read_text()
    settings.write_text(before.replace("0.3", "0.4"))
    with pytest.raises(MismatchError, match=r"hyperparams\.json is not a part of the SAE of 15"):
        load_choice(choice)
    settings.write_text(before)
    load_choice(choice)
    weights = folder / "checkpoints" / "final.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(MismatchError, match=rf"should be {choice.weights_sha256[:12]}"):
        load_choice(choice)
    weights.unlink()
    with pytest.raises(DamagedError, match=r"final\.safetensors is missing"):
        load_choice(choice)


def test_native_saes_know_the_model_that_they_are_of(organism_model):
    organism = model(organism_model.n_layers, organism_model.d_model)
    choices = find_saes("organism:batch_topk", "3,4.resid_post", organism)
    saes = load_saes(choices, model=organism_model.identity)
    x = torch.randn(5, organism_model.d_model, generator=torch.Generator().manual_seed(0))
    for choice in choices:
        assert choice.format == "native"
        expected = load_sae(choice.folder).encode(x)
        assert torch.equal(saes[choice.hook_point].encode(x), expected)
    other = ModelIdentity("other", None, "0" * 64, "1" * 64)
    with pytest.raises(MismatchError, match=r"belongs to model .*other"):
        load_choice(choices[0], model=other)
    moved = choices[0].model_copy(update={"hook_point": "4.resid_post"})
    with pytest.raises(MismatchError, match=r"3\.resid_post.*4\.resid_post"):
        load_choice(moved)


def test_the_last_weights_of_a_run_stand_back_behind_its_best(tmp_path, monkeypatch):
    monkeypatch.setenv("FLUOROSCOPE_RUNS", str(tmp_path))
    shipped = hub.SHIPPED["organism"] / "saes" / "batch_topk" / "3.resid_post"
    for kind in ("best", "last"):
        shutil.copytree(shipped, tmp_path / "a-run" / "saes" / kind)
    sidecar = json.loads((shipped / "fluoroscope.json").read_text())
    organism = model(6, sidecar["config"]["d_model"])
    (choice,) = find_saes("a-run", None, organism)
    assert choice.folder.endswith("best")
    (choice,) = find_saes(str(tmp_path / "a-run" / "saes" / "last"), None, organism)
    assert choice.folder.endswith("last")
    both = [str(tmp_path / "a-run" / "saes" / kind) for kind in ("best", "last")]
    with pytest.raises(ConfigError, match=r"two SAEs of 3\.resid_post: .*best and .*last"):
        find_saes(both, None, organism)


@pytest.mark.parametrize("name", ["nothing-here", "some/model", "organism:nothing"])
def test_a_name_that_means_nothing_is_refused_without_asking_the_hub(fake_hub, name):
    fake_hub.is_down = True
    with pytest.raises(ConfigError, match=r"no SAE in .*fnlp/Llama3_1-8B-Base-LXR-8x"):
        find_saes(name, None, model())
    with pytest.raises(ConfigError, match="no SAE of any hook point in no folder"):
        find_saes([], None, model())


def test_a_choice_is_its_content_and_not_its_place(tmp_path):
    write_llama_scope(tmp_path / "a", 15)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    here, there = (find_saes(str(tmp_path / name), None, model())[0] for name in "ab")
    assert here != there
    assert what_half(here) == what_half(there)
    assert build(SAEChoice, json.loads(here.model_dump_json())) == here


def test_numbers_of_another_sae_are_refused_with_both_sides(tmp_path):
    first, second = (write_llama_scope(tmp_path / str(n), n) for n in (15, 16))
    (one,), (other,) = (find_saes(str(folder), None, model()) for folder in (first, second))
    recorded = one.provenance()
    assert json.loads(json.dumps(recorded)) == recorded
    assert {"feature_space", "layers", "repository", "revision", "d_sae"} <= set(recorded)
    check_recorded(recorded, one, "means.csv")
    with pytest.raises(MismatchError, match=r"means\.csv .*15\.resid_post.*16\.resid_post"):
        check_recorded(recorded, other, "means.csv")
    for name in ("feature_space", "d_sae", "weights_sha256"):
        with pytest.raises(MismatchError, match=f"has {name} 'hidden'"):
            check_recorded({**recorded, name: "hidden"}, one, "means.csv")


def test_a_sweep_takes_the_saes_of_a_release(tmp_path, organism_model):
    """The organism's own SAE, written as Gemma Scope would have: the same latents."""
    native = load_sae(hub.SHIPPED["organism"] / "saes" / "batch_topk" / "3.resid_post")
    folder = tmp_path / "gemma-scope-tiny-pt-res" / "layer_3" / "width_512" / "canonical"
    folder.mkdir(parents=True)
    arrays = {
        "W_enc": native.W_enc / 2,
        "W_dec": native.W_dec * 2,
        "b_enc": (native.b_enc - native.b_dec @ native.W_enc) / 2,
        "b_dec": native.b_dec,
        "threshold": native.threshold / 2,
    }
    np.savez(
        folder / "params.npz", **{name: array.detach().numpy() for name, array in arrays.items()}
    )
    settings = {
        "model": "organism",
        "sae": str(tmp_path),
        "latents": "0-1",
        "values": [4],
        "prompts": {"source": "organism:risk", "n": 1},
    }
    config = PatchStudy().resolve(build(PatchSpec, settings))
    (sae,) = load_saes(config.sweep.saes, model=organism_model.identity).values()
    x = torch.randn(50, native.d_model, generator=torch.Generator().manual_seed(0)) * 3
    torch.testing.assert_close(sae.encode(x), native.encode(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(sae.release_scale, torch.full((512,), 2.0), atol=1e-2, rtol=0)
    assert config.sweep.saes[0].latents == [0, 1]


def test_naming_saes_imports_no_torch():
    code = "import sys, fluoroscope.steps.sae_sources; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
