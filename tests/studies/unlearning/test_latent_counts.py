import numpy as np
import pytest
import torch

from fluoroscope.core.errors import MismatchError, NumericsError
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.sparse_kernels import SparseLatents
from fluoroscope.studies.unlearning.statistics import LatentCounts, encoded, measure, strongest

S = 7


def sparse(dense):
    dense = torch.as_tensor(dense)
    counts = (dense != 0).sum(dim=1)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    where = dense.nonzero()
    return SparseLatents(offsets, where[:, 1].int(), dense[dense != 0], dense.shape[1])


@pytest.fixture
def rows():
    random = np.random.default_rng(0)
    dense = np.maximum(random.normal(size=(40, S)) - 0.8, 0)
    dense[:, 5] = 0
    return dense, np.repeat(np.arange(8), 5)


def counts_of(dense, text):
    found = LatentCounts(S)
    found.add(sparse(dense), text)
    return found


def test_counts_are_those_of_dense_rows(rows):
    dense, text = rows
    found = counts_of(dense, text)
    np.testing.assert_allclose(found.frequency, (dense > 0).mean(axis=0))
    np.testing.assert_allclose(found.mean_square, (dense**2).mean(axis=0))
    by_text = [(dense[text == one] > 0).any(axis=0) for one in range(8)]
    np.testing.assert_allclose(found.text_frequency, np.mean(by_text, axis=0))
    assert found.n_tokens == 40
    assert found.n_texts == 8
    assert found.mean_square.dtype == np.float64


def test_the_merge_of_parts_is_the_whole(rows):
    dense, text = rows
    parts = counts_of(dense[:15], text[:15])
    parts.merge(counts_of(dense[15:], text[15:]))
    whole = counts_of(dense, text)
    for name, value in whole.state().items():
        np.testing.assert_allclose(parts.state()[name], value, rtol=1e-14)


def test_a_state_gives_the_same_counts(rows):
    found = counts_of(*rows)
    again = LatentCounts.from_state(found.state())
    again.merge(found)
    np.testing.assert_allclose(again.frequency, found.frequency)
    assert again.n_texts == 16


def test_a_dead_latent_has_a_frequency_of_zero(rows):
    found = counts_of(*rows)
    assert found.frequency[5] == found.mean_square[5] == found.text_frequency[5] == 0


def test_counts_of_two_saes_are_not_merged(rows):
    with pytest.raises(MismatchError, match="of two SAEs"):
        counts_of(*rows).merge(LatentCounts(S + 1))


def test_a_latent_that_is_no_number_is_refused(rows):
    dense, text = rows
    dense[3, 2] = np.inf
    with pytest.raises(NumericsError, match="not finite"):
        counts_of(dense, text)


def test_the_token_before_a_text_does_not_count(organism_model, organism_saes, people):
    texts = [one.text for one in people.forget[:5]]
    found = measure(organism_model, organism_saes, texts)
    lengths = [len(organism_model.tokenizer(text)["input_ids"]) for text in texts]
    for counts in found.values():
        assert counts.n_tokens == sum(lengths) - len(texts)
        assert counts.n_texts == 5


def test_padding_and_batch_mates_change_no_count(organism_model, organism_saes, people):
    texts = [one.text for one in (*people.forget[:4], *people.retain[-3:])]
    together = measure(organism_model, organism_saes, texts)
    alone = {point: LatentCounts(sae.d_sae) for point, sae in organism_saes.items()}
    for text in texts:
        for point, counts in measure(organism_model, organism_saes, [text]).items():
            alone[point].merge(counts)
    for point, counts in together.items():
        np.testing.assert_array_equal(counts.active, alone[point].active)
        np.testing.assert_allclose(counts.squares, alone[point].squares, rtol=1e-4)


def test_the_strongest_is_the_largest_over_the_tokens(organism_model, organism_saes, people):
    texts = [one.prompt for one in people.retain[:6]]
    found = strongest(organism_model, organism_saes, texts, tile_tokens=40).toarray()
    point = HookPoint("4.resid_post")
    width = organism_saes[HookPoint("0.resid_post")].d_sae
    for _, latents, place in encoded(organism_model, {point: organism_saes[point]}, texts):
        dense = latents.dense().detach().numpy()
        for text in np.unique(place):
            largest = dense[place == text].max(axis=0)
            np.testing.assert_allclose(found[text, width:], largest, rtol=1e-4)
