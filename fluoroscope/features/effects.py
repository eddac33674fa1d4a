"""What edits did to texts: shares of outcomes against the baseline of the same luck.

Every text has a counterpart that was written without the edit, to the same prompt and by the same
random numbers, so an effect is a mean of paired differences. Nothing here needs a model: texts
can be read again with other outcomes at any time.
"""

import math
import re
from collections.abc import Collection, Mapping

import numpy as np
import polars as pl
from jaxtyping import Bool, Float
from scipy.stats import binomtest, false_discovery_control

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.intervals import (
    MIN_UNITS,
    Interval,
    mean_interval,
    paired_interval,
    share_interval,
)

CHANGED = "changed"
"""The outcome that a text is not, letter for letter, its baseline."""

_WITHOUT = " without"
_OF_LATENTS = ("set", "scale")
_CELL = ["cell", "kind", "condition", "hook_point", "latent", "value"]


def effects(cells: pl.DataFrame, outcomes: Mapping[str, str]) -> pl.DataFrame:
    """One row for each edit and outcome.

    `cells` has a row a text: prompt, cell, kind, condition, hook_point, latent, value, trial, text.
    `outcomes` are regular expressions that are looked for in the text. Columns: n texts; share
    with the outcome; its difference from the baseline with a 95 % interval, over prompts where
    there are 10 or more, else over texts (`unit`), and none where no prompt differs from another;
    p of the exact McNemar test over texts, and q after Benjamini-Hochberg over all edits of latents
    and outcomes together. Controls have no q: to find what is known to act would let more of the
    others pass.
    """
    read = _with_outcomes(cells, outcomes)
    names = [*outcomes, CHANGED]
    rows = []
    for part in read.partition_by("cell", maintain_order=True):
        about = part.select(_CELL).row(0, named=True)
        if about["kind"] == "baseline":
            continue
        for name in names:
            rows.append({**about, "outcome": name, **_effect(part, name)})
    frame = pl.DataFrame(rows, schema=_SCHEMA, orient="row")
    is_tested = frame["kind"].is_in(_OF_LATENTS) & frame["p"].is_not_nan()
    return frame.with_columns(_q_values(frame["p"].to_numpy(), is_tested.to_numpy()))


def baseline_shares(cells: pl.DataFrame, outcomes: Mapping[str, str]) -> pl.DataFrame:
    """prompt, outcome, n and share of the texts without edits."""
    read = _with_outcomes(cells.filter(pl.col("kind") == "baseline"), outcomes)
    return (
        read.unpivot(list(outcomes), index="prompt", variable_name="outcome", value_name="is_so")
        .group_by("prompt", "outcome", maintain_order=True)
        .agg(n=pl.len(), share=pl.col("is_so").mean())
    )


def check_outcomes(outcomes: Mapping[str, str], columns: Collection[str]) -> None:
    """Raises `ConfigError` for what is no regular expression, or has a name of one of `columns`."""
    for name, pattern in outcomes.items():
        if name in (CHANGED, *columns) or name.endswith(_WITHOUT):
            raise ConfigError(f"An outcome cannot be called {name!r}; give it another name.")
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(
                f"The outcome {name} is no regular expression ({error}): {pattern!r}."
            ) from error


def _with_outcomes(cells: pl.DataFrame, outcomes: Mapping[str, str]) -> pl.DataFrame:
    """The texts, whether each has an outcome, and whether its baseline has."""
    check_outcomes(outcomes, cells.columns)
    texts = cells["text"].to_list()
    found = {
        name: [re.search(pattern, text) is not None for text in texts]
        for name, pattern in outcomes.items()
    }
    read = cells.with_columns(pl.Series(name, is_so, pl.Boolean) for name, is_so in found.items())
    base = read.filter(pl.col("kind") == "baseline")
    base = base.select("prompt", "trial", "text", *outcomes)
    joined = read.join(
        base, on=["prompt", "trial"], how="left", suffix=_WITHOUT, maintain_order="left"
    )
    if joined[f"text{_WITHOUT}"].null_count():
        raise ConfigError("Some texts have no baseline: these cells are not those of a sweep.")
    return joined.with_columns(
        (pl.col("text") != pl.col(f"text{_WITHOUT}")).alias(CHANGED),
        pl.lit(value=False).alias(f"{CHANGED}{_WITHOUT}"),
    )


def _effect(part: pl.DataFrame, name: str) -> dict[str, object]:
    with_edit = part[name].to_numpy().astype(float)
    without = part[f"{name}{_WITHOUT}"].to_numpy().astype(float)
    difference = with_edit - without
    by_prompt = _means(part["prompt"].to_numpy(), difference)
    has_prompts = len(by_prompt) >= MIN_UNITS
    interval = _over_prompts(by_prompt) if has_prompts else _over_texts(difference, name)
    gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
    is_tested = name != CHANGED
    p = binomtest(gained, gained + lost).pvalue if is_tested and gained + lost else 1.0
    return {
        "n": len(part),
        "share": float(with_edit.mean()),
        "difference": interval.value,
        "low": interval.low,
        "high": interval.high,
        "unit": "prompt" if has_prompts else "text",
        "p": float(p) if is_tested else math.nan,
    }


def _over_prompts(differences: Float[np.ndarray, " prompts"]) -> Interval:
    if np.ptp(differences) == 0:
        # Prompts that are all alike do not tell how much others may differ.
        return Interval(float(differences[0]), math.nan, math.nan)
    return mean_interval(differences)


def _over_texts(differences: Float[np.ndarray, " n"], name: str) -> Interval:
    if name == CHANGED:
        return share_interval(differences > 0)
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    return paired_interval(gained, lost, len(differences))


def _means(groups: np.ndarray, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " groups"]:
    _, which = np.unique(groups, return_inverse=True)
    return np.bincount(which, values) / np.bincount(which)


def _q_values(p: Float[np.ndarray, " n"], is_tested: Bool[np.ndarray, " n"]) -> pl.Series:
    q = np.full(len(p), math.nan)
    if is_tested.any():
        q[is_tested] = false_discovery_control(p[is_tested])
    return pl.Series("q", q)


_SCHEMA = {
    "cell": pl.Int64,
    "kind": pl.String,
    "condition": pl.String,
    "hook_point": pl.String,
    "latent": pl.Int64,
    "value": pl.Float64,
    "outcome": pl.String,
    "n": pl.Int64,
    "share": pl.Float64,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "unit": pl.String,
    "p": pl.Float64,
}
