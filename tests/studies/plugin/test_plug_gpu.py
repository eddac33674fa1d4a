"""On a GPU: the same classifier, a training that goes on as it was, and a layer left alone.

In bfloat16 passes, which is what a run takes there by itself, as well as in float32.
"""

import pytest
import torch
from plug_toys import toy_classifier, toy_config, toy_side

from fluoroscope.core.tensors import read_state, write_state
from fluoroscope.models.single_layer.one_token import one_token_layer
from fluoroscope.models.single_layer.whole import whole_layer
from fluoroscope.studies.plugin.form import VARIANTS, Form
from fluoroscope.studies.plugin.predicting import predict
from fluoroscope.studies.plugin.training import PlugTrainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
GPU = "cuda:0"


@pytest.fixture(autouse=True)
def one_order(monkeypatch):
    """What is added up is added in one order."""
    # Without it cuBLAS refuses to be deterministic.
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def plugged(llama_layer, form=None):
    return toy_classifier(form=form or Form(), layer=llama_layer)


def trainer(llama_layer, precision, form=None):
    return PlugTrainer(
        plugged(llama_layer, form),
        {"train": toy_side(28), "validation": toy_side(20, 1)},
        toy_config(precision=precision),
        epochs=2,
        seed=1,
        device=GPU,
    )


def one_in_the_middle(whole, again, tmp_path):
    """`whole` and what `again` becomes when it takes up `whole`'s state within an epoch."""
    for step in range(whole.n_iterations):
        whole.advance(step)
        if step == 4:
            write_state(tmp_path / "state", whole.state())
    again.load(read_state(tmp_path / "state"))
    return whole.result(), again.train()


@pytest.mark.parametrize("name", [*VARIANTS])
def test_logits_are_those_of_the_cpu(name, llama_layer):
    classifier, side = plugged(llama_layer, VARIANTS[name]), toy_side(40)
    how = {"batch_size": 16, "precision": "float32"}
    on_cpu = predict(classifier, side, device="cpu", **how)
    on_gpu = predict(classifier, side, device=GPU, **how)
    assert on_gpu.device.type == "cpu"
    torch.testing.assert_close(on_gpu, on_cpu, atol=1e-4, rtol=1e-4)


def test_half_precision_keeps_the_logits_to_its_own_digits(llama_layer):
    classifier, side = plugged(llama_layer), toy_side(40)
    exact, half = (
        predict(classifier, side, batch_size=16, device=GPU, precision=precision)
        for precision in ("float32", "bfloat16")
    )
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    assert (half - exact).abs().max() < 0.05 * exact.abs().max()


def test_the_fused_layer_is_the_real_one_there_too(llama_layer):
    fused, whole = one_token_layer(llama_layer).to(GPU), whole_layer(llama_layer).to(GPU)
    x = torch.randn(9, 16, generator=torch.Generator().manual_seed(0)).to(GPU)
    mask = torch.ones(9, 1, dtype=torch.int64, device=GPU)
    torch.testing.assert_close(fused(x), whole(x[:, None], mask)[:, 0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_put_down_within_an_epoch_goes_on_bit_for_bit(precision, llama_layer, tmp_path):
    whole, again = one_in_the_middle(
        trainer(llama_layer, precision), trainer(llama_layer, precision), tmp_path
    )
    assert whole[1:] == again[1:]
    assert all(torch.equal(whole.tensors[name], again.tensors[name]) for name in whole.tensors)
    assert {tensor.device.type for tensor in whole.tensors.values()} == {"cpu"}


@pytest.mark.parametrize("reads", ["token", "sequence"])
def test_a_layer_stays_frozen_in_half_precision_while_gradients_pass_it(reads, llama_layer):
    one = trainer(llama_layer, "bfloat16", Form(reads=reads))
    plug = one.classifier.plug
    assert plug is not None
    frozen, into = plug.frozen_hash(), plug.into.weight.detach().clone()
    one.train()
    assert plug.frozen_hash() == frozen
    assert not torch.equal(plug.into.weight, into)
    assert plug.into.weight.dtype == torch.float32


def test_dropout_leaves_the_streams_of_the_device_where_they_were(llama_layer):
    before = torch.cuda.get_rng_state(GPU)
    trainer(llama_layer, "float32").train()
    assert torch.equal(torch.cuda.get_rng_state(GPU), before)


def test_a_separable_problem_is_learnt_in_half_precision():
    found = PlugTrainer(
        toy_classifier(),
        {"train": toy_side(96), "validation": toy_side(60, 1)},
        toy_config(precision="bfloat16"),
        epochs=12,
        seed=1,
        device=GPU,
    ).train()
    assert max(row["validation_accuracy"] for row in found.curve) > 0.95
