import pytest
import torch

from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.evaluation import (
    Window,
    evaluate_reconstruction,
    evaluate_recovery,
    match_dictionary,
)
from fluoroscope.sae.topk import TopK, TopKConfig


def rows(n=400, d=6):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def perfect_sae(d):
    """Reconstructs anything: a latent for each direction and its opposite."""
    sae = TopK(TopKConfig(d_model=d, d_sae=2 * d, k=d))
    with torch.no_grad():
        sae.W_dec.copy_(torch.cat([torch.eye(d), -torch.eye(d)]))
        sae.W_enc_T.copy_(sae.W_dec)
    return sae


def by_document(x, n_documents=12):
    return [(part, torch.full((len(part),), i)) for i, part in enumerate(x.chunk(n_documents))]


def test_a_perfect_sae_leaves_nothing_unexplained():
    x = rows()
    found = evaluate_reconstruction(perfect_sae(6), by_document(x), x.mean(dim=0))
    assert found.fvu.value == pytest.approx(0, abs=1e-10)
    assert found.l0.value == pytest.approx(6)
    assert found.dead_fraction == 0
    assert found.n_tokens == 400


def test_fvu_equals_its_definition_and_lies_in_its_interval():
    x = rows() + 3
    sae = TopK(TopKConfig(d_model=6, d_sae=20, k=2))
    found = evaluate_reconstruction(sae, by_document(x), x.mean(dim=0))
    with torch.no_grad():
        expected = (sae(x) - x).square().sum() / (x - x.mean(dim=0)).square().sum()
    assert found.fvu.value == pytest.approx(float(expected), rel=1e-5)
    assert found.fvu.low < found.fvu.value < found.fvu.high


def test_density_and_energy_are_means_over_tokens():
    x = rows()
    sae = TopK(TopKConfig(d_model=6, d_sae=20, k=2))
    found = evaluate_reconstruction(sae, by_document(x), x.mean(dim=0))
    latents = sae.encode(x).detach()
    torch.testing.assert_close(found.density, (latents > 0).float().mean(dim=0))
    torch.testing.assert_close(found.mean_square, latents.square().mean(dim=0))
    assert found.dead_fraction == pytest.approx(float((latents == 0).all(dim=0).float().mean()))


def test_the_order_of_batches_changes_nothing():
    x = rows()
    sae = TopK(TopKConfig(d_model=6, d_sae=20, k=2))
    forwards = evaluate_reconstruction(sae, by_document(x), x.mean(dim=0))
    backwards = evaluate_reconstruction(sae, by_document(x)[::-1], x.mean(dim=0))
    assert forwards.fvu == pytest.approx(backwards.fvu)


def windows(model, n=4, length=12):
    tokens = torch.randint(
        5, model.vocab_size, (n, length), generator=torch.Generator().manual_seed(1)
    )
    document = torch.arange(n).unsqueeze(1).expand(n, length)
    encoded = torch.ones(n, length, dtype=torch.bool)
    encoded[:, 0] = False
    return Window(tokens, document, encoded)


@pytest.fixture(scope="module")
def model(organism_model):
    return organism_model


def test_a_perfect_sae_recovers_all_of_the_cross_entropy(model):
    point, d = HookPoint("1.resid_post"), model.d_model
    found = evaluate_recovery(model, point, perfect_sae(d), [windows(model)], torch.zeros(d))
    assert found.ce_sae == pytest.approx(found.ce_clean, abs=1e-4)
    assert found.recovered_of_zero.value == pytest.approx(1, abs=0.05)


def test_an_sae_that_gives_the_mean_recovers_nothing(model):
    point, d = HookPoint("1.resid_post"), model.d_model
    mean = torch.randn(d, generator=torch.Generator().manual_seed(2))
    sae = perfect_sae(d)
    with torch.no_grad():
        sae.b_enc.fill_(-1e6)
        sae.b_dec.copy_(mean)
    found = evaluate_recovery(model, point, sae, [windows(model)], mean)
    assert found.ce_sae == pytest.approx(found.ce_mean_ablated, abs=1e-6)
    assert found.recovered_of_mean.value == pytest.approx(0, abs=1e-4)


def test_clean_cross_entropy_is_the_models_own_loss(model):
    batch, d = windows(model), model.d_model
    point = HookPoint("0.resid_post")
    found = evaluate_recovery(model, point, perfect_sae(d), [batch], torch.zeros(d))
    assert found.ce_clean == pytest.approx(float(model.loss(batch.tokens)), abs=1e-5)


def test_positions_that_are_not_encoded_are_left_as_they_are(model):
    batch, d = windows(model), model.d_model
    untouched = Window(batch.tokens, batch.document, torch.zeros_like(batch.encoded))
    untouched.encoded[:, -1] = True
    zero = perfect_sae(d)
    with torch.no_grad():
        zero.b_enc.fill_(-1e6)
    point = HookPoint("1.resid_post")
    found = evaluate_recovery(model, point, zero, [untouched], torch.zeros(d))
    # Only the last position is replaced, and nothing that is scored depends on it.
    assert found.ce_sae == pytest.approx(found.ce_clean, abs=1e-6)


def test_a_dictionary_is_matched_to_itself_however_it_is_ordered_and_scaled():
    true = rows(10, 6)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    match = match_dictionary(3 * true[order], true)
    torch.testing.assert_close(match.cosine, torch.ones(10))
    assert torch.equal(order[match.latent], torch.arange(10))


def test_an_interval_from_few_documents_is_not_given():
    x = rows()
    sae = TopK(TopKConfig(d_model=6, d_sae=20, k=2))
    few = evaluate_reconstruction(sae, by_document(x, 9), x.mean(dim=0))
    enough = evaluate_reconstruction(sae, by_document(x, 10), x.mean(dim=0))
    assert few.fvu.low != few.fvu.low
    assert few.fvu.value == pytest.approx(enough.fvu.value)
    assert enough.fvu.low < enough.fvu.value < enough.fvu.high
    assert (few.n_documents, enough.n_documents) == (9, 10)
