"""SAEs of other releases compute what their own formula says, in our units."""

import json
import math
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fluoroscope.core.errors import ConfigError, DamagedError, MismatchError, NumericsError
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.formats.gemma_scope import (
    gemma_scope_point,
    gemma_scope_sizes,
    gemma_scope_width,
    load_gemma_scope,
)
from fluoroscope.sae.formats.llama_scope import load_llama_scope
from fluoroscope.sae.formats.native import load_sae, save_sae
from fluoroscope.sae.jumprelu import JumpReLU

D_MODEL, D_SAE, THRESHOLD, NORM = 6, 40, 0.35546875, 10.8125
FACTOR = math.sqrt(D_MODEL) / NORM
HYPERPARAMS = {
    "act_fn": "jumprelu",
    "apply_decoder_bias_to_pre_encoder": False,
    "d_model": D_MODEL,
    "d_sae": D_SAE,
    "dataset_average_activation_norm": {"in": NORM, "out": NORM},
    "expansion_factor": 8,
    "hook_point_in": "blocks.15.hook_resid_post",
    "hook_point_out": "blocks.15.hook_resid_post",
    "jump_relu_threshold": THRESHOLD,
    "norm_activation": "dataset-wise",
    "sparsity_include_decoder_norm": True,
    "top_k": 50,
    "use_decoder_bias": True,
}


def normal(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def llama_weights(dtype=torch.float64):
    tensors = {
        "encoder.weight": normal(D_SAE, D_MODEL, seed=1),
        "encoder.bias": normal(D_SAE, seed=2) / 3,
        # Published decoder rows have norms around 1.5.
        "decoder.weight": normal(D_MODEL, D_SAE, seed=3),
        "decoder.bias": normal(D_MODEL, seed=4),
    }
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def write_llama_scope(folder, weights=None, **changes):
    settings = {k: v for k, v in (HYPERPARAMS | changes).items() if v is not ...}
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "hyperparams.json").write_text(json.dumps(settings))
    save_file(weights or llama_weights(), folder / "checkpoints" / "final.safetensors")
    return folder


def llama_formula(x, weights, threshold=THRESHOLD, factor=FACTOR, of_contributions=True):
    """Latents of normalised activations, and the reconstruction, as the release computes them."""
    pre = factor * x @ weights["encoder.weight"].T + weights["encoder.bias"]
    compared = pre / factor
    if of_contributions:
        compared = compared * weights["decoder.weight"].norm(dim=0)
    latents = torch.where(compared > threshold, pre, 0)
    return latents, (latents @ weights["decoder.weight"].T + weights["decoder.bias"]) / factor


def rows(weights, n=500, factor=FACTOR, threshold=THRESHOLD):
    """Activations of the release's norm; the last 80 bring one latent each to the threshold's
    edge, on either side.
    """
    x = normal(n, D_MODEL, seed=5)
    x = x / x.norm(dim=-1, keepdim=True) * NORM
    edge = []
    for latent in range(D_SAE):
        read, n_j = weights["encoder.weight"][latent], weights["decoder.weight"][:, latent].norm()
        for relative in (1 - 1e-9, 1 + 1e-9):
            wanted = relative * threshold / n_j * factor - weights["encoder.bias"][latent]
            edge.append(
                x[latent] + read / read.square().sum() * (wanted / factor - x[latent] @ read)
            )
    return torch.cat([x, torch.stack(edge)])


def test_llama_scope_is_the_formula_of_its_release(tmp_path):
    weights = llama_weights()
    sae = load_llama_scope(write_llama_scope(tmp_path / "sae"), dtype=torch.float64)
    x = rows(weights)
    latents, reconstruction = llama_formula(x, weights)
    ours = sae.encode(x)
    assert torch.equal(ours > 0, latents > 0)
    assert 0 < (latents > 0).sum() < latents.numel() / 2
    at_the_edge = latents[500:].view(D_SAE, 2, D_SAE)
    for latent in range(D_SAE):
        below, above = at_the_edge[latent, :, latent]
        assert below == 0 < above
    torch.testing.assert_close(ours, latents * sae.release_scale)
    torch.testing.assert_close(sae(x), reconstruction, atol=1e-9, rtol=1e-9)
    assert sae.hook_point == HookPoint("15.resid_post")


def test_llama_scope_is_what_its_own_loader_makes_of_it(tmp_path):
    """Bias and decoder to raw activations, then rows to unit norm, then the bare threshold."""
    weights = llama_weights()
    sae = load_llama_scope(write_llama_scope(tmp_path / "sae"), dtype=torch.float64)
    x = rows(weights)
    norms = weights["decoder.weight"].norm(dim=0)
    pre = x @ (weights["encoder.weight"] * norms[:, None]).T
    pre += weights["encoder.bias"] / FACTOR * norms
    latents = pre * (pre > THRESHOLD)
    torch.testing.assert_close(sae.encode(x), latents)
    decoded = latents @ (weights["decoder.weight"] / norms).T + weights["decoder.bias"] / FACTOR
    torch.testing.assert_close(sae(x), decoded)


def test_every_way_to_encode_a_released_sae_agrees(tmp_path):
    sae = load_llama_scope(write_llama_scope(tmp_path / "sae"))
    x = rows(llama_weights())[:500].float()
    latents = sae.encode(x)
    torch.testing.assert_close(sae.sparse_encode(x).dense(), latents)
    chosen = torch.tensor([7, 0, 39])
    torch.testing.assert_close(sae.encode_latents(x, chosen), latents[:, chosen])


def test_bfloat16_files_are_computed_in_float32(tmp_path):
    weights = llama_weights(torch.bfloat16)
    sae = load_llama_scope(write_llama_scope(tmp_path / "sae", weights))
    exact = {name: tensor.double() for name, tensor in weights.items()}
    x = rows(exact)[:500]
    latents, reconstruction = llama_formula(x, exact)
    ours = sae.encode(x.float())
    assert ours.dtype == torch.float32
    # No row of these is within rounding of the threshold.
    assert torch.equal(ours > 0, latents > 0)
    torch.testing.assert_close(ours.double(), latents * sae.release_scale, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae(x.float()).double(), reconstruction, atol=1e-5, rtol=1e-5)


def test_a_llama_scope_threshold_is_in_the_units_of_the_activations(tmp_path):
    """The same SAE of activations that are three times as large has three times the threshold."""
    small = load_llama_scope(write_llama_scope(tmp_path / "small"), dtype=torch.float64)
    large = load_llama_scope(
        write_llama_scope(
            tmp_path / "large",
            jump_relu_threshold=3 * THRESHOLD,
            dataset_average_activation_norm={"in": 3 * NORM, "out": 3 * NORM},
        ),
        dtype=torch.float64,
    )
    x = rows(llama_weights())[:500]
    torch.testing.assert_close(large.encode(3 * x), 3 * small.encode(x))
    torch.testing.assert_close(large(3 * x), 3 * small(x))
    assert torch.all(small.threshold == THRESHOLD)


def test_without_decoder_norms_in_the_sparsity_the_bare_latent_is_compared(tmp_path):
    weights = llama_weights()
    folder = write_llama_scope(tmp_path / "sae", sparsity_include_decoder_norm=False)
    sae, x = load_llama_scope(folder, dtype=torch.float64), rows(weights)[:500]
    latents, reconstruction = llama_formula(x, weights, of_contributions=False)
    assert torch.equal(sae.encode(x) > 0, latents > 0)
    torch.testing.assert_close(sae(x), reconstruction)
    # A file that does not say it means the release's default.
    silent = write_llama_scope(tmp_path / "silent", sparsity_include_decoder_norm=...)
    latents, _ = llama_formula(x, weights)
    assert torch.equal(load_llama_scope(silent, dtype=torch.float64).encode(x) > 0, latents > 0)


def test_llama_scope_is_never_read_as_a_plain_relu(tmp_path):
    """A ReLU has the same shapes and several times as many active latents; a file without a
    threshold is refused instead.
    """
    weights = llama_weights()
    sae = load_llama_scope(write_llama_scope(tmp_path / "sae"), dtype=torch.float64)
    x = rows(weights)[:500]
    relu, _ = llama_formula(x, weights, threshold=0)
    assert (sae.encode(x) > 0).sum() < (relu > 0).sum()
    for i, threshold in enumerate((..., None, 0.0, -1, "0.3", math.inf)):
        folder = write_llama_scope(tmp_path / str(i), jump_relu_threshold=threshold)
        with pytest.raises(ConfigError, match="needs a positive number jump_relu_threshold"):
            load_llama_scope(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"act_fn": "topk"}, "act_fn='topk'"),
        ({"act_fn": "relu"}, "act_fn='relu'"),
        ({"norm_activation": "token-wise"}, "norm_activation='token-wise'"),
        ({"apply_decoder_bias_to_pre_encoder": True}, "apply_decoder_bias_to_pre_encoder=True"),
        ({"hook_point_out": "blocks.15.hook_mlp_out"}, "of a transcoder"),
        ({"hook_point_in": "x", "hook_point_out": "x"}, "hook point 'x'"),
        ({"dataset_average_activation_norm": {}}, "positive number in"),
        ({"d_sae": ...}, "positive number d_sae"),
    ],
)
def test_a_llama_scope_file_of_another_formula_is_refused(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_llama_scope(write_llama_scope(tmp_path / "sae", **changes))


@pytest.mark.parametrize(
    ("hook", "point"),
    [
        ("blocks.0.hook_mlp_out", "0.mlp_out"),
        ("blocks.31.hook_attn_out", "31.attn_out"),
        ("blocks.2.hook_resid_pre", "2.resid_pre"),
    ],
)
def test_llama_scope_says_itself_where_it_belongs(tmp_path, hook, point):
    folder = write_llama_scope(tmp_path / "sae", hook_point_in=hook, hook_point_out=hook)
    assert load_llama_scope(folder).hook_point == HookPoint(point)


def test_damaged_weights_of_llama_scope_are_named(tmp_path):
    weights = llama_weights()
    del weights["decoder.bias"]
    with pytest.raises(DamagedError, match=r"no tensor decoder\.bias; it has decoder\.weight"):
        load_llama_scope(write_llama_scope(tmp_path / "a", weights))
    weights = llama_weights()
    weights["encoder.weight"] = weights["encoder.weight"].T.contiguous()
    with pytest.raises(DamagedError, match=r"encoder\.weight has shape \(6, 40\).*\(40, 6\)"):
        load_llama_scope(write_llama_scope(tmp_path / "b", weights))
    weights = llama_weights()
    weights["encoder.bias"][3] = math.nan
    with pytest.raises(NumericsError, match="b_enc has numbers that are not finite"):
        load_llama_scope(write_llama_scope(tmp_path / "c", weights))
    with pytest.raises(ConfigError, match=r"hyperparams\.json, which says how"):
        load_llama_scope(tmp_path)


def gemma_arrays():
    arrays = {
        "W_enc": normal(D_MODEL, D_SAE, seed=11),
        "W_dec": normal(D_SAE, D_MODEL, seed=12),
        "b_enc": normal(D_SAE, seed=13) / 3,
        "b_dec": normal(D_MODEL, seed=14),
        "threshold": 0.5 + normal(D_SAE, seed=15).abs(),
    }
    return {name: tensor.float().numpy() for name, tensor in arrays.items()}


def write_gemma_scope(root, arrays=None, name="gemma-scope-9b-pt-res", below="canonical"):
    folder = root / name / "layer_20" / "width_16k" / below
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **(arrays or gemma_arrays()))
    return folder


def gemma_formula(x, arrays):
    weights = {name: torch.from_numpy(array).double() for name, array in arrays.items()}
    pre = x @ weights["W_enc"] + weights["b_enc"]
    latents = pre * (pre > weights["threshold"])
    return latents, latents @ weights["W_dec"] + weights["b_dec"]


def test_gemma_scope_is_the_formula_of_its_release(tmp_path):
    arrays = gemma_arrays()
    sae = load_gemma_scope(write_gemma_scope(tmp_path), dtype=torch.float64)
    x, edge = normal(500, D_MODEL, seed=5), []
    for latent in range(D_SAE):
        read = torch.from_numpy(arrays["W_enc"][:, latent]).double()
        for relative in (1 - 1e-9, 1 + 1e-9):
            wanted = relative * float(arrays["threshold"][latent]) - float(arrays["b_enc"][latent])
            edge.append(x[latent] + read / read.square().sum() * (wanted - x[latent] @ read))
    x = torch.cat([x, torch.stack(edge)])
    latents, reconstruction = gemma_formula(x, arrays)
    ours = sae.encode(x)
    assert torch.equal(ours > 0, latents > 0)
    assert (latents[500:].view(D_SAE, 2, D_SAE).diagonal(dim1=0, dim2=2) > 0).float().mean() == 0.5
    torch.testing.assert_close(ours, latents * sae.release_scale)
    torch.testing.assert_close(sae(x), reconstruction, atol=1e-9, rtol=1e-9)
    assert sae.hook_point == HookPoint("20.resid_post")


def test_released_latents_are_the_norm_of_what_they_write(tmp_path):
    sae = load_gemma_scope(write_gemma_scope(tmp_path), dtype=torch.float64)
    torch.testing.assert_close(sae.W_dec.norm(dim=-1), torch.ones(D_SAE, dtype=torch.float64))
    latents, _ = gemma_formula(normal(50, D_MODEL, seed=5), gemma_arrays())
    written = latents * torch.from_numpy(gemma_arrays()["W_dec"]).double().norm(dim=-1)
    torch.testing.assert_close(sae.encode(normal(50, D_MODEL, seed=5)), written)


def test_a_released_latent_that_writes_nothing_is_never_active(tmp_path):
    arrays = gemma_arrays()
    arrays["W_dec"][7] = 0
    sae = load_gemma_scope(write_gemma_scope(tmp_path, arrays), dtype=torch.float64)
    x = normal(500, D_MODEL, seed=5)
    latents, reconstruction = gemma_formula(x, arrays)
    assert latents[:, 7].any()
    assert not sae.encode(x)[:, 7].any()
    torch.testing.assert_close(sae(x), reconstruction)


def test_a_released_sae_is_kept_in_our_own_format(tmp_path):
    sae = load_gemma_scope(write_gemma_scope(tmp_path))
    save_sae(sae, tmp_path / "native", sae.hook_point)
    loaded, x = load_sae(tmp_path / "native"), normal(50, D_MODEL, seed=5).float()
    assert isinstance(loaded, JumpReLU)
    assert torch.equal(loaded.encode(x), sae.encode(x))
    assert loaded.hook_point == sae.hook_point


def test_gemma_scope_is_read_without_pickle(tmp_path):
    arrays = gemma_arrays() | {"threshold": np.array([{"a": 1}] * D_SAE, dtype=object)}
    with pytest.raises(DamagedError, match="pickle"):
        load_gemma_scope(write_gemma_scope(tmp_path, arrays))


def test_gemma_scope_belongs_where_its_folders_say(tmp_path):
    folder = write_gemma_scope(tmp_path, name="gemma-scope-2b-it-mlp")
    assert load_gemma_scope(folder / "params.npz").hook_point == HookPoint("20.mlp_out")
    assert load_gemma_scope(folder, "20.mlp_out").hook_point == HookPoint("20.mlp_out")
    for wrong in ("21.mlp_out", "20.resid_post"):
        with pytest.raises(MismatchError, match=rf"is of 20\.mlp_out, .* used at {wrong}"):
            load_gemma_scope(folder, wrong)
    bare = tmp_path / "copy"
    (folder / "params.npz").rename(bare.with_suffix(".npz"))
    with pytest.raises(ConfigError, match="Give its hook point"):
        load_gemma_scope(bare.with_suffix(".npz"))
    assert load_gemma_scope(bare.with_suffix(".npz"), "0.mlp_out").hook_point.layer == 0


def test_names_of_gemma_scope_are_read_as_published():
    cache = "hub/models--google--gemma-scope-9b-pt-res-canonical/snapshots/c0/layer_0/width_131k"
    assert gemma_scope_point(cache) == (0, "resid_post")
    assert gemma_scope_point("somewhere/layer_3") == (3, None)
    for name in ("gemma-scope-9b-pt-att", "gemma-scope-2b-pt-transcoders"):
        with pytest.raises(ConfigError, match="no stream of a model here"):
            gemma_scope_point(f"google/{name}/layer_3")
    widths = {"16k": 2**14, "65k": 2**16, "131k": 2**17, "262k": 2**18, "1m": 2**20, "40": 40}
    for width, d_sae in widths.items():
        assert gemma_scope_width(f"layer_3/width_{width}/canonical") == d_sae
    assert gemma_scope_width("layer_3") is None


def test_sizes_of_gemma_scope_are_known_without_reading_weights(tmp_path):
    file = write_gemma_scope(tmp_path) / "params.npz"
    assert gemma_scope_sizes(file) == (D_MODEL, D_SAE)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DamagedError, match="not a whole file of Gemma Scope"):
        gemma_scope_sizes(file)
    with pytest.raises(ConfigError, match=r"There is no .*nowhere"):
        load_gemma_scope(tmp_path / "nowhere")
