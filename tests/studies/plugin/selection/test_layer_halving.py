import numpy as np
import pytest

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.studies.plugin.selection.halving import first_round, mean_ranks, next_round


def test_ranks_are_averaged_over_methods_and_equals_share_theirs():
    ranks = mean_ranks({"a": np.array([3.0, 1.0, 1.0]), "b": np.array([0.1, 0.2, 0.3])})
    # By a: 1, 2.5, 2.5; by b: 3, 2, 1.
    np.testing.assert_array_equal(ranks, [2.0, 2.25, 1.75])
    np.testing.assert_array_equal(mean_ranks({"a": np.array([np.nan, -9.0, 1.0])}), [3, 2, 1])


def test_the_middle_and_the_last_layer_are_always_among_the_first():
    falling = -np.arange(12.0)
    assert first_round({"plug_side": falling}, 12, keep=5) == [0, 1, 2, 6, 11]
    assert first_round({"plug_side": -falling}, 12, keep=4) == [6, 9, 10, 11]
    assert first_round({"plug_side": falling[:3]}, 3, keep=8) == [0, 1, 2]


def test_methods_of_what_is_plugged_in_outrank_those_of_texts():
    falling = -np.arange(6.0)
    scores = {"ilm": falling, "logme": falling, "gradient_fit": -falling}
    assert first_round(scores, 6, keep=3) == [3, 4, 5]
    assert first_round({"ilm": falling, "logme": falling}, 6, keep=3) == [0, 3, 5]


def test_the_best_losses_stay_and_a_broken_training_does_not():
    assert next_round({0: 0.5, 3: 0.2, 7: float("nan"), 9: 0.2, 11: 0.4}, 3) == [3, 9, 11]
    assert next_round({4: 0.3, 2: 0.3}, 1) == [2]
    with pytest.raises(NumericsError, match="of 0 with a finite"):
        next_round({1: float("nan")}, 1)


def test_scores_that_are_missing_or_too_few_rooms_are_errors():
    with pytest.raises(ConfigError, match="all of the 5 layers"):
        first_round({"plug_side": np.ones(4)}, 5)
    with pytest.raises(NumericsError, match="No score of gradient_fit"):
        first_round({"gradient_fit": np.full(3, np.nan)}, 3, keep=2)
    with pytest.raises(ConfigError, match="keep=1 is too few"):
        first_round({"plug_side": np.ones(4)}, 4, keep=1)
