import numpy as np
import pytest
import torch

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.features.correlation_pooling import PooledSteps, check_pooling, pool
from fluoroscope.sae.sparse_kernels import SparseLatents

HOWS = ("max", "mean", "last")


def sparse(dense):
    entries = dense != 0
    offsets = np.append(0, np.cumsum(entries.sum(axis=1)))
    indices = np.nonzero(entries)[1].astype(np.int32)
    values = torch.from_numpy(dense[entries])
    return SparseLatents(
        torch.from_numpy(offsets), torch.from_numpy(indices), values, dense.shape[1]
    )


def steps(n=60, d_sae=9, seed=0, signed=False):
    random = np.random.default_rng(seed)
    made = random.normal(size=(n, d_sae)) - (0 if signed else 0.7)
    made = np.where(random.random((n, d_sae)) < 0.6, made, 0) if signed else np.maximum(made, 0)
    made[:, 3] = -1 - random.random(n) if signed else 0
    return made


def naive(dense, sample, counts, n_samples, how):
    rows = []
    for j in range(n_samples):
        own = dense[(sample == j) & counts]
        if len(own) == 0:
            rows.append(np.zeros(dense.shape[1]))
        else:
            rows.append({"max": own.max(0), "mean": own.mean(0), "last": own[-1]}[how])
    return np.array(rows)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("signed", [False, True])
def test_pooling_is_that_of_dense_rows(how, signed):
    dense = steps(signed=signed)
    offsets = np.array([0, 1, 20, 20, 45, 60])
    counts = np.random.default_rng(2).random(60) < 0.7
    counts[45:] = False
    sample = np.repeat(np.arange(5), np.diff(offsets))
    found = pool(sparse(dense), offsets, how, counts)
    expected = naive(dense, sample, counts, 5, how)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-12)
    assert found.nnz == np.count_nonzero(expected)
    assert not found[[2, 4]].toarray().any()


@pytest.mark.parametrize("how", HOWS)
def test_steps_that_come_one_by_one_pool_as_all_at_once(how):
    dense = steps(n=600)
    sample = np.tile(np.arange(6), 100)
    is_on = np.repeat(np.arange(100), 6) < np.array([3, 100, 0, 50, 1, 99])[sample]
    pooled = PooledSteps(6, 9, how)
    for first in range(0, 600, 6):
        rows = slice(first, first + 6)
        pooled.add(sparse(dense[rows]), sample[rows], is_on[rows])
        if first == 300:
            pooled.rows()
    np.testing.assert_allclose(
        pooled.rows().toarray(), naive(dense, sample, is_on, 6, how), rtol=1e-12
    )
    assert pooled.n_steps.tolist() == [3, 100, 0, 50, 1, 99]


def test_padding_never_counts_wherever_it_lies():
    dense = steps()
    sample, counts = np.arange(60) // 20, np.ones(60, bool)
    padded = np.insert(dense, [0, 7, 60], 50.0, axis=0)
    whose = np.insert(sample, [0, 7, 60], [0, 0, 2])
    is_step = np.insert(counts, [0, 7, 60], [False] * 3)
    whose[0] = -1
    for how in HOWS:
        found = PooledSteps(3, 9, how)
        found.add(sparse(padded), whose, is_step)
        expected = pool(sparse(dense), np.array([0, 20, 40, 60]), how)
        np.testing.assert_array_equal(found.rows().toarray(), expected.toarray())


def test_what_cannot_be_pooled_is_refused():
    latents = sparse(steps())
    with pytest.raises(ConfigError, match="rise from 0 to the 60"):
        pool(latents, np.array([0, 59]))
    with pytest.raises(ConfigError, match="median"):
        check_pooling("median")
    with pytest.raises(ConfigError, match="0 to 1"):
        PooledSteps(2, 9).add(latents, np.full(60, 2))
    with pytest.raises(ConfigError, match="60 of 9"):
        PooledSteps(2, 8).add(latents, np.zeros(60, int))
    bad = steps()
    bad[0, 0] = np.nan
    with pytest.raises(NumericsError):
        PooledSteps(1, 9).add(sparse(bad), np.zeros(60, int))
