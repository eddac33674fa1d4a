"""What baselines are beyond the laws of all reasoners, which `test_reasoner_laws` has of them."""

import pytest
import torch
from tiny_reasoners import SIZES, some_answers, some_texts, tiny_baseline
from torch.nn import functional

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError, ModelError
from fluoroscope.studies.connection.baselines.baseline_config import (
    LoopedConfig,
    PerceiverConfig,
    TransformerConfig,
)
from fluoroscope.studies.connection.baselines.new_baseline import new_baseline
from fluoroscope.studies.connection.reasoners import count_parameters

KINDS = [TransformerConfig, PerceiverConfig, LoopedConfig]
REPEATING = [PerceiverConfig, LoopedConfig]
CLOSE = {"atol": 1e-12, "rtol": 1e-12}


def logits_of(reasoner, n_steps=None):
    return reasoner.logits(reasoner.think(*some_texts(), n_steps), some_answers())


def test_the_published_transformer_has_the_published_count():
    config = TransformerConfig(
        vocab_size=32000, d_model=768, max_source=256, max_target=256, final_norm=False
    )
    counts = count_parameters(config)
    assert counts.total == 173_360_640
    # Two tables of tokens, two of places, and the map to the vocabulary.
    assert counts.vocabulary == 768 * (3 * 32000 + 2 * 256)
    assert counts.non_embedding == 6 * (12 * 768**2 + 13 * 768) + 6 * (16 * 768**2 + 19 * 768) + (
        2 * 768
    )


def test_a_transformer_is_what_torch_makes_of_its_encoder_weights():
    reasoner = tiny_baseline(TransformerConfig, n_encoder_layers=1).double()
    d, block = SIZES["d_model"], reasoner.blocks[0]
    torchs = torch.nn.TransformerEncoderLayer(
        d, 2, 12, 0.0, functional.gelu, batch_first=True, norm_first=True, dtype=torch.float64
    ).eval()
    attention = block.attention
    projections = (attention.query, attention.key, attention.value)
    for kind in ("weight", "bias"):
        joined = torch.cat([getattr(each, kind) for each in projections])
        getattr(torchs.self_attn, f"in_proj_{kind}").data = joined
        getattr(torchs.self_attn.out_proj, kind).data = getattr(attention.out, kind)
        getattr(torchs.norm1, kind).data = getattr(block.attention_norm, kind)
        getattr(torchs.norm2, kind).data = getattr(block.hidden_norm, kind)
        getattr(torchs.linear1, kind).data = getattr(block.hidden[0], kind)
        getattr(torchs.linear2, kind).data = getattr(block.hidden[3], kind)
    ids, mask = some_texts()
    with torch.no_grad():
        expected = reasoner.norm(torchs(reasoner.source(ids), src_key_padding_mask=~mask))
        found = reasoner.think(ids, mask).states[-1]
    torch.testing.assert_close(found[mask], expected[mask], atol=1e-9, rtol=1e-9)


def test_a_transformer_says_that_it_repeats_nothing():
    reasoner = tiny_baseline(TransformerConfig)
    expected = logits_of(reasoner)
    for nothing in (0, torch.zeros(6, dtype=torch.int64)):
        assert torch.equal(logits_of(reasoner, nothing), expected)
    for wanted in (2, torch.tensor([0, 0, 1, 0, 0, 0])):
        with pytest.raises(ModelError, match="repeats nothing"):
            logits_of(reasoner, wanted)


def test_a_looped_transformer_adds_the_text_before_every_step_and_norms_behind():
    reasoner = tiny_baseline(LoopedConfig, n_layers=2, max_steps=3).double()
    ids, mask = some_texts()
    with torch.no_grad():
        text = reasoner.text_norm(reasoner.source(ids))
        states = text
        for _ in range(3):
            states = reasoner.norm(
                reasoner.blocks[1](reasoner.blocks[0](states + text, mask), mask)
            )
        found = reasoner.think(ids, mask).states[-1]
    torch.testing.assert_close(found, states, **CLOSE)


@pytest.mark.parametrize("every_step", [False, True])
def test_latents_read_the_text_once_or_before_every_step(every_step):
    reasoner = tiny_baseline(PerceiverConfig, max_steps=3, every_step=every_step)
    reads = []
    reasoner.reading.register_forward_hook(lambda *_: reads.append(1))
    reasoner.think(*some_texts())
    assert len(reads) == 1 + 3 * every_step


@pytest.mark.parametrize("kind", REPEATING)
def test_steps_share_their_weights_so_that_more_can_be_done_than_were_trained(kind):
    few, many = (tiny_baseline(kind, max_steps=n).double() for n in (2, 6))
    assert [p.shape for p in few.parameters()] == [p.shape for p in many.parameters()]
    few.load_state_dict(many.state_dict())
    torch.testing.assert_close(logits_of(few, 6), logits_of(many), **CLOSE)
    assert not torch.allclose(logits_of(few), logits_of(many))
    assert few.think(*some_texts()).n_steps.tolist() == [2] * 6


@pytest.mark.parametrize("kind", REPEATING)
def test_steps_that_are_done_twice_give_the_same_gradients(kind):
    gradients = []
    for checkpoints in (False, True):
        reasoner = tiny_baseline(kind, max_steps=3).double().train()
        reasoner.checkpoints_steps = checkpoints
        logits_of(reasoner).square().sum().backward()
        gradients.append([parameter.grad for parameter in reasoner.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.parametrize("kind", REPEATING)
def test_steps_that_cannot_be_are_named(kind):
    reasoner = tiny_baseline(kind, max_steps=3)
    with pytest.raises(ModelError, match="0 or more, got -1"):
        logits_of(reasoner, -1)
    with pytest.raises(ModelError, match="0 or more, got -2"):
        logits_of(reasoner, torch.tensor([0, 1, -2, 0, 0, 0]))
    with pytest.raises(ModelError, match="0 to 3 steps, not after 4"):
        reasoner.logits(reasoner.think(*some_texts()), some_answers(), after=4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns_and_padding_stays_zero(kind):
    reasoner = tiny_baseline(kind).train()
    logits_of(reasoner).square().sum().backward()
    without = {name for name, each in reasoner.named_parameters() if not each.grad.any()}
    # A number that is added to all scores of a query changes no softmax.
    assert all(name.endswith("key.bias") for name in without)
    for embedding in (reasoner.source, reasoner.decoder.embedding):
        assert not embedding.tokens.weight[0].any()
        assert not embedding.tokens.weight.grad[0].any()


@pytest.mark.parametrize("kind", KINDS)
def test_first_weights_follow_the_seed_and_leave_torchs_generator_alone(kind):
    config = build(kind, {**SIZES, "n_heads": 2, "n_decoder_layers": 1})
    before = torch.random.get_rng_state()
    one, again, other = (new_baseline(config, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["source.tokens.weight"], other["source.tokens.weight"])
    assert not torch.equal(one["blocks.0.hidden.0.weight"], other["blocks.0.hidden.0.weight"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_width_that_heads_cannot_share_is_refused(kind):
    with pytest.raises(ConfigError, match="multiple of n_heads, got 8 and 3"):
        build(kind, {"d_model": 8, "n_heads": 3})
