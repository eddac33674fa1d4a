import numpy as np
import pytest
import torch

from fluoroscope.core.errors import ConfigError, MismatchError
from fluoroscope.features.activation_columns import ColumnsWriter, LatentColumns
from fluoroscope.features.unit_rates import NONE, unit_rates
from fluoroscope.sae.sparse_kernels import select_above

N, S = 60, 9


@pytest.fixture(scope="module")
def dense():
    random = np.random.default_rng(0)
    return (random.random((N, S)) * (random.random((N, S)) < 0.3)).astype(np.float32)


@pytest.fixture(scope="module")
def columns(dense, tmp_path_factory):
    folder = tmp_path_factory.mktemp("columns")
    writer = ColumnsWriter(folder, {"a": S})
    writer.add("a", select_above(torch.from_numpy(dense), torch.zeros(S)), 0)
    writer.close()
    return LatentColumns(sorted((folder / "a").iterdir()))


def test_rates_are_means_and_variances_over_units_however_long_they_are(dense, columns):
    random = np.random.default_rng(1)
    unit = random.integers(NONE, 7, N)
    unit[unit == 5] = NONE
    group = np.array([0, 1, 0, 1, NONE, 0, 1])
    found = unit_rates(columns, unit, group, 2)
    for g in range(2):
        units = [u for u in range(7) if group[u] == g and (unit == u).any()]
        rates = np.array([(dense[unit == u] > 0).mean(axis=0) for u in units])
        assert found.n[g] == len(units)
        np.testing.assert_allclose(found.mean[:, g], rates.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(found.variance[:, g], rates.var(axis=0, ddof=1), atol=1e-12)


def test_one_unit_has_no_variance(columns):
    found = unit_rates(columns, np.zeros(N, np.int64), np.array([0]), 1)
    assert found.n.tolist() == [1]
    assert not found.variance.any()


@pytest.mark.parametrize(
    ("unit", "group", "words"), [(3, 0, "Units are -1 to 0"), (0, 2, "Groups are -1 to 1")]
)
def test_what_no_place_is_held_for_is_refused(columns, unit, group, words):
    with pytest.raises(ConfigError, match=words):
        unit_rates(columns, np.full(N, unit), np.array([group]), 2)


def test_every_token_of_the_columns_needs_its_unit(columns):
    with pytest.raises(MismatchError, match=f"of {N} tokens, and what came is for {N - 1}"):
        unit_rates(columns, np.zeros(N - 1, np.int64), np.array([0]), 1)
