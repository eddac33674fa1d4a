import numpy as np
from scipy.stats import false_discovery_control

from fluoroscope.features.multiple_tests import benjamini_hochberg, count_discoveries


def test_q_are_those_of_scipy_and_what_is_no_test_does_not_count():
    p = np.random.default_rng(0).random(200) ** 3
    p[::7] = np.nan
    q = benjamini_hochberg(p)
    np.testing.assert_array_equal(np.isnan(q), np.isnan(p))
    np.testing.assert_allclose(q[~np.isnan(p)], false_discovery_control(p[~np.isnan(p)]))
    assert np.isnan(benjamini_hochberg(np.full(3, np.nan))).all()
    assert len(benjamini_hochberg(np.zeros(0))) == 0


def test_discoveries_are_counted_from_small_p_alone():
    random = np.random.default_rng(0)
    for power in (1, 2, 4, 8):
        p = random.random(500) ** power
        expected = (benjamini_hochberg(p) < 0.05).sum()
        assert count_discoveries(p[p < 0.05], len(p), 0.05) == expected
    assert count_discoveries(np.zeros(0), 10, 0.05) == 0
