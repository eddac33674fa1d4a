"""Decisions as rows: what was known when each was made, what was done, and how the game ended.

The columns that later steps adjust for (`covariates`) are those by which bankrupt games differ
from safe ones in plain sight: balance, round, losses, the last outcome, bet type, parts of the
prompt, its length.
"""

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from fluoroscope.core.seeding import stream

NOT_FACTORS = frozenset({"game", "arm", "condition", "repetition"})
SAFE, BANKRUPT = "voluntary_stop", "bankruptcy"


def decision_states(
    attempts: pl.DataFrame, games: pl.DataFrame, *, only_last: bool
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A row a decision, and the prompts that they have (`row` -> `prompt`), each once.

    The prompt is that of the first attempt, without a reminder; `action` and `amount` are those
    of the attempt that was played, null where none was. `is_last` marks the last decision of a
    game, `ending` is how the game ended.
    """
    decisions = attempts.sort(
        "repetition", "condition", "arm", "decision", "attempt", maintain_order=True
    )
    keys = ["game", "arm", "decision"]
    played = decisions.filter("is_played").select(
        *keys, pl.col("action").alias("action"), "amount", "response", "won", "payout"
    )
    first = decisions.filter(pl.col("attempt") == 1).drop(
        "action", "amount", "response", "won", "payout", "outcome", "is_played", "attempt"
    )
    states = first.join(played, on=keys, how="left", maintain_order="left").join(
        games.select("game", "arm", pl.col("outcome").alias("ending")),
        on=["game", "arm"],
        how="left",
        maintain_order="left",
    )
    last = pl.col("decision") == pl.col("decision").max().over("game", "arm")
    states = states.with_columns(last.alias("is_last"))
    if only_last:
        states = states.filter("is_last")
    prompts = states.select("prompt").unique(maintain_order=True).with_row_index("row")
    states = states.join(prompts, on="prompt", how="left", maintain_order="left")
    return states.drop("prompt"), prompts


def covariates(
    states: pl.DataFrame, lengths: Int[np.ndarray, " rows"], factors: list[str]
) -> Float[np.ndarray, "n k"]:
    """What is adjusted for: balance, round, losses, last outcome, factors, length of the prompt.

    `lengths` are those of the prompts, in characters. Parts of a prompt are a column each.
    """
    columns = [
        states["balance"].to_numpy().astype(float),
        np.log(states["balance"].to_numpy().clip(min=1)),
        states["round"].to_numpy().astype(float),
        states["losses"].to_numpy().astype(float),
        (states["last_won"].fill_null(value=False)).to_numpy().astype(float),
        states["last_won"].is_null().to_numpy().astype(float),
        lengths[states["row"].to_numpy()].astype(float),
    ]
    for factor in factors:
        values = states[factor].to_list()
        if factor == "components":
            letters = sorted({letter for value in values if value != "BASE" for letter in value})
            columns += [
                np.array([letter in value and value != "BASE" for value in values], float)
                for letter in letters
            ]
        else:
            levels = sorted(set(values))[1:]
            columns += [np.array([value == level for value in values], float) for level in levels]
    return np.column_stack(columns) if len(states) else np.zeros((0, len(columns)))


def codes(values: pl.Series) -> Int[np.ndarray, " n"]:
    """The same number for the same value, in the order of the values' names."""
    return values.rank("dense").to_numpy().astype(np.int64) - 1


def one_decision_a_game(states: pl.DataFrame, n: int, seed: int, *names: str) -> pl.DataFrame:
    """`n` decisions of as many games, at most; every repetition in turn, games at random, and a
    random decision of each that may be a stop, so that no game counts twice.
    """
    random = stream(seed, "states", *names)
    is_in_hand = pl.col("action").is_in(["hit", "stand"]).fill_null(value=False)
    states = states.filter(~is_in_hand)
    shuffled = states.with_columns(pl.Series("_luck", random.random(len(states))))
    one = shuffled.sort("_luck").unique("game", keep="first", maintain_order=True)
    turn = pl.col("_luck").rank("ordinal").over("repetition")
    # Equal prompts would be the same measurement twice.
    chosen = one.with_columns(turn.alias("_turn")).sort("_turn", "_luck")
    return chosen.unique("row", keep="first", maintain_order=True).head(n).drop("_luck", "_turn")
