"""SAEs in SAELens folders compute what their own formula says, in our units and on our streams."""

import copy
import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fluoroscope.activations.capture import capture
from fluoroscope.core.errors import ConfigError, DamagedError, MismatchError, NumericsError
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.tiny import tiny_model
from fluoroscope.sae.architectures import SAES
from fluoroscope.sae.evaluation import Window, evaluate_reconstruction, evaluate_recovery
from fluoroscope.sae.formats.native import SIDECAR, load_sae, save_sae
from fluoroscope.sae.formats.saelens import load_saelens
from fluoroscope.sae.formats.saelens_config import saelens_facts, saelens_point
from fluoroscope.sae.latent_edits import ReconstructionOnly
from fluoroscope.sae.reconstruction import reconstruction_of
from fluoroscope.studies.anatomy.explained import explained
from fluoroscope.studies.anatomy.reading import SequenceReader
from fluoroscope.studies.anatomy.splicing import RECONSTRUCTED, Splicer

D, S, K = 16, 40, 6
HOOK = "blocks.1.hook_resid_pre"

# As files from before 6.0 are, less what nobody reads.
FLAT = {
    "model_name": "gpt2-small",
    "hook_point": HOOK,
    "hook_point_layer": 1,
    "hook_point_head_index": None,
    "context_size": 128,
    "d_in": D,
    "d_sae": S,
    "dtype": "torch.float32",
    "device": "mps",
}
RMS = {"model_name": "gemma-2b"}


def nested(**changes):
    """As files since 6.0 are."""
    metadata = {"sae_lens_version": "6.5.1", "model_name": "gpt2-small", "hook_name": HOOK}
    own = {
        "architecture": "standard",
        "d_in": D,
        "d_sae": S,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {key: changes.pop(key, value) for key, value in metadata.items()},
    }
    own["metadata"] |= {key: changes.pop(key) for key in list(changes) if key in METADATA}
    return own | changes


METADATA = ("model_from_pretrained_kwargs", "hook_head_index")


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights(*names, unit=False):
    decoder = normal(S, D, seed=2)
    if unit:
        decoder = decoder / decoder.norm(dim=-1, keepdim=True)
    found = {
        "W_enc": normal(D, S, seed=1) / 4,
        "W_dec": decoder,
        "b_dec": normal(D, seed=3),
        "b_enc": normal(S, seed=4) / 3,
        "threshold": 0.3 + normal(S, seed=5) / 4,
        "b_gate": normal(S, seed=6) / 2,
        "b_mag": normal(S, seed=7) / 2,
        "r_mag": normal(S, seed=8) / 3,
        "scaling_factor": 1 + normal(S, seed=9) / 4,
    }
    return {name: found[name] for name in ("W_enc", "W_dec", "b_dec", *names)}


NAMES = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
}


def write(folder, config=None, tensors=None, **changes):
    """A folder of the flat form, by default of a ReLU SAE of GPT-2 small."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {k: v for k, v in ((config or FLAT) | changes).items() if v is not ...}
    (folder / "cfg.json").write_text(json.dumps(given))
    tensors = weights(*NAMES["standard"]) if tensors is None else tensors
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "sae_weights.safetensors")
    return folder


def formula(x, w, kind, *, takes_b_dec=True, by_contribution=False):
    """Latents and reconstruction as SAELens computes them."""
    seen = x - w["b_dec"] if takes_b_dec else x
    if kind == "gated":
        gate = seen @ w["W_enc"] + w["b_gate"] > 0
        latents = gate * (seen @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"]).relu()
        return latents, latents @ w["W_dec"] + w["b_dec"]
    pre, decoder = seen @ w["W_enc"] + w["b_enc"], w["W_dec"]
    if by_contribution:
        norm = decoder.norm(dim=-1)
        pre, decoder = pre * norm, decoder / norm.unsqueeze(-1)
    if kind == "topk":
        values, indices = pre.topk(K, dim=-1)
        latents = torch.zeros_like(pre).scatter(-1, indices, values.relu())
    else:
        latents = pre.relu()
    if kind == "jumprelu":
        latents = latents * (pre > w["threshold"])
    return latents, latents @ decoder + w["b_dec"]


def check_is(sae, x, latents, reconstruction):
    torch.testing.assert_close(sae.encode(x), latents * sae.release_scale)
    assert torch.equal(sae.encode(x) > 0, latents > 0)
    assert 0 < (latents > 0).sum() < latents.numel()
    torch.testing.assert_close(sae(x), reconstruction)
    torch.testing.assert_close(sae.W_dec.norm(dim=-1), torch.ones(S, dtype=torch.float64))


@pytest.mark.parametrize("takes_b_dec", [True, False])
@pytest.mark.parametrize("form", ["flat", "nested"])
@pytest.mark.parametrize("kind", ["standard", "jumprelu", "gated"])
def test_an_sae_of_saelens_is_its_formula(tmp_path, kind, form, takes_b_dec):
    w, said = weights(*NAMES[kind]), {"architecture": kind, "apply_b_dec_to_input": takes_b_dec}
    config = FLAT | RMS if form == "flat" else nested()
    sae = load_saelens(write(tmp_path, config, w, **said), dtype=torch.float64)
    x = normal(300, D, seed=10)
    check_is(sae, x, *formula(x, w, kind, takes_b_dec=takes_b_dec))
    assert sae.hook_point == HookPoint("1.resid_pre")
    assert not sae.reads_centred
    sae, x = sae.float(), x.float()
    torch.testing.assert_close(sae.sparse_encode(x).dense(), sae.encode(x), atol=1e-5, rtol=1e-5)


def test_what_an_old_file_does_not_say_is_a_relu_that_takes_b_dec(tmp_path):
    facts = saelens_facts(write(tmp_path, FLAT | RMS) / "cfg.json")
    assert (facts.architecture, facts.is_b_dec_taken, facts.is_scaled) == ("standard", True, False)
    assert (facts.d_model, facts.d_sae, str(facts.hook_point)) == (D, S, "1.resid_pre")


OLD_TOPK = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}


@pytest.mark.parametrize(
    ("config", "said"),
    [(FLAT | RMS, OLD_TOPK), (nested(), {"architecture": "topk", "k": K})],
    ids=["flat", "nested"],
)
def test_topk_of_rows_of_one_norm_is_its_formula(tmp_path, config, said):
    w = weights("b_enc", unit=True)
    w["W_dec"] *= 1.7
    sae = load_saelens(write(tmp_path / "a", config, w, **said), dtype=torch.float64)
    x = normal(300, D, seed=10)
    check_is(sae, x, *formula(x, w, "topk"))
    # Rows that were rounded are not made equal one by one, which could exchange latents.
    w["W_dec"] *= 1 + torch.linspace(0, 0.005, S).double().unsqueeze(-1)
    sae = load_saelens(write(tmp_path / "b", config, w, **said), dtype=torch.float64)
    latents, reconstruction = formula(x, w, "topk")
    assert torch.equal(sae.encode(x) > 0, latents > 0)
    torch.testing.assert_close(sae(x), reconstruction)


def test_topk_by_what_latents_write_has_rows_of_any_norm(tmp_path):
    w = weights("b_enc")
    said = {"architecture": "topk", "k": K, "rescale_acts_by_decoder_norm": True}
    sae = load_saelens(write(tmp_path / "a", nested(), w, **said), dtype=torch.float64)
    x = normal(300, D, seed=10)
    check_is(sae, x, *formula(x, w, "topk", by_contribution=True))
    bare = write(tmp_path / "b", nested(), w, **said | {"rescale_acts_by_decoder_norm": False})
    with pytest.raises(ConfigError, match=r"6 largest latents before .* lie between 2.9 and 5.07"):
        load_saelens(bare)


def test_half_precision_weights_are_computed_in_float32(tmp_path):
    w = {name: tensor.bfloat16() for name, tensor in weights("b_enc").items()}
    sae, x = load_saelens(write(tmp_path, nested(), w)), normal(300, D, seed=10)
    latents, reconstruction = formula(x, {n: t.double() for n, t in w.items()}, "standard")
    assert sae.encode(x.float()).dtype == torch.float32
    torch.testing.assert_close(
        sae.encode(x.float()), (latents * sae.release_scale).float(), atol=2e-5, rtol=1e-5
    )
    torch.testing.assert_close(sae(x.float()), reconstruction.float(), atol=2e-5, rtol=1e-5)


# A centred stream.


def centred_copy(model):
    """The network with centred writing weights, as TransformerLens would load it."""
    network = copy.deepcopy(model.network)
    state = network.state_dict()
    for name, tensor in state.items():
        if re.search(r"wte|wpe|c_proj", name):
            tensor.sub_(tensor.mean(dim=-1, keepdim=True))
    # The head is tied to the embedding, and reads.
    network.lm_head.weight = torch.nn.Parameter(model.network.lm_head.weight.detach().clone())
    return type(model).from_network(network, model.tokenizer, name="centred")


@pytest.fixture(scope="module")
def model():
    return tiny_model("gpt2")


def tokens_of(n=4, p=14):
    tokens = torch.randint(3, 259, (n, p), generator=torch.Generator().manual_seed(1))
    tokens[:, 0] = 1
    return tokens


def means(x):
    return x.mean(dim=-1, keepdim=True)


@pytest.mark.parametrize("kind", ["standard", "jumprelu", "gated", "topk"])
def test_centring_is_folded_exactly(tmp_path, kind):
    w = weights(*NAMES[kind], unit=kind == "topk")
    folder = write(tmp_path, None, w, architecture=kind, activation_fn_kwargs={"k": K})
    sae = load_saelens(folder, dtype=torch.float64)
    assert sae.reads_centred
    x = normal(300, D, seed=10) + 5
    latents, reconstruction = formula(x - means(x), w, kind)
    check_is(sae, x, latents, reconstruction + means(x))
    torch.testing.assert_close(sae.encode(x), sae.encode(x - means(x)))
    torch.testing.assert_close(sae.decode(sae.encode(x)), reconstruction)
    torch.testing.assert_close(sae.part_read(x), x - means(x))
    sae, x = sae.float(), x.float()
    found = reconstruction_of(sae, x, sae.sparse_encode(x))
    torch.testing.assert_close(found, sae(x), atol=1e-5, rtol=1e-5)


def test_latents_on_our_stream_are_those_of_the_centred_network(tmp_path, model):
    """The whole claim: weights centred as TransformerLens does, its stream, the SAE's formula."""
    w, tokens, point = weights("b_enc"), tokens_of(), HookPoint("1.resid_pre")
    sae = load_saelens(write(tmp_path, None, w))
    centred = centred_copy(model)
    torch.testing.assert_close(
        torch.log_softmax(centred.forward(tokens), -1),
        torch.log_softmax(model.forward(tokens), -1),
        atol=1e-4,
        rtol=1e-4,
    )
    theirs = capture(centred, tokens, [point])[point].flatten(0, 1)
    ours = capture(model, tokens, [point])[point].flatten(0, 1)
    assert float(means(ours).abs().max()) > 0.1
    torch.testing.assert_close(means(theirs), torch.zeros(len(theirs), 1), atol=1e-5, rtol=0)
    latents, reconstruction = formula(theirs.double(), w, "standard")
    scaled = (latents * sae.release_scale).float()
    torch.testing.assert_close(sae.encode(ours), scaled, atol=1e-4, rtol=1e-4)
    error = ours - sae(ours)
    torch.testing.assert_close(error, theirs - reconstruction.float(), atol=1e-4, rtol=1e-4)


def test_a_network_with_layer_norm_does_not_see_the_mean_that_is_put_back(tmp_path, model):
    sae, point, tokens = load_saelens(write(tmp_path)), HookPoint("1.resid_pre"), tokens_of()
    logits = {}
    ways = {
        "whole": lambda x: sae(x),
        "bare": lambda x: sae.decode(sae.encode(x)),
        "edit": lambda x: x + ReconstructionOnly(sae).change(x),
    }
    for name, way in ways.items():
        with torch.no_grad(), model.hooked({point: way}):
            logits[name] = model.forward(tokens)
    torch.testing.assert_close(logits["bare"], logits["whole"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits["edit"], logits["whole"], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits["whole"], model.forward(tokens), atol=1e-2)


def test_a_centred_sae_is_judged_by_what_it_reads(tmp_path):
    sae = load_saelens(write(tmp_path))
    # A mean over dimensions that is large, and differs from row to row.
    x = (normal(200, D, seed=10) + 30 * normal(200, 1, seed=11)).float()
    batches = [(part, torch.full((len(part),), i)) for i, part in enumerate(x.chunk(8))]
    found = evaluate_reconstruction(sae, batches, x.mean(dim=0))
    read = x - means(x)
    error = read - sae.decode(sae.encode(x)).detach()
    expected = error.square().sum() / (read - read.mean(dim=0)).square().sum()
    assert found.fvu.value == pytest.approx(float(expected), rel=1e-4)


def test_a_centred_sae_is_read_and_spliced_in_as_any_other(tmp_path, model):
    point, tokens = HookPoint("1.resid_pre"), tokens_of()
    sae = load_saelens(write(tmp_path)).requires_grad_(False)
    is_text = torch.ones(tokens.shape[1], dtype=torch.bool)
    is_text[0] = False
    sums, rows, losses = {}, [], 0.0
    for row in tokens:
        found = SequenceReader(model, {point: sae}).read(row, is_text).layers[point]
        x = capture(model, row.unsqueeze(0), [point])[point][0]
        error = x - means(x) - sae.decode(sae.encode(x))
        expected = error.double().square().mean(dim=-1)
        torch.testing.assert_close(found.square_error, expected, atol=1e-5, rtol=1e-4)
        for name, value in found.sums.items():
            sums.setdefault(name, []).append(value.numpy())
        rows.append(torch.stack([x - means(x), error])[:, 1:])
        losses += float(
            Splicer(model, {point: sae}).losses(row, is_text)[1][point][RECONSTRUCTED].sum()
        )
        # The stream of those behind it has its mean.
        together = SequenceReader(model, {point: sae}, "reconstructed")
        seen = {}
        with model.hooked({HookPoint("1.resid_post"): lambda y, seen=seen: seen.update(y=y[0])}):
            together.read(row, is_text)
            spliced = seen["y"]
            with model.hooked({point: lambda y: torch.cat([y[:, :1], sae(y)[:, 1:]], dim=1)}):
                model.forward(row.unsqueeze(0))
        torch.testing.assert_close(spliced, seen["y"], atol=1e-5, rtol=1e-4)
    read, error = torch.cat(rows, dim=1).double()
    found = explained({name: np.stack(values) for name, values in sums.items()}, seed=0)
    unexplained = error.var(dim=0).sum() / read.var(dim=0).sum()
    assert found.explained_variance.value == pytest.approx(float(1 - unexplained), rel=1e-5)
    window = Window(tokens, torch.zeros_like(tokens), is_text.expand(len(tokens), -1))
    recovery = evaluate_recovery(model, point, sae, [window], torch.zeros(D))
    assert losses / (len(tokens) * (tokens.shape[1] - 1)) == pytest.approx(
        recovery.ce_sae, rel=1e-5
    )


SAID = "model_from_pretrained_kwargs"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (FLAT, True),
        (FLAT | {"model_name": "pythia-70m-deduped"}, True),
        (FLAT | {"model_name": "tiny-stories-1L-21M"}, True),
        (FLAT | RMS, False),
        (FLAT | {"model_name": "meta-llama/Llama-3.1-8B"}, False),
        (FLAT | {SAID: {}}, False),
        (FLAT | {SAID: {"center_writing_weights": False}}, False),
        (FLAT | {SAID: {"center_writing_weights": True}}, True),
        (FLAT | RMS | {SAID: {"center_writing_weights": True}}, False),
        (FLAT | {"hook_point": "hook_embed", "hook_point_layer": 0}, True),
        (nested(), False),
        (nested(model_from_pretrained_kwargs={"center_writing_weights": True}), True),
        (nested(model_name="a-folder"), False),
    ],
)
def test_whether_a_stream_was_centred_is_what_the_file_says_or_its_age(tmp_path, config, expected):
    assert saelens_facts(write(tmp_path, config) / "cfg.json").reads_centred == expected


def test_a_silent_file_of_an_unknown_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"model 'mine' and does not say .*\"center_writing_weig"):
        load_saelens(write(tmp_path, model_name="mine"))


# Scales and factors.


def test_a_scale_that_is_stored_is_folded_in(tmp_path):
    w, scale, x = weights("b_enc", "threshold"), 0.37, normal(300, D, seed=10)
    said = {"architecture": "jumprelu", "normalize_activations": "expected_average_only_in"}
    folder = write(tmp_path, nested(), w, **said)
    for wrong in (None, {"scaling_factor": None}, {"scaling_factor": 0}, []):
        if wrong is not None:
            (folder / "activation_scaler.json").write_text(json.dumps(wrong))
        with pytest.raises(ConfigError, match=r"expected_average_only_in.*positive number scaling"):
            load_saelens(folder)
    (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": scale}))
    sae = load_saelens(folder, dtype=torch.float64)
    latents, reconstruction = formula(scale * x, w, "jumprelu")
    check_is(sae, x, latents, reconstruction / scale)
    # What is folded already keeps no scale, whatever lies beside it.
    folded = load_saelens(
        write(tmp_path, nested(), w, architecture="jumprelu"), dtype=torch.float64
    )
    check_is(folded, x, *formula(x, w, "jumprelu"))


def test_factors_of_latents_belong_to_the_decoder(tmp_path):
    w, x = weights("b_enc", "scaling_factor"), normal(300, D, seed=10)
    folder = write(tmp_path, FLAT | RMS, w, finetuning_scaling_factor=True)
    sae = load_saelens(folder, dtype=torch.float64)
    latents, _ = formula(x, w, "standard")
    reconstruction = (latents * w["scaling_factor"]) @ w["W_dec"] + w["b_dec"]
    check_is(sae, x, latents, reconstruction)
    with pytest.raises(ConfigError, match=r"factors of its latents \(scaling_factor\)"):
        load_saelens(write(tmp_path, FLAT | RMS, w))
    ones = w | {"scaling_factor": torch.ones(S)}
    same = load_saelens(write(tmp_path, FLAT | RMS, ones), dtype=torch.float64)
    check_is(same, x, *formula(x, w, "standard"))
    without = {name: tensor for name, tensor in w.items() if name != "scaling_factor"}
    with pytest.raises(DamagedError, match="no finetuning_scaling_factor"):
        load_saelens(write(tmp_path, FLAT | RMS, without, finetuning_scaling_factor=True))


# What is refused.


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (FLAT | {"normalize_activations": "layer_norm"}, "normalize_activations='layer_norm'"),
        (nested(normalize_activations="constant_norm_rescale"), "'constant_norm_rescale'"),
        (nested(normalize_activations="covariance_whitening"), "'covariance_whitening'"),
        (FLAT | {"architecture": "matching_pursuit"}, "architecture 'matching_pursuit'"),
        (nested(architecture="transcoder"), "'transcoder'; those that are read are standard"),
        (FLAT | {"activation_fn_str": "tanh-relu"}, "activation_fn='tanh-relu'"),
        (nested(architecture="topk"), "whole number k from 1 on, and has None"),
        (FLAT | {"hook_point": "blocks.1.attn.hook_z"}, "is of 'blocks.1.attn.hook_z'"),
        (FLAT | {"hook_point": "blocks.1.hook_resid_mid"}, "hook_resid_mid', which is no stream"),
        (nested(hook_name="model.layers.1"), "Known are hook_embed, blocks.N.hook_resid_pre"),
        (nested(hook_head_index=3), "head 3, which is no stream"),
        (FLAT | {"hook_name_out": "blocks.1.hook_mlp_out"}, "of a transcoder"),
        (FLAT | {"d_in": None}, "whole number d_in from 1 on, and has None"),
        (FLAT | {"d_sae": "many"}, "whole number d_sae from 1 on, and has 'many'"),
    ],
)
def test_a_setting_that_means_another_formula_is_refused(tmp_path, config, said):
    folder = write(tmp_path, config)
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_saelens(folder)


def test_the_layer_is_said_once(tmp_path):
    with pytest.raises(MismatchError, match=r"blocks\.1\.hook_resid_pre .* hook_layer=2"):
        load_saelens(write(tmp_path, hook_point_layer=2))


def test_files_that_are_missing_or_damaged_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no .*cfg\.json, which says how"):
        load_saelens(tmp_path)
    folder = write(tmp_path / "a")
    (folder / "sae_weights.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"There is no .*sae_weights\.safetensors"):
        load_saelens(folder)
    (folder / "sae_weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(DamagedError, match="not a whole safetensors file"):
        load_saelens(folder)
    (folder / "cfg.json").write_text("{")
    with pytest.raises(DamagedError, match=r"cfg\.json is not JSON"):
        load_saelens(folder)
    (folder / "cfg.json").write_text("[1]")
    with pytest.raises(DamagedError, match=r"cfg\.json must hold settings by name, got list"):
        load_saelens(folder)


def test_weights_of_another_shape_are_named(tmp_path):
    w = weights("b_enc")
    w["W_enc"] = w["W_enc"].T
    with pytest.raises(DamagedError, match=r"W_enc has shape \(40, 16\), and should have \(16, 40"):
        load_saelens(write(tmp_path / "a", None, w))
    with pytest.raises(DamagedError, match="no tensor threshold; it has W_dec"):
        load_saelens(write(tmp_path / "b", architecture="jumprelu"))
    w = weights("b_enc")
    w["b_enc"][3] = np.nan
    with pytest.raises(NumericsError, match="b_enc has numbers that are not finite"):
        load_saelens(write(tmp_path / "c", None, w))
    with pytest.raises(ConfigError, match="k"):
        load_saelens(
            write(tmp_path / "d", nested(architecture="topk", k=S + 1), weights("b_enc", unit=True))
        )


@pytest.mark.parametrize(
    ("name", "point"),
    [
        ("blocks.11.hook_resid_post", "11.resid_post"),
        ("blocks.0.hook_mlp_out", "0.mlp_out"),
        ("blocks.3.hook_attn_out", "3.attn_out"),
        ("hook_embed", "0.embed"),
        ("blocks.1.ln1.hook_normalized", None),
        ("blocks.x.hook_resid_pre", None),
        ("blocksX1.hook_resid_pre", None),
    ],
)
def test_hook_names_are_read_as_transformer_lens_writes_them(name, point):
    assert saelens_point(name) == (None if point is None else HookPoint(point))


# Our own folders.


def own_sae(name, d_sae=S):
    kind = SAES.load(name)
    sized = {"k": K} if "topk" in name else {"target_l0": K} if name == "jumprelu" else {}
    sae = kind(kind.config_type(d_model=D, d_sae=d_sae, **sized), seed=3)
    rows = normal(400, D, seed=12).float()
    with torch.no_grad():
        sae.b_dec.copy_(rows[0] / 3)
        sae.b_enc.copy_(normal(d_sae, seed=13) / 10)
    sae.start(rows)
    return sae.eval()


@pytest.mark.parametrize("name", sorted(SAES))
def test_a_folder_of_ours_is_the_same_sae_without_its_sidecar(tmp_path, name):
    sae, x = own_sae(name), normal(300, D, seed=10).float()
    save_sae(sae, tmp_path, HookPoint("3.mlp_out"), {"model": {"id": "mine"}})
    (tmp_path / SIDECAR).unlink()
    loaded = load_saelens(tmp_path)
    latents = sae.sparse_encode(x).dense() if name == "batch_topk" else sae.encode(x)
    torch.testing.assert_close(loaded.encode(x), sae.encode(x), atol=1e-5, rtol=1e-5)
    assert (latents > 0).any()
    torch.testing.assert_close(loaded(x), sae(x), atol=1e-5, rtol=1e-5)
    assert loaded.hook_point == HookPoint("3.mlp_out")
    assert not loaded.reads_centred


def test_an_sae_of_a_centred_stream_stays_one_in_our_own_format(tmp_path):
    sae = load_saelens(write(tmp_path / "theirs"))
    save_sae(sae, tmp_path / "ours", sae.hook_point)
    x = normal(300, D, seed=10).float() + 2
    ours = load_sae(tmp_path / "ours")
    assert torch.equal(ours(x), sae(x))
    assert ours.reads_centred
    (tmp_path / "ours" / SIDECAR).unlink()
    bare = load_saelens(tmp_path / "ours")
    assert bare.reads_centred
    torch.testing.assert_close(bare(x), sae(x), atol=1e-5, rtol=1e-5)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["flat", "nested"])
@pytest.mark.parametrize("kind", sorted(NAMES))
def test_saelens_itself_computes_the_same(tmp_path, kind, form):
    sae_lens = pytest.importorskip("sae_lens", reason="needs the interop extra")
    w = {
        name: tensor.float() for name, tensor in weights(*NAMES[kind], unit=kind == "topk").items()
    }
    said = {"architecture": kind}
    if kind == "topk":
        said |= {"k": K} if form == "nested" else OLD_TOPK
    folder = write(tmp_path, nested() if form == "nested" else FLAT | {"hook_layer": 1}, w, **said)
    theirs, ours = sae_lens.SAE.load_from_disk(str(folder)), load_saelens(folder)
    assert ours.reads_centred == (form == "flat")
    x = normal(300, D, seed=10).float()
    seen = ours.part_read(x)
    latents = theirs.encode(seen) * ours.release_scale
    torch.testing.assert_close(ours.encode(x), latents, atol=1e-5, rtol=1e-5)
    expected = theirs(seen) + (x - seen)
    torch.testing.assert_close(ours(x), expected, atol=1e-5, rtol=1e-5)
