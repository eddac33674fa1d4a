import math

import numpy as np
import polars as pl
import pytest
from scipy.stats import binomtest

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.effects import baseline_shares, effects


def cells(texts_by_cell, n_prompts=2):
    """Rows of a sweep: cell -> texts, prompt by prompt."""
    rows = []
    for cell, texts in enumerate(texts_by_cell):
        n_trials = len(texts) // n_prompts
        for i, text in enumerate(texts):
            rows.append(
                {
                    "prompt": f"p{i // n_trials}",
                    "cell": cell,
                    "kind": "baseline" if cell == 0 else "set",
                    "condition": "baseline" if cell == 0 else "set to 1",
                    "hook_point": None if cell == 0 else "1.resid_post",
                    "latent": None if cell == 0 else cell,
                    "value": None if cell == 0 else 1.0,
                    "trial": i % n_trials,
                    "text": text,
                }
            )
    return pl.DataFrame(rows)


def test_effects_are_differences_of_texts_with_the_same_luck():
    base = ["stop", "bet", "bet", "bet"]
    table = effects(cells([base, ["stop", "stop", "bet", "stop"], base]), {"stop": "^stop"})
    first = table.filter((pl.col("cell") == 1) & (pl.col("outcome") == "stop")).row(0, named=True)
    assert first["share"] == 0.75
    assert first["difference"] == 0.5
    assert first["n"] == 4
    assert first["p"] == binomtest(2, 2).pvalue
    changed = table.filter((pl.col("cell") == 1) & (pl.col("outcome") == "changed"))
    assert changed["difference"].item() == 0.5
    assert math.isnan(changed["p"].item())
    same = table.filter((pl.col("cell") == 2) & (pl.col("outcome") == "stop")).row(0, named=True)
    assert (same["difference"], same["p"], same["q"]) == (0, 1, 1)


def test_intervals_are_over_prompts_where_there_are_enough_of_them():
    few = cells([["a"] * 20, ["b"] * 20], n_prompts=2)
    many = cells([["a"] * 20, ["b"] * 20], n_prompts=10)
    assert effects(few, {"b": "b"})["unit"].unique().to_list() == ["text"]
    assert effects(many, {"b": "b"})["unit"].unique().to_list() == ["prompt"]


def test_false_discoveries_are_held_down_over_all_edits_together():
    # Forty edits that do nothing and one that always does.
    nothing = [["a", "b"] * 20 for _ in range(41)]
    flips = [*nothing, ["b"] * 40]
    table = effects(cells(flips), {"b": "b"}).filter(pl.col("outcome") == "b")
    assert (table["q"] >= table["p"]).all()
    assert table.filter(pl.col("q") < 0.05)["cell"].to_list() == [41]


def test_what_never_differs_has_no_interval_without_width():
    nothing = [["a", "b"] * 10] * 2
    texts = effects(cells(nothing, n_prompts=2), {"b": "b"}).row(0, named=True)
    assert texts["low"] < texts["difference"] == 0 < texts["high"]
    prompts = effects(cells(nothing, n_prompts=10), {"b": "b"}).row(0, named=True)
    assert prompts["difference"] == 0
    assert math.isnan(prompts["low"])
    assert math.isnan(prompts["high"])


def test_controls_are_told_apart_and_make_no_discovery_easier():
    table = cells([["a"] * 20, ["b"] * 20, ["b"] * 6 + ["a"] * 14])
    is_control = pl.col("cell") == 1
    kinds = pl.when(is_control).then(pl.lit("reconstruction")).otherwise(pl.col("kind"))
    found = effects(table.with_columns(kind=kinds), {"b": "b"}).filter(pl.col("outcome") == "b")
    control, edit = found.rows(named=True)
    assert control["p"] < 1e-5
    assert math.isnan(control["q"])
    assert edit["q"] == edit["p"]


def test_tests_and_corrections_are_those_of_statsmodels():
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.multitest import multipletests

    luck = np.random.default_rng(0)
    shares = [0.4, *luck.uniform(0.1, 0.9, 12)]
    texts = [["b" if number < share else "a" for number in luck.random(30)] for share in shares]
    found = effects(cells(texts), {"b": "b"}).filter(pl.col("outcome") == "b")
    base, *others = np.array(texts) == "b"
    counts = [
        [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), 0]] for a in others for b in [base]
    ]
    p = [mcnemar(table, exact=True).pvalue for table in counts]
    np.testing.assert_allclose(found["p"], p)
    np.testing.assert_allclose(found["q"], multipletests(p, method="fdr_bh")[1])


def test_shares_of_the_baseline_are_by_prompt():
    table = baseline_shares(cells([["a", "b", "b", "b"], ["a"] * 4]), {"b": "b"})
    assert table.select("prompt", "n", "share").rows() == [("p0", 2, 0.5), ("p1", 2, 1.0)]


def test_what_is_no_outcome_or_no_sweep_says_so():
    table = cells([["a", "b"], ["a", "b"]])
    with pytest.raises(ConfigError, match="no regular expression"):
        effects(table, {"x": "("})
    with pytest.raises(ConfigError, match="cannot be called 'text'"):
        effects(table, {"text": "a"})
    with pytest.raises(ConfigError, match="have no baseline"):
        effects(table.filter(pl.col("cell") == 1), {"x": "a"})
