import numpy as np
import pytest

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.correlation_outcomes import Outcomes


def columns(outcomes):
    return outcomes.columns(np.arange(len(outcomes))) + outcomes.values.mean()


def test_shuffles_are_orders_of_the_same_outcomes():
    y = np.random.default_rng(0).random(50)
    made = columns(Outcomes(y, n_shuffles=30))
    np.testing.assert_allclose(made[:, 0], y)
    np.testing.assert_allclose(np.sort(made, axis=0), np.repeat(np.sort(y)[:, None], 31, axis=1))
    assert len(np.unique(made.round(9), axis=1).T) == 31


def test_every_row_takes_every_outcome_about_as_often():
    y = np.zeros(20)
    y[:5] = 1
    share = columns(Outcomes(y, n_shuffles=4000))[:, 1:].mean(axis=1)
    assert np.abs(share - 0.25).max() < 5 * (0.25 * 0.75 / 4000) ** 0.5


def test_groups_of_one_size_exchange_their_outcomes_whole():
    y = np.random.default_rng(0).random(60)
    group = np.random.default_rng(1).permutation(np.arange(60) % 20)
    made = columns(Outcomes(y, group=group, n_shuffles=10))
    blocks = {tuple(y[group == g].round(9)) for g in range(20)}
    for column in made.T:
        assert {tuple(column[group == g].round(9)) for g in range(20)} == blocks


def test_groups_of_other_sizes_exchange_where_there_are_few_of_a_size():
    # Thirty single rows, twelve pairs, and three sizes of which there is one group each.
    sizes = [1] * 30 + [2] * 12 + [3, 5, 9]
    group = np.repeat(np.arange(45), sizes)
    y = (group % 2).astype(float)
    made = columns(Outcomes(y, group=group, n_shuffles=50))
    # All rows of a group have one outcome before, so they have after.
    for g in range(45):
        assert (np.ptp(made[group == g], axis=0) < 1e-9).all()
    singles = made[:30]
    np.testing.assert_allclose(singles.sum(axis=0), 15)
    assert np.ptp(made[group == 44][0]) > 0.5


def test_shuffles_and_weights_depend_on_seed_and_not_on_which_rows_are_asked():
    y = np.random.default_rng(0).random(40)
    one, again = Outcomes(y, seed=3), Outcomes(y, seed=3)
    rows = np.array([7, 3, 30])
    np.testing.assert_array_equal(one.columns(rows), again.columns(np.arange(40))[rows])
    np.testing.assert_array_equal(one.weights(rows), again.weights(np.arange(40))[rows])
    assert (one.columns(rows) != Outcomes(y, seed=4).columns(rows)).any()


def test_weights_are_those_of_a_group():
    group = np.arange(200) // 4
    made = Outcomes(np.arange(200) % 2, group=group, n_resamples=300).weights(np.arange(200))
    assert (made.reshape(50, 4, 300) == made[::4, None]).all()
    assert abs(made.mean() - 1) < 0.05
    assert abs(made[::4].var() - 1) < 0.1


def test_shuffles_that_cannot_change_anything_are_refused():
    with pytest.raises(ConfigError, match="changes no outcome"):
        Outcomes(np.arange(40) % 2, group=np.arange(40) // 2).columns(np.arange(4))


@pytest.mark.parametrize(
    ("values", "group", "what"),
    [
        (np.array([0.0, 1.5]), None, "1.5"),
        (np.array([0.0, np.nan]), None, "nan"),
        (np.zeros(0), None, "none came"),
        (np.array([0.0, 1.0]), np.zeros(3), "3 groups"),
        (np.array([0.0, 1.0]), np.zeros(2), "all rows are of one"),
    ],
)
def test_outcomes_that_cannot_be_are_refused(values, group, what):
    with pytest.raises(ConfigError, match=what):
        Outcomes(values, group=group)
