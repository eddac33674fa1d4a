"""Which test samples a report shows one by one: chosen by a rule and the seed, never by hand.

Axes: none.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import polars as pl

from fluoroscope.core.seeding import stream

Why = Literal["better", "worse", "changed alike", "unchanged"]
"""The score rose, or fell; another reply of the same score; the same reply and the same score."""

N_EACH = 3
ROUNDING = 1e-6
"""A change of score that is none: float32 noise of graded scores."""


def changes(before: pl.DataFrame, after: pl.DataFrame) -> list[Why]:
    """Of each sample; two tables of `replies_table.SCHEMA`, of the same samples in one order."""
    difference = after["score"].to_numpy() - before["score"].to_numpy()
    is_same = (before["text"] == after["text"]).to_list()
    found: list[Why] = []
    for moved, same in zip(difference.tolist(), is_same, strict=True):
        if abs(moved) > ROUNDING:
            found.append("better" if moved > 0 else "worse")
        else:
            found.append("unchanged" if same else "changed alike")
    return found


def choose_samples(
    before: pl.DataFrame, after: pl.DataFrame, seed: int, n_each: int = N_EACH
) -> Mapping[Why, list[str]]:
    """Ids by what became of them: of each kind the first in the order that the seed gives, one of
    a group, replies that differ before those whose score alone does.
    """
    kinds = np.array(changes(before, after))
    is_other = (before["text"] != after["text"]).to_numpy()
    ids, groups = before["id"].to_list(), before["group"].to_list()
    drawn = stream(seed, "steering", "shown").permutation(len(ids)).tolist()
    order = sorted(drawn, key=lambda place: not is_other[place])
    chosen: dict[Why, list[str]] = {why: [] for why in get_args(Why)}
    seen: set[tuple[str, str]] = set()
    for place in order:
        why: Why = kinds[place].item()
        if len(chosen[why]) < n_each and (why, groups[place]) not in seen:
            chosen[why].append(ids[place])
            seen.add((why, groups[place]))
    return chosen
