import sys
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.models.identity import hash_tensors
from fluoroscope.models.single_layer.one_token import one_token_layer
from fluoroscope.models.single_layer.whole import whole_layer
from fluoroscope.studies.plugin.form import CONTROLS, VARIANTS, Form, control_of
from fluoroscope.studies.plugin.plugs import make_plug, rms_matched

D, WIDE = 12, 16
P = torch.randn(5, D, generator=torch_stream(0, "p"))
H = torch.randn(2, 4, D, generator=torch_stream(0, "h"))
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
LEARN = ["into.weight", "out_of.weight"]


def plug_of(form, layer=None, seed=0, target_rms=None):
    return make_plug(form, D, layer, WIDE, seed, target_rms)


def learning(plug):
    return [name for name, parameter in plug.named_parameters() if parameter.requires_grad]


def with_open_gate(plug):
    with torch.no_grad():
        plug.gate.fill_(0.5)
    return plug


def test_a_faithful_plug_is_up_through_the_layer_and_down(llama_layer):
    plug = plug_of(Form(), llama_layer)
    z = one_token_layer(llama_layer)(P @ plug.into.weight.T)
    torch.testing.assert_close(plug(P), z @ plug.out_of.weight.T)
    assert learning(plug) == LEARN
    assert plug.identity == llama_layer.identity


def test_the_layer_in_a_plug_is_that_of_the_library(llama_layer):
    """Also a guard against reading row 0 of a batch where a layer returns its states alone."""
    plug = plug_of(Form(), llama_layer)
    ones = torch.ones(5, 1, dtype=torch.int64)
    z = whole_layer(llama_layer)((P @ plug.into.weight.T)[:, None], ones)[:, 0]
    torch.testing.assert_close(plug(P), z @ plug.out_of.weight.T, rtol=1e-5, atol=1e-5)
    assert plug(P).shape == (5, D)


def test_a_residual_plug_starts_as_nothing_and_learns_its_gate_first(llama_layer):
    plug = plug_of(VARIANTS["residual"], llama_layer)
    assert torch.equal(plug(P), P)
    assert learning(plug) == ["gate", *LEARN]
    plug(P).square().sum().backward()
    assert plug.gate.grad != 0
    faithful = plug_of(Form(), llama_layer)
    torch.testing.assert_close(with_open_gate(plug)(P), P + 0.5 * faithful(P))


def test_an_rms_matched_layer_reads_vectors_of_the_target(llama_layer):
    plug = plug_of(VARIANTS["rms"], llama_layer, target_rms=3.5)
    seen = []
    plug.middle.layer.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    plug(P)
    torch.testing.assert_close(seen[0].square().mean(-1).sqrt(), torch.full((5,), 3.5))
    u = P @ plug.into.weight.T
    cosines = functional.cosine_similarity(seen[0], u)
    torch.testing.assert_close(cosines, torch.ones(5))
    with pytest.raises(ConfigError, match=r"target_rms above 0.*got None"):
        plug_of(VARIANTS["rms"], llama_layer)


def test_a_vector_of_zeros_has_no_scale_to_match_and_a_finite_gradient():
    u = torch.zeros(2, 3, requires_grad=True)
    matched = rms_matched(u, 2.0)
    matched.sum().backward()
    assert matched.tolist() == [[0.0] * 3] * 2
    assert u.grad is not None
    assert u.grad.isfinite().all()


def test_a_plug_of_sequences_sees_what_is_before_and_no_padding(llama_layer):
    plug = plug_of(VARIANTS["sequence"], llama_layer).double()
    hidden = H.double()
    out = plug(hidden, MASK)
    torch.testing.assert_close(plug(hidden[1:, :2], MASK[1:, :2])[0], out[1, :2])
    for row, at, reaches in [(0, 1, True), (0, 3, False), (1, 3, False)]:
        changed = hidden.clone()
        changed[row, at] += 1
        moved = (plug(changed, MASK) - out).abs().amax(-1)
        assert bool(moved[row, 2] > 1e-6) == reaches
        assert moved[1 - row].max() == 0


def test_a_plug_of_sequences_goes_by_the_mask_wherever_padding_is(llama_layer):
    plug = plug_of(VARIANTS["sequence"], llama_layer)
    mask = torch.tensor([[1, 0, 1, 1]])
    changed = H[:1].clone()
    changed[0, 1] += 1
    kept = mask[0].bool()
    assert torch.equal(plug(changed, mask)[0, kept], plug(H[:1], mask)[0, kept])


def test_order_matters_to_a_plug_of_sequences(llama_layer):
    plug = plug_of(VARIANTS["sequence"], llama_layer)
    ones = torch.ones(1, 4, dtype=torch.int64)
    swapped = H[:1, [1, 0, 2, 3]]
    assert not torch.allclose(plug(swapped, ones)[0, 3], plug(H[:1], ones)[0, 3])


def test_controls_without_a_layer_have_its_maps_and_no_more(llama_layer):
    faithful = plug_of(Form(), llama_layer)
    u = P @ faithful.into.weight.T
    for control, between in (("linear", u), ("mlp", functional.gelu(u))):
        plug = plug_of(control_of(VARIANTS["lora"], control))
        torch.testing.assert_close(plug(P), between @ faithful.out_of.weight.T)
        assert learning(plug) == LEARN
        assert plug.identity is None
        assert plug.frozen_hash() is None


@pytest.mark.parametrize("middle", ["random", "permuted"])
def test_stand_ins_have_the_layers_shapes_and_other_entries(llama_layer, middle):
    before = hash_tensors(llama_layer.tensors)
    plug, again, other = (plug_of(Form(middle=middle), llama_layer, seed) for seed in (0, 0, 1))
    real = plug_of(Form(), llama_layer)
    shapes = [
        {name: tensor.shape for name, tensor in each.frozen_tensors().items()}
        for each in (plug, real)
    ]
    assert shapes[0] == shapes[1]
    assert not torch.allclose(plug(P), real(P))
    assert torch.equal(plug(P), again(P))
    assert plug.frozen_hash() != other.frozen_hash()
    assert plug.identity.made_from is not None
    assert plug.identity != llama_layer.identity
    assert hash_tensors(llama_layer.tensors) == before


@pytest.mark.parametrize("reads", ["token", "sequence"])
def test_low_rank_changes_begin_at_none_and_learn_alone(llama_layer, reads):
    pytest.importorskip("peft")
    form = Form(tuning="lora", reads=reads)
    plug, plain = (plug_of(each, llama_layer) for each in (form, replace(form, tuning="frozen")))
    given = (P,) if reads == "token" else (H, MASK)
    torch.testing.assert_close(plug(*given), plain(*given))
    new = [name for name in learning(plug) if name not in LEARN]
    assert new
    assert all("lora_" in name for name in new)
    n_matrices = 5 if reads == "token" else 7
    assert len(new) == 2 * n_matrices
    assert {min(plug.get_parameter(name).shape) for name in new} == {8}
    before = plug.frozen_hash()
    optimiser = torch.optim.SGD([plug.get_parameter(name) for name in new], 0.1)
    for _ in range(2):
        optimiser.zero_grad()
        plug(*given).square().sum().backward()
        optimiser.step()
    assert not torch.allclose(plug(*given), plain(*given))
    assert plug.frozen_hash() == before


def test_low_rank_changes_leave_the_global_generator_alone_and_follow_the_seed(llama_layer):
    pytest.importorskip("peft")
    before = torch.random.get_rng_state()
    first, again, other = (plug_of(Form(tuning="lora"), llama_layer, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    a, b, c = (
        {name: each.get_parameter(name) for name in learning(each) if "lora_A" in name}
        for each in (first, again, other)
    )
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not any(torch.equal(a[name], c[name]) for name in a)


def test_low_rank_changes_without_peft_name_the_package(llama_layer, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install fluoroscope\[lora\]"):
        plug_of(Form(tuning="lora"), llama_layer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_unfrozen_layer_learns_in_float32_and_is_no_ones_but_the_plugs(llama_layer, dtype):
    shared = {name: tensor.to(dtype) for name, tensor in llama_layer.tensors.items()}
    layer = replace(llama_layer, tensors=shared)
    before = hash_tensors(shared)
    plug = plug_of(Form(tuning="unfrozen"), layer)
    parameters = dict(plug.middle.layer.named_parameters())
    assert {parameter.dtype for parameter in parameters.values()} == {torch.float32}
    plug(P).square().sum().backward()
    assert [name for name, each in parameters.items() if each.grad is None] == []
    torch.optim.SGD(plug.parameters(), 0.1).step()
    assert hash_tensors(shared) == before
    assert plug.frozen_hash() is None


def test_maps_are_initialised_as_the_librarys_linear_maps_are(llama_layer):
    before = torch.random.get_rng_state()
    plug = make_plug(Form(middle="linear"), 400, None, 100, 0, None)
    assert torch.equal(torch.random.get_rng_state(), before)
    for linear, d_in in ((plug.into, 400), (plug.out_of, 100)):
        assert linear.bias is None
        bound = d_in**-0.5
        assert bound * 0.999 < linear.weight.abs().max() <= bound
        torch.testing.assert_close(
            linear.weight.std(), torch.tensor(bound / 3**0.5), rtol=0.02, atol=0
        )
    assert not torch.equal(plug.into.weight.T, plug.out_of.weight)


def test_a_layer_is_needed_and_must_be_as_wide_as_said(llama_layer):
    with pytest.raises(ConfigError, match="middle=permuted needs the tensors of a layer"):
        plug_of(Form(middle="permuted"))
    with pytest.raises(ConfigError, match="vectors of 16 entries, not d_layer=24"):
        make_plug(Form(), D, llama_layer, 24, 0, None)


def test_every_form_gives_vectors_of_the_encoders_width_under_bfloat16(llama_layer):
    pytest.importorskip("peft")
    forms = [*VARIANTS.values(), *(control_of(Form(), control) for control in CONTROLS)]
    for form in forms:
        plug = plug_of(form, llama_layer, target_rms=2.0)
        given = (P,) if form.reads == "token" else (H, MASK)
        exact = plug(*given)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = plug(*given)
        assert rounded.shape == exact.shape
        assert (rounded.float() - exact).abs().max() < 0.05 * exact.abs().max()
