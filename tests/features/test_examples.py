import pytest
import torch

from fluoroscope.core.errors import ModelError
from fluoroscope.features.examples import (
    LatentBatch,
    logit_effects,
    prominent_latents,
    top_contexts,
    unembedded,
)
from fluoroscope.models.tiny import tiny_model
from fluoroscope.sae.topk import TopK, TopKConfig

D = 6


def batches(n=5, length=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for i in range(n):
        activation = torch.randn(4, length, D, generator=generator)
        tokens = torch.arange(4 * length).view(4, length) + 100 * i
        document = (torch.arange(4) + 2 * i).unsqueeze(1).expand(4, length)
        encoded = torch.ones(4, length, dtype=torch.bool)
        encoded[:, 0] = False
        yield LatentBatch(tokens, document, activation, encoded)


def test_contexts_are_the_strongest_of_each_document_strongest_first():
    sae = TopK(TopKConfig(d_model=D, d_sae=16, k=4))
    latents = [0, 3, 7]
    found = top_contexts(sae, latents, batches(), n_contexts=4)
    for latent in latents:
        best: dict[int, float] = {}
        for batch in batches():
            active = sae.encode(batch.activation)[..., latent].detach() * batch.encoded
            for row in range(4):
                document = int(batch.document[row, 0])
                best[document] = max(best.get(document, 0.0), float(active[row].max()))
        expected = sorted((v for v in best.values() if v > 0), reverse=True)[:4]
        contexts = found[latent]
        assert [c.activation for c in contexts] == pytest.approx(expected)
        assert len({c.document for c in contexts}) == len(contexts)
        for context in contexts:
            assert context.activations[context.marked] == pytest.approx(context.activation)
            assert len(context.tokens) == len(context.activations)


def test_a_latent_that_is_never_active_has_no_contexts():
    sae = TopK(TopKConfig(d_model=D, d_sae=16, k=4))
    with torch.no_grad():
        sae.b_enc[2] = -1e6
    assert top_contexts(sae, [2], batches())[2] == []


def test_prominent_latents_leave_out_dead_and_nearly_constant_ones():
    energy = torch.tensor([9.0, 5.0, 7.0, 1.0])
    density = torch.tensor([0.9, 0.05, 0.0, 0.01])
    assert prominent_latents(energy, density, 4) == [1, 3]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_direct_effects_are_those_of_the_head_on_a_normalised_direction(family):
    model = tiny_model(family)
    # A direction of zero mean and unit root mean square: any norm divides it by one.
    direction = torch.ones(1, model.d_model)
    direction[:, ::2] = -1
    norm = model.network.base_model.get_submodule(model.family.final_norm)
    bias = getattr(norm, "bias", None)
    with torch.no_grad():
        through = norm(direction) - (bias if bias is not None else 0)
        expected = model.network.get_output_embeddings()(through)
        torch.testing.assert_close(unembedded(model, direction), expected, atol=1e-4, rtol=1e-3)


def test_promoted_and_suppressed_tokens_are_the_ends_of_one_ranking(organism_model):
    model = organism_model
    [effects] = logit_effects(model, torch.randn(1, model.d_model), n_tokens=3)
    promoted = [value for _, value in effects.promoted]
    suppressed = [value for _, value in effects.suppressed]
    assert promoted == sorted(promoted, reverse=True)
    assert suppressed == sorted(suppressed)
    assert promoted[0] > suppressed[0]


def test_an_encoder_has_no_direct_effects():
    model = tiny_model("bert")
    with pytest.raises(ModelError, match="no head"):
        unembedded(model, torch.randn(1, model.d_model))
