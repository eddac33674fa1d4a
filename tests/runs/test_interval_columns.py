"""Which columns belong together is told by their names, in every table of ours."""

import polars as pl
import pytest

from fluoroscope.runs.interval_columns import estimates, plain_numbers, row_key


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (("x", "x_low", "x_high"), [("x", "x_low", "x_high")]),
        (("x", "y", "x_low", "x_high"), [("x", "x_low", "x_high")]),
        (("n", "effect", "low", "high"), [("effect", "low", "high")]),
        (("cohen_d", "d_low", "d_high"), [("cohen_d", "d_low", "d_high")]),
        (("fold", "d_low", "d_high"), []),
        (("low", "high"), []),
        (("x", "x_low"), []),
        (("below", "slow", "shigh"), []),
    ],
)
def test_an_interval_belongs_to_the_column_that_its_name_says(columns, found):
    frame = pl.DataFrame({name: [0.5] for name in columns})
    assert [tuple(one) for one in estimates(frame)] == found


def test_an_interval_beside_a_text_is_of_nothing():
    assert estimates(pl.DataFrame({"word": ["a"], "low": [0.1], "high": [0.2]})) == []


def test_fractions_that_are_no_part_of_an_interval_are_plain():
    frame = pl.DataFrame({"x": [0.1], "x_low": [0.0], "x_high": [0.2], "y": [0.5], "n": [3]})
    assert plain_numbers(frame) == ["y"]


def test_rows_are_named_by_as_few_columns_as_tell_them_apart():
    frame = pl.DataFrame(
        {"n": [1, 2, 3], "layer": [0, 0, 1], "latent": [4, 5, 4], "kind": ["a", "a", "a"]}
    )
    assert row_key([frame]) == ["layer", "latent", "kind"]
    assert row_key([frame.with_columns(kind=pl.Series(["a", "b", "c"]))]) == ["kind"]
    assert row_key([frame.select("n")]) == []


def test_a_key_is_one_that_all_tables_have():
    one = pl.DataFrame({"word": ["a", "b"], "kind": ["x", "y"]})
    other = pl.DataFrame({"word": ["a", "a"], "kind": ["x", "y"]})
    assert row_key([one, other]) == ["word", "kind"]
