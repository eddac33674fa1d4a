import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fluoroscope.core.errors import NumericsError
from fluoroscope.core.quantile_sketch import QuantileSketch
from fluoroscope.core.running_stats import CoMoments, Moments

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False, allow_subnormal=False)
TABLES = arrays(np.float64, st.tuples(st.integers(0, 40), st.just(3)), elements=NUMBERS)
CUTS = st.integers(0, 40)


def moments_of(rows: np.ndarray, mask: np.ndarray | None = None) -> Moments:
    moments = Moments(rows.shape[1])
    moments.add(rows, mask)
    return moments


def sketch_of(rows: np.ndarray, relative_error: float = 0.02) -> QuantileSketch:
    sketch = QuantileSketch(rows.shape[1], relative_error)
    sketch.add(rows)
    return sketch


@given(TABLES, CUTS)
def test_merging_the_moments_of_two_parts_gives_those_of_the_whole(rows, cut):
    merged, whole = moments_of(rows[:cut]), moments_of(rows)
    merged.merge(moments_of(rows[cut:]))
    scale = max(1.0, float(np.abs(rows).max(initial=0.0)))
    np.testing.assert_array_equal(merged.count, whole.count)
    np.testing.assert_array_equal(merged.minimum, whole.minimum)
    np.testing.assert_array_equal(merged.maximum, whole.maximum)
    np.testing.assert_allclose(merged.mean, whole.mean, atol=1e-12 * scale)
    np.testing.assert_allclose(merged.variance(), whole.variance(), atol=1e-12 * scale**2)


@given(TABLES)
def test_moments_are_those_of_numpy(rows):
    moments = moments_of(rows)
    if len(rows) < 2:
        assert np.isnan(moments.variance()).all()
        return
    scale = max(1.0, float(np.abs(rows).max()))
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), atol=1e-12 * scale)
    np.testing.assert_allclose(moments.variance(), rows.var(axis=0, ddof=1), atol=1e-12 * scale**2)


def test_moments_by_hand():
    moments = moments_of(np.array([[1.0, 5.0], [3.0, 5.0]]))
    np.testing.assert_array_equal(moments.mean, [2.0, 5.0])
    np.testing.assert_array_equal(moments.variance(), [2.0, 0.0])
    np.testing.assert_array_equal(moments.variance(ddof=0), [1.0, 0.0])


def test_a_mask_leaves_values_out_series_by_series():
    rows = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    moments = moments_of(rows, np.array([[True, False], [True, False], [False, False]]))
    np.testing.assert_array_equal(moments.count, [2, 0])
    assert moments.mean[0] == 2.0
    assert np.isnan(moments.mean[1])
    assert moments.maximum[0] == 3.0


def test_a_large_offset_does_not_cost_the_variance_its_digits():
    rows = 1e9 + np.array([[0.0], [1.0], [2.0]] * 1000)
    moments = Moments(1)
    for part in np.array_split(rows, 50):
        moments.add(part)
    np.testing.assert_allclose(moments.variance(ddof=0), 2 / 3, rtol=1e-6)


def test_a_constant_series_has_a_variance_of_zero_never_below():
    moments = Moments(1)
    for _ in range(20):
        moments.add(np.full((7, 1), 0.1))
    assert 0.0 <= moments.variance()[0] < 1e-30


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_none_is_named(bad):
    with pytest.raises(NumericsError, match="Row 1 of series 0"):
        Moments(2).add(np.array([[0.0, 1.0], [bad, 1.0]]))


def test_rows_of_the_wrong_width_are_refused():
    with pytest.raises(ValueError, match=r"\(rows, 3\), got \(2, 2\)"):
        Moments(3).add(np.zeros((2, 2)))


@given(TABLES, TABLES, CUTS)
def test_merging_comoments_gives_those_of_the_whole(left, right, cut):
    n_rows = min(len(left), len(right))
    left, right = left[:n_rows], right[:n_rows]
    whole, merged, rest = CoMoments(3, 3), CoMoments(3, 3), CoMoments(3, 3)
    whole.add(left, right)
    merged.add(left[:cut], right[:cut])
    rest.add(left[cut:], right[cut:])
    merged.merge(rest)
    scale = max(1.0, *(float(np.abs(part).max(initial=0.0)) for part in (left, right)))
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.covariance(), whole.covariance(), atol=1e-11 * scale**2)


def test_pearson_is_that_of_numpy_and_stays_within_one():
    generator = np.random.default_rng(0)
    left = generator.normal(size=(500, 4))
    right = np.concatenate([left[:, :2] * 3 - 1, generator.normal(size=(500, 1))], axis=1)
    comoments = CoMoments(4, 3)
    for rows in np.array_split(np.arange(500), 7):
        comoments.add(left[rows], right[rows])
    expected = np.corrcoef(left.T, right.T)[:4, 4:]
    np.testing.assert_allclose(comoments.pearson(), expected, atol=1e-12)
    assert np.abs(comoments.pearson()).max() <= 1.0


def test_a_series_that_does_not_vary_correlates_with_nothing():
    comoments = CoMoments(1, 1)
    comoments.add(np.ones((5, 1)), np.arange(5.0)[:, None])
    assert np.isnan(comoments.pearson()[0, 0])


@given(TABLES, CUTS)
def test_merging_sketches_gives_the_whole_to_the_last_bit(rows, cut):
    merged, whole = sketch_of(rows[cut:]), sketch_of(rows)
    merged.merge(sketch_of(rows[:cut]))
    for key, value in whole.state().items():
        np.testing.assert_array_equal(merged.state()[key], value)


@given(TABLES, st.permutations(range(40)))
def test_the_order_of_rows_does_not_change_a_sketch(rows, order):
    shuffled = rows[[i for i in order if i < len(rows)]]
    for key, value in sketch_of(rows).state().items():
        np.testing.assert_array_equal(sketch_of(shuffled).state()[key], value)


@given(TABLES.filter(len), st.floats(0, 1))
def test_a_quantile_is_within_the_stated_relative_error(rows, share):
    found = sketch_of(rows).quantile(share)
    ranks = int(np.floor(share * (len(rows) - 1)))
    exact = np.sort(rows, axis=0)[ranks]
    assert (np.abs(found - exact) <= 0.02 * np.abs(exact) * (1 + 1e-9) + 1e-9).all()


def test_a_sketch_of_nothing_has_no_quantile_and_a_count_of_zero():
    sketch = QuantileSketch(2)
    assert np.isnan(sketch.quantile(0.5)).all()
    np.testing.assert_array_equal(sketch.count, [0, 0])


def test_sketches_of_different_errors_do_not_merge():
    with pytest.raises(ValueError, match="different bins"):
        QuantileSketch(1, 0.01).merge(QuantileSketch(1, 0.02))


def test_what_is_saved_goes_on_where_it_stopped():
    rows = np.random.default_rng(1).normal(size=(60, 3))
    joint, moments, sketch = CoMoments(3, 3), moments_of(rows[:30]), sketch_of(rows[:30])
    joint.add(rows[:30], rows[:30] ** 2)
    again = [type(part).from_state(part.state()) for part in (joint, moments, sketch)]
    joint.add(rows[30:], rows[30:] ** 2)
    moments.add(rows[30:])
    sketch.add(rows[30:])
    again[0].add(rows[30:], rows[30:] ** 2)
    again[1].add(rows[30:])
    again[2].add(rows[30:])
    for before, after in zip((joint, moments, sketch), again, strict=True):
        for key, value in before.state().items():
            np.testing.assert_array_equal(after.state()[key], value)
