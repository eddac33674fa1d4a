import numpy as np
import polars as pl
import pytest

from fluoroscope.core.errors import ConfigError, MismatchError
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.studies.unlearning.selection import (
    by_frequency,
    by_importance,
    latent_table,
    latents_by_point,
    random_matched,
)
from fluoroscope.studies.unlearning.statistics import LatentCounts

FIRST, SECOND = HookPoint("0.resid_post"), HookPoint("3.resid_post")


def counts(active, squares, n_tokens=1000):
    found = LatentCounts(len(active))
    found.n_tokens, found.n_texts = n_tokens, 10
    found.active = np.array(active)
    found.squares = np.array(squares, dtype=float)
    return found


@pytest.fixture
def table():
    # Latents: 0 common, 1 and 2 of the texts to forget, 3 of those to keep, 4 dead, 5 forget only.
    forget = counts([500, 90, 60, 5, 0, 10], [500, 900, 300, 5, 0, 40])
    retain = counts([500, 8, 1, 300, 0, 0], [500, 90, 1, 600, 0, 0])
    return latent_table({FIRST: forget, SECOND: forget}, {FIRST: retain, SECOND: retain})


def latents(chosen, point=FIRST):
    return list(latents_by_point(chosen)[point])


def test_the_frequent_of_those_that_are_rare_in_texts_to_keep_are_taken(table):
    assert latents(by_frequency(table, 2, max_retain=0.01)) == [1, 2]
    # 8 of 1000 tokens is not below 0.8 %.
    assert latents(by_frequency(table, 2, max_retain=0.008)) == [2, 5]
    assert latents(by_frequency(table, 9, max_retain=0.01)) == [1, 2, 5]


def test_every_hook_point_has_its_own_choice(table):
    chosen = by_frequency(table, 2, max_retain=0.01)
    assert latents(chosen, SECOND) == latents(chosen, FIRST)
    assert chosen["rank"].to_list() == [1, 2, 1, 2]


def test_importance_is_the_ratio_of_mean_squares(table):
    row = {one["latent"]: one for one in table.head(6).iter_rows(named=True)}
    assert row[0]["importance"] == 1
    assert row[1]["importance"] == pytest.approx(10)
    assert row[5]["importance"] == np.inf
    assert row[4]["importance"] is None


def test_the_largest_of_the_important_are_taken(table):
    # Ratios of the five active ones: 5/600, 1, 10, 300, infinite.
    assert latents(by_importance(table, 2, percentile=50)) == [1, 2]
    assert latents(by_importance(table, 9, percentile=75)) == [2, 5]
    assert latents(by_importance(table, 1, percentile=0)) == [1]


def test_importance_does_not_ask_how_many_texts_there_are():
    few = counts([5, 5], [10, 20], n_tokens=100)
    many = counts([50, 50], [100, 200], n_tokens=1000)
    table = latent_table({FIRST: few}, {FIRST: many})
    assert table["importance"].to_list() == [1.0, 1.0]


def test_a_control_is_about_as_frequent_and_was_not_chosen():
    random = np.random.default_rng(0)
    active = random.integers(1, 400, size=200)
    many = counts(active, active)
    table = latent_table({FIRST: many}, {FIRST: many})
    chosen = by_frequency(table, 12, max_retain=0.3)
    drawn = random_matched(table, chosen, seed=0)
    assert len(drawn) == 12
    assert not set(drawn["latent"]) & set(chosen["latent"])
    assert drawn["latent"].n_unique() == 12
    both = drawn.join(chosen, left_on="control_of", right_on="latent")
    ratio = both["frequency"] / both["frequency_right"]
    assert ratio.is_between(0.7, 1.4).all()
    assert drawn.equals(random_matched(table, chosen, seed=0))


def test_too_few_latents_for_controls_are_named(table):
    chosen = table.filter((pl.col("hook_point") == str(FIRST)) & (pl.col("frequency") > 0))
    with pytest.raises(ConfigError, match="5 latents that are ever active, too few"):
        random_matched(table, chosen, seed=0)


def test_nothing_that_passes_is_an_error_that_names_the_rule(table):
    with pytest.raises(ConfigError, match=r"passes max_retain=1e-12"):
        by_frequency(table.filter(pl.col("latent") != 5), 3, max_retain=1e-12)


@pytest.mark.parametrize("n", [0, -1])
def test_at_least_one_latent_is_asked_for(table, n):
    with pytest.raises(ConfigError, match=f"n={n}"):
        by_frequency(table, n, 0.1)


def test_both_sides_are_read_at_the_same_places(table):
    one = counts([1], [1])
    with pytest.raises(MismatchError, match="same hook points"):
        latent_table({FIRST: one}, {SECOND: one})
