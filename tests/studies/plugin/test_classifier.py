import copy

import pytest
import torch
from torch.nn import functional

from fluoroscope.core.errors import ConfigError, MismatchError, ModelError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.data.labelled.encoding import Batch
from fluoroscope.models.encoders import encoder_from
from fluoroscope.models.identity import hash_tensors
from fluoroscope.models.tiny import tiny_model
from fluoroscope.studies.plugin.classifier import PlugClassifier
from fluoroscope.studies.plugin.form import VARIANTS, Form
from fluoroscope.studies.plugin.plugs import make_plug

POOLINGS = ["cls", "masked_mean", "last"]


def classifier_of(encoder, form=None, layer=None, pooling="cls", n_classes=3, seed=0):
    plug = form and make_plug(form, encoder.d_model, layer, 16, seed, 2.0)
    return PlugClassifier(encoder, form, pooling, plug, n_classes, 0.1, seed)


def train_steps(classifier, batch, n_steps=3):
    classifier.train()
    learning = [each for each in classifier.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(learning, 0.01)
    for _ in range(n_steps):
        optimiser.zero_grad()
        functional.cross_entropy(classifier(batch), batch.labels).backward()
        optimiser.step()
    classifier.eval()


def test_without_a_plug_it_is_a_plain_classifier(bert, pairs):
    classifier = classifier_of(bert)
    tokens, mask, segments, _ = pairs
    hidden = bert.network(tokens, mask, segments).last_hidden_state
    first, dropout, _gelu, second = classifier.head
    p = hidden[:, 0] @ first.weight.T + first.bias
    expected = functional.gelu(p) @ second.weight.T + second.bias
    torch.testing.assert_close(classifier(pairs), expected)
    assert classifier(pairs).shape == (3, 3)
    assert dropout.p == 0.1


def test_dropout_of_the_head_is_before_its_gelu(bert):
    """A unit that is dropped before the GELU is 0 behind it, as one dropped after it is; one that
    is kept is scaled before, so what the GELU gives is not the scaled value of evaluation.
    """
    head = classifier_of(bert).head
    head[1].p = 0.5
    seen = []
    head[3].register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    x = torch.randn(4, 12, generator=torch_stream(0, "x"))
    head.train()
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        head(x)
    before = head[0](x)
    kept = seen[0] != 0
    assert kept.any()
    assert not kept.all()
    torch.testing.assert_close(seen[0][kept], functional.gelu(2 * before)[kept])


def test_a_head_is_initialised_as_the_librarys_and_by_the_seed_alone(bert):
    before = torch.random.get_rng_state()
    first, second = classifier_of(bert), classifier_of(bert)
    assert torch.equal(torch.random.get_rng_state(), before)
    for a, b, c in zip(
        first.head.parameters(),
        second.head.parameters(),
        classifier_of(bert, seed=1).head.parameters(),
        strict=True,
    ):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert 0.1 * 12**-0.5 < a.abs().max() <= 12**-0.5
    square = classifier_of(bert, n_classes=12).head
    assert not torch.equal(square[0].weight, square[3].weight)


def test_with_and_without_a_plug_heads_start_the_same(bert, llama_layer):
    base = classifier_of(bert)
    plugged = classifier_of(bert, Form(), llama_layer)
    assert torch.equal(base.head[0].weight, plugged.head[0].weight)
    assert torch.equal(base.head[3].weight, plugged.head[3].weight)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_residual_plug_starts_as_the_base_classifier(bert, llama_layer, pairs, pooling):
    base = classifier_of(bert, pooling=pooling)
    plugged = classifier_of(bert, VARIANTS["residual"], llama_layer, pooling)
    assert torch.equal(plugged(pairs), base(pairs))


def test_a_plug_stands_between_pooling_and_head(bert, llama_layer, pairs):
    classifier = classifier_of(bert, Form(), llama_layer, "masked_mean")
    hidden = bert(*pairs[:3])
    means = torch.stack(
        [row[kept.bool()].mean(0) for row, kept in zip(hidden, pairs.attention_mask, strict=True)]
    )
    torch.testing.assert_close(classifier(pairs), classifier.head(classifier.plug(means)))


def test_a_plug_of_sequences_stands_between_encoder_and_pooling(bert, llama_layer, pairs):
    classifier = classifier_of(bert, VARIANTS["sequence"], llama_layer, "last")
    z = classifier.plug(bert(*pairs[:3]), pairs.attention_mask)
    ends = pairs.attention_mask.sum(1) - 1
    torch.testing.assert_close(classifier(pairs), classifier.head(z[torch.arange(3), ends]))


def test_segments_of_a_pair_reach_the_encoder(bert, pairs):
    classifier = classifier_of(bert)
    without = pairs._replace(segments=torch.zeros_like(pairs.segments))
    assert not torch.allclose(classifier(pairs), classifier(without))
    assert torch.equal(classifier(pairs._replace(segments=None)), classifier(without))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("variant", [None, "faithful", "residual", "rms", "sequence"])
def test_batch_mates_and_padding_never_change_a_row(bert, llama_layer, pairs, pooling, variant):
    form = VARIANTS[variant] if variant else None
    classifier = classifier_of(bert, form, llama_layer, pooling).double()
    if variant == "residual":
        classifier.plug.gate.data.fill_(0.5)
    logits = classifier(pairs)
    assert logits.std() > 1e-3
    order = torch.tensor([2, 0, 1])
    turned = Batch(*(part[order] for part in pairs))
    torch.testing.assert_close(classifier(turned), logits[order], rtol=0, atol=1e-9)
    alone = Batch(*(part[1:2, :5] for part in pairs[:3]), pairs.labels[1:2])
    torch.testing.assert_close(classifier(alone)[0], logits[1], rtol=0, atol=1e-9)
    for filler in (0, 9):
        wider = Batch(
            *(
                functional.pad(part, (0, 4), value=value)
                for part, value in zip(pairs[:3], (filler, 0, 0), strict=True)
            ),
            pairs.labels,
        )
        torch.testing.assert_close(classifier(wider), logits, rtol=0, atol=1e-9)


def test_plain_means_depend_on_padding_as_they_say(bert, pairs):
    classifier = classifier_of(bert, pooling="mean")
    wider = Batch(*(functional.pad(part, (0, 4)) for part in pairs[:3]), pairs.labels)
    assert not torch.allclose(classifier(wider), classifier(pairs))


@pytest.mark.parametrize("variant", ["faithful", "residual", "rms", "sequence", "lora"])
def test_training_leaves_the_layer_as_it_was_bit_for_bit(bert, llama_layer, pairs, variant):
    if variant == "lora":
        pytest.importorskip("peft")
    shared = hash_tensors(llama_layer.tensors)
    classifier = classifier_of(bert, VARIANTS[variant], llama_layer)
    before, started = classifier.frozen_hash(), classifier.trained_tensors()
    train_steps(classifier, pairs)
    assert classifier.frozen_hash() == before is not None
    assert hash_tensors(llama_layer.tensors) == shared
    learnt = classifier.trained_tensors()
    unmoved = [name for name in learnt if torch.equal(learnt[name], started[name])]
    # Keys share a bias, which moves no softmax.
    assert [name for name in unmoved if "key.bias" not in name] == []
    frozen = {f"plug.middle.layer.{name}" for name in classifier.plug.frozen_tensors()}
    assert frozen
    assert not frozen & set(learnt)


def test_gradients_pass_through_the_layer(bert, llama_layer, pairs):
    classifier = classifier_of(bert, Form(), llama_layer)
    classifier(pairs).square().sum().backward()
    for parameter in (classifier.plug.into.weight, *bert.network.embeddings.parameters()):
        assert parameter.grad.abs().max() > 0
    assert all(each.grad is None for each in classifier.plug.middle.layer.parameters())


@pytest.mark.parametrize("variant", [None, "residual", "lora", "unfrozen"])
def test_trained_tensors_put_back_give_the_same_logits(bert, llama_layer, pairs, variant):
    if variant == "lora":
        pytest.importorskip("peft")
    form = VARIANTS[variant] if variant else None
    fresh = classifier_of(copy.deepcopy(bert), form, llama_layer, seed=5)
    classifier = classifier_of(bert, form, llama_layer)
    train_steps(classifier, pairs)
    tensors = classifier.trained_tensors()
    logits = classifier(pairs)
    train_steps(classifier, pairs, 1)
    assert not torch.allclose(classifier(pairs), logits)
    fresh.load_trained(tensors)
    torch.testing.assert_close(fresh(pairs), logits)


def test_tensors_of_another_classifier_are_refused(bert, llama_layer):
    base, plugged = classifier_of(bert), classifier_of(bert, Form(), llama_layer)
    before = plugged.trained_tensors()
    with pytest.raises(MismatchError, match=r"2 of its names.*plug\.into\.weight"):
        plugged.load_trained(base.trained_tensors())
    with pytest.raises(MismatchError, match=r"head\.3\.bias"):
        plugged.load_trained(
            classifier_of(bert, Form(), llama_layer, n_classes=4).trained_tensors()
        )
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in plugged.trained_tensors().items()
    )


@pytest.mark.parametrize("variant", ["residual", "lora", "unfrozen"])
def test_groups_part_what_was_pretrained_from_what_is_new(bert, llama_layer, variant):
    if variant == "lora":
        pytest.importorskip("peft")
    classifier = classifier_of(bert, VARIANTS[variant], llama_layer)
    groups = {
        group: {name for name, _ in members}
        for group, members in classifier.parameter_groups().items()
    }
    assert groups["encoder"] | groups["new"] == set(classifier.trained_tensors())
    assert not groups["encoder"] & groups["new"]
    new = {name for name in groups["new"] if "lora_" not in name}
    maps = {"plug.into.weight", "plug.out_of.weight"} | ({"plug.gate"} & new)
    assert new == maps | {f"head.{i}.{kind}" for i in (0, 3) for kind in ("weight", "bias")}
    layers = {name for name in groups["encoder"] if not name.startswith("encoder.")}
    assert bool(layers) == (variant == "unfrozen")


def test_a_decoder_is_read_at_its_last_token_and_never_at_its_first(llama_layer):
    model = tiny_model("llama")
    encoder = encoder_from(model.network, model.tokenizer, "tiny-llama")
    with pytest.raises(ModelError, match="is a decoder"):
        classifier_of(encoder)
    classifier = classifier_of(encoder, Form(), llama_layer, "last")
    tokens = torch.tensor([[1, 50, 60, 70], [1, 50, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    batch = Batch(tokens, mask, None, torch.tensor([0, 1]))
    short = Batch(tokens[1:, :2], mask[1:, :2], None, batch.labels[1:])
    torch.testing.assert_close(classifier(batch)[1], classifier(short)[0])


@pytest.mark.parametrize("variant", [None, *VARIANTS])
def test_every_variant_trains_under_bfloat16(bert, llama_layer, pairs, variant):
    if variant == "lora":
        pytest.importorskip("peft")
    form = VARIANTS[variant] if variant else None
    classifier = classifier_of(bert, form, llama_layer)
    exact = classifier(pairs)
    with torch.autocast("cpu", torch.bfloat16):
        logits = classifier(pairs)
        functional.cross_entropy(logits, pairs.labels).backward()
    assert (logits.float() - exact).abs().max() < 0.1 * exact.abs().max()
    for _, parameter in classifier.parameter_groups()["encoder"]:
        assert parameter.grad.isfinite().all()


def test_what_cannot_be_a_classifier_is_refused(bert, llama_layer):
    with pytest.raises(ConfigError, match="at least 2 classes, got 1"):
        classifier_of(bert, n_classes=1)
    plug = make_plug(Form(), 12, llama_layer, 16, 0, None)
    with pytest.raises(ConfigError, match="form of a classifier is that of its plug"):
        PlugClassifier(bert, VARIANTS["residual"], "cls", plug, 2, 0.1, 0)
