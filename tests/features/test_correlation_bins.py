import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.correlation_bins import RELATIVE_ERROR, BinCounts


def counted(pooled, is_success, batch=50):
    found = BinCounts(pooled.shape[1])
    for first in range(0, len(pooled), batch):
        rows = slice(first, first + batch)
        row, latent = np.nonzero(pooled[rows])
        found.add(latent, pooled[rows][row, latent], is_success[rows][row])
    return found


def made(n=400, seed=0):
    random = np.random.default_rng(seed)
    is_success = random.random(n) < 0.4
    pooled = np.maximum(random.lognormal(size=(n, 5)) * 10.0 ** np.arange(-2, 3) - 0.01, 0)
    pooled *= random.random((n, 5)) < 0.6
    pooled[:, 0] += is_success * random.random(n)
    pooled[:, 4] = 0
    return pooled, is_success


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_quantiles_are_within_the_stated_error(share):
    pooled, is_success = made()
    pooled[:, 3] = np.random.default_rng(1).normal(size=len(pooled))
    found = counted(pooled, is_success)
    for side, rows in (
        ("all", is_success | True),
        ("success", is_success),
        ("failure", ~is_success),
    ):
        values = found.quantile(share, side)
        for latent in range(4):
            active = np.sort(pooled[rows, latent][pooled[rows, latent] != 0])
            exact = active[int(share * (len(active) - 1))]
            assert abs(values[latent] - exact) <= RELATIVE_ERROR * abs(exact) * (1 + 1e-9)
        assert np.isnan(values[4])


def test_counts_merge_exactly_in_any_order():
    pooled, is_success = made()
    whole = counted(pooled, is_success)
    late, early = counted(pooled[150:], is_success[150:]), counted(pooled[:150], is_success[:150])
    late.merge(early)
    for name, array in whole.state().items():
        np.testing.assert_array_equal(array, late.state()[name])
    again = BinCounts.from_state(whole.state(), 5)
    np.testing.assert_array_equal(again.quantile(0.3), whole.quantile(0.3))


def test_information_is_that_of_the_parts_less_its_bias():
    # Ten values and zero, so that a part is a value: sklearn says the plain estimate.
    random = np.random.default_rng(3)
    values = np.repeat(np.arange(11.0), 40)
    is_success = random.random(440) < values / 10
    found = counted(values[:, None], is_success).mutual_information(
        int(is_success.sum()), int((~is_success).sum())
    )
    plain = mutual_info_score(values, is_success)
    n_cells = len({*zip(values, is_success, strict=True)})
    assert found[0] == pytest.approx(plain - (n_cells - 11 - 2 + 1) / (2 * 440), rel=1e-12)


def test_information_of_nothing_is_around_zero():
    found = []
    for seed in range(60):
        random = np.random.default_rng(seed)
        pooled = np.maximum(random.normal(size=(200, 30)), 0)
        is_success = random.random(200) < 0.5
        n = int(is_success.sum())
        found.append(counted(pooled, is_success).mutual_information(n, 200 - n).mean())
    # The plain estimate would be 10 / 400 = 0.025.
    assert abs(np.mean(found)) < 0.002


def test_a_bit_that_tells_all_is_worth_its_entropy():
    is_success = np.arange(1000) % 2 == 0
    found = counted(is_success[:, None] * 2.0, is_success).mutual_information(500, 500)
    assert found[0] == pytest.approx(np.log(2), abs=2e-3)


def test_a_share_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"1\.5"):
        BinCounts(2).quantile(1.5)
