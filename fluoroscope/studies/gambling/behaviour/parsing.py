"""How replies were read: by which rules, how often asked again, and what was given up."""

from collections.abc import Sequence

import polars as pl

from fluoroscope.studies.gambling.behaviour.frames import GAME, groups, need
from fluoroscope.studies.gambling.behaviour.tables import MEASURED, measure
from fluoroscope.studies.gambling.logs import played

_DECISION = [*GAME, "decision"]


def rule_counts(attempts: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """How many attempts, `n` and their share of all, each rule, problem and adjustment had.

    What went wrong with an endpoint is one problem, `error`, whatever the error said.
    """
    keys = list(dict.fromkeys(["arm", *by]))
    need(attempts, [*keys, "rule", "problem", "adjustment"], "rule_counts")
    of_rule = ["rule", "problem", "adjustment"]
    return (
        attempts.with_columns(pl.col("problem").str.replace("^error:.*$", "error"))
        .group_by(*keys, *of_rule)
        .agg(n=pl.len().cast(pl.Int64))
        .with_columns(share=pl.col("n") / pl.col("n").sum().over(keys))
        .sort(*keys, "n", *of_rule, descending=[*[False] * len(keys), True, *[False] * 3])
    )


def attempts_per_decision(attempts: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """How many decisions, `n` and their share of all, took so many attempts, `is_read` or not."""
    keys = list(dict.fromkeys(["arm", *by]))
    return (
        _decisions(attempts, keys)
        .group_by(*keys, "n_attempts", "is_read")
        .agg(n=pl.len().cast(pl.Int64))
        .with_columns(share=pl.col("n") / pl.col("n").sum().over(keys))
        .sort(*keys, "n_attempts", "is_read")
    )


def reading_quality(
    attempts: pl.DataFrame,
    games: pl.DataFrame,
    max_attempts: int,
    by: Sequence[str] = (),
) -> pl.DataFrame:
    """A row for each arm, level of `by` and `metric`: n, mean and 95 % interval of

    - `truncated`, `empty`, `unparsed`, `error`: shares of attempts with that problem;
    - `adjusted`: share of the attempts that were played with another amount than was said;
    - `attempts`: attempts for a decision; `given_up`: share of decisions without a readable reply;
      `cap_reached`: share given up after `max_attempts`;
    - `invalid`: share of games that ended because nothing could be read any more.

    Intervals are over games: replies of one are alike.
    """
    decisions = _decisions(attempts, [*by, "condition", "repetition"]).with_columns(
        attempts=pl.col("n_attempts"),
        given_up=~pl.col("is_read"),
        cap_reached=~pl.col("is_read") & (pl.col("n_attempts") >= max_attempts),
    )
    adjusted = played(attempts).with_columns(adjusted=pl.col("adjustment") != "")
    invalid = games.with_columns(invalid=pl.col("outcome") == "invalid")
    return pl.concat(
        [
            _table(attempts.with_columns(**_PROBLEMS), list(_PROBLEMS), by),
            _table(adjusted, ["adjusted"], by),
            _table(decisions, ["attempts", "given_up", "cap_reached"], by),
            _table(invalid, ["invalid"], by),
        ]
    )


_PROBLEMS = {
    "truncated": pl.col("problem") == "truncated",
    "empty": pl.col("problem") == "empty",
    "unparsed": pl.col("problem") == "unparsed",
    "error": pl.col("problem").str.starts_with("error"),
}


def _decisions(attempts: pl.DataFrame, keep: Sequence[str]) -> pl.DataFrame:
    need(attempts, [*_DECISION, *keep, "is_played"], "A table of decisions")
    others = [name for name in dict.fromkeys(keep) if name not in _DECISION]
    return attempts.group_by(_DECISION).agg(
        pl.col(others).first(),
        n_attempts=pl.len().cast(pl.Int64),
        is_read=pl.col("is_played").any(),
    )


def _table(rows: pl.DataFrame, names: Sequence[str], by: Sequence[str]) -> pl.DataFrame:
    keys = {key: rows.schema[key] for key in dict.fromkeys(["arm", *by])}
    needed = [*dict.fromkeys([*keys, *GAME, "condition", "repetition"]), *names]
    found = [
        {**about, "metric": name, **measure(part, name, "game")}
        for about, part in groups(rows.select(needed), by, "reading_quality")
        for name in names
    ]
    schema = {**keys, "metric": pl.String, **MEASURED}
    return pl.DataFrame(found, schema=schema, infer_schema_length=None)
