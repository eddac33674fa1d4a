"""Replies read again: a pure function of a log, the game and the grammar of this version."""

import polars as pl

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.gambling.config import GamblingConfig
from fluoroscope.studies.gambling.episodes import Reply, problem_of
from fluoroscope.studies.gambling.reading import GRAMMAR, settle
from fluoroscope.studies.gambling.situations import state_before

_SHOWN = ["game", "decision", "attempt", "response", "grammar", "rule", "action", "amount"]


def reread(
    config: GamblingConfig, attempts: pl.DataFrame, min_confidence: float | None = None
) -> pl.DataFrame:
    """Every attempt as it was read, and as it is read now: `new_rule`, `new_confidence`,
    `new_action`, `new_amount`, `new_problem`, `is_same`.

    The state that a reply answers is replayed from what was played, whatever is read now.
    """
    if config.play.log is not None:
        raise ConfigError(
            "These games were imported: their replies were read by whoever played them, and the "
            "grammar of their prompts is not known."
        )
    least = config.play.retries.min_confidence if min_confidence is None else min_confidence
    games, rows = config.table.games(), []
    for _, log in attempts.group_by("game", "arm", maintain_order=True):
        game = games[log["condition"][0]]
        states = {
            number: state_before(config, game, log, number)
            for number in log["decision"].unique().to_list()
        }
        for row in log.iter_rows(named=True):
            state = states[row["decision"]]
            reading = game.read(row["response"], state)
            settled = settle(reading, game.legal(state), least)
            reply = Reply(row["response"], row["finish"])
            problem = problem_of(reply, settled.problem, is_open=reading.is_open)
            action = None if problem else settled.action
            kind = None if action is None else action.kind
            amount = None if action is None else action.amount
            is_same = kind == row["action"] and amount == row["amount"]
            new = (reading.rule, reading.confidence, kind, amount, problem, is_same)
            rows.append((*(row[name] for name in _SHOWN), GRAMMAR, *new))
    kinds = {name: attempts.schema[name] for name in _SHOWN}
    schema = {
        **kinds, "new_grammar": pl.String, "new_rule": pl.String, "new_confidence": pl.Float64,
        "new_action": pl.String, "new_amount": pl.Int64, "new_problem": pl.String,
        "is_same": pl.Boolean,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def agreement(found: pl.DataFrame) -> pl.DataFrame:
    """How often each rule read what, before and now."""
    columns = ["grammar", "rule", "action", "new_grammar", "new_rule", "new_action", "is_same"]
    counted = (
        found.group_by(columns).agg(n=pl.len()).sort("n", *columns, descending=[True] + [False] * 7)
    )
    return counted.with_columns(share=pl.col("n") / max(1, len(found)))
