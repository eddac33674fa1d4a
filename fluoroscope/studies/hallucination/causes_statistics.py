"""What edits of tracks do to the gap between answer and rival, beside what their controls do.

The gap is log p(answer) - log p(rival) at the first token at which they differ, in nats: a
difference of logits. Two things are asked of an edit: does it move the gap in one direction
(`CHANGE`), and how far does it move it, in whichever direction (`SIZE`)? Every answer is its own
pair: the mean of its controls is taken from its own value. p is by random signs of the groups'
differences (Fisher 1935, section 21): the change of a winning track may vary more than those of
its controls, which an exchange of the two would take for a difference of means. All p are
adjusted together (Holm).

Axes: n answers.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Shaped

from fluoroscope.core.intervals import Interval, clustered_mean_interval
from fluoroscope.core.seeding import stream
from fluoroscope.studies.hallucination.causes import (
    ABLATE,
    BOOST,
    CONTROLS,
    EDITS,
    ELSEWHERE,
    ITSELF,
    LOSING,
    ROLES,
    TRACKS,
    WINNING,
)
from fluoroscope.studies.hallucination.detection.comparisons import holm

CHANGE, SIZE = "change", "size"
MEASURES = (CHANGE, SIZE)
ANSWERS: Mapping[str, int] = {"true": 0, "made up": 1}
N_FLIPS = 9999
ALPHA = 0.05
EXPECTED = {(WINNING, ABLATE): -1, (WINNING, BOOST): 1, (LOSING, ABLATE): 1, (LOSING, BOOST): -1}
"""Sign of the change of the gap where the two tracks compete for the answer."""


class Cell(NamedTuple):
    answers: str
    role: str
    edit: str
    measure: str


class _Change(NamedTuple):
    cell: Cell
    is_expected: bool
    said: str


def cells() -> Iterator[Cell]:
    """All that is compared with its controls."""
    return itertools.starmap(Cell, itertools.product(ANSWERS, ROLES, EDITS, MEASURES))


def means(effects: pl.DataFrame) -> pl.DataFrame:
    """A row for each cell and kind of edits, of the track itself and of its controls, which are
    averaged within an answer first: n answers, the points of a track on average, and the mean
    with its 95 % interval over groups.
    """
    found = _by_answer(effects)
    rows = []
    for cell in cells():
        for kind in (ITSELF, *CONTROLS):
            part = _part(found, cell).filter(kind=kind)
            interval = _over_groups(part[cell.measure].to_numpy(), part["group_id"].to_numpy())
            rows.append((*cell, kind, len(part), part["n_points"].mean(), *interval))
    return pl.DataFrame(rows, schema=_MEANS, orient="row")


def comparisons(effects: pl.DataFrame, seed: int) -> pl.DataFrame:
    """A row for each cell and kind of controls: the mean difference of a track from its controls
    with its 95 % interval over groups, p, and p after Holm over all rows.
    """
    found = _by_answer(effects)
    rows = []
    for cell in cells():
        part = _part(found, cell)
        for against in CONTROLS:
            theirs = part.filter(kind=against).select("id", cell.measure, "n_controls")
            own = part.filter(kind=ITSELF).drop("n_controls")
            pair = own.join(theirs, on="id", suffix="_theirs", maintain_order="left")
            difference = (pair[cell.measure] - pair[f"{cell.measure}_theirs"]).to_numpy()
            groups = pair["group_id"].to_numpy()
            interval = _over_groups(difference, groups)
            n_controls = pair["n_controls"].mean()
            p = sign_flip_p(difference, groups, seed)
            rows.append((*cell, against, len(pair), n_controls, *interval, p))
    frame = pl.DataFrame(rows, schema=_COMPARISONS, orient="row")
    return frame.with_columns(pl.Series("p_holm", holm(frame["p"].to_numpy())))


def sign_flip_p(
    differences: Float[np.ndarray, " n"], groups: Shaped[np.ndarray, " n"], seed: int
) -> float:
    """Of a mean of 0, two-sided: how often random signs of the groups' sums give as large a sum;
    NaN of nothing.

    It takes differences to be as likely as their opposites. Of skewed ones with a mean of 0 it is
    too small: in simulations 7 to 14 of 100 were below 0.05.
    """
    if not len(differences):
        return float("nan")
    _, which = np.unique(groups, return_inverse=True)
    sums = np.bincount(which, differences)
    random = stream(seed, "causes", "signs")
    signs = 2.0 * random.integers(2, size=(N_FLIPS, len(sums))) - 1
    # Equal up to rounding is as large.
    enough = abs(sums.sum()) - 1e-9 * np.abs(sums).sum()
    return float((1 + (np.abs((signs * sums).sum(axis=1)) >= enough).sum()) / (1 + N_FLIPS))


def verdict(found: pl.DataFrame) -> str:
    """What `comparisons` shows, or that it shows nothing.

    An edit counts only where it differs from both kinds of controls, in one direction, each with
    an interval without 0 and p of at most 0.05 after Holm. A contest takes edits of both tracks
    that do what is expected in one kind of answers, and none there that goes against it.
    """
    if not found["n"].sum():
        return "No track could be edited, so nothing is said of what tracks cause."
    changes: list[_Change] = []
    further = []
    for cell in cells():
        rows = {row["against"]: row for row in _part(found, cell).iter_rows(named=True)}
        sign = _shown_sign(rows)
        if sign and cell.measure == CHANGE:
            is_expected = sign == EXPECTED[cell.role, cell.edit]
            changes.append(_Change(cell, is_expected, _said(cell, rows)))
        elif sign > 0:
            further.append(_said(cell, rows))
    said = list(_claims(changes))
    against = [one.said for one in changes if not one.is_expected]
    if against:
        said.append(f"Against what a contest would do: {'; '.join(against)}.")
    if not said:
        said.append(
            "That the winning or the losing track decides the answer is not shown: none of their "
            "edits moves the gap in one direction beyond both kinds of controls."
        )
    if further:
        said.append(
            "Edits of these tracks move the gap further than both kinds of controls do, in "
            f"whichever direction: {'; '.join(further)}."
        )
    return " ".join(said)


_CELL = dict.fromkeys(Cell._fields, pl.String)
_MEANS = {
    **_CELL,
    "kind": pl.String,
    "n": pl.Int64,
    "n_points": pl.Float64,
    "mean": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}
_COMPARISONS = {
    **_CELL,
    "against": pl.String,
    "n": pl.Int64,
    "n_controls": pl.Float64,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "p": pl.Float64,
}
_ALONE = {
    WINNING: "The winning track carries the answer",
    LOSING: "The losing track holds the answer back",
}
_DOING = {ABLATE: "ablating", BOOST: "boosting"}


def _by_answer(effects: pl.DataFrame) -> pl.DataFrame:
    """A row an answer, role, kind and edit."""
    answers = {label: name for name, label in ANSWERS.items()}
    keys = ["id", "group_id", "answers", "role", "kind", "edit"]
    named = effects.with_columns(
        pl.col("label").replace_strict(answers, return_dtype=pl.String).alias("answers")
    )
    return named.group_by(keys, maintain_order=True).agg(
        pl.len().alias("n_controls"),
        pl.col("n_points").mean(),
        pl.col("change").mean().alias(CHANGE),
        pl.col("change").abs().mean().alias(SIZE),
    )


def _part(found: pl.DataFrame, cell: Cell) -> pl.DataFrame:
    about = cell._asdict()
    return found.filter(**{name: about[name] for name in about if name in found.columns})


def _over_groups(values: Float[np.ndarray, " n"], groups: Shaped[np.ndarray, " n"]) -> Interval:
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    return clustered_mean_interval(values, np.unique(groups, return_inverse=True)[1])


def _shown_sign(rows: Mapping[str, Mapping[str, Any]]) -> int:  # Any: a row of a table.
    """The direction in which a track differs from both kinds of controls; 0 if it is not shown."""
    signs = {
        int(np.sign(row["difference"]))
        if row["p_holm"] <= ALPHA and (row["low"] > 0 or row["high"] < 0)
        else 0
        for row in rows.values()
    }
    return signs.pop() if len(signs) == 1 else 0


def _claims(changes: Sequence[_Change]) -> Iterator[str]:
    """What edits that do as expected say, each kind of answers by itself."""
    shown: dict[str, list[str]] = {}
    for one in changes:
        here = [other for other in changes if other.cell.answers == one.cell.answers]
        own = [other for other in here if other.cell.role == one.cell.role]
        if {other.cell.role for other in here} == set(ROLES) and _all_expected(here):
            claim = "The two tracks compete for the answer"
        elif _all_expected(own):
            claim = _ALONE[one.cell.role]
        else:
            claim = "As a contest would have it"
        if one.is_expected:
            shown.setdefault(claim, []).append(one.said)
    for claim, said in shown.items():
        yield f"{claim}: {'; '.join(said)}."


def _all_expected(changes: Sequence[_Change]) -> bool:
    return all(one.is_expected for one in changes)


def _said(cell: Cell, rows: Mapping[str, Mapping[str, Any]]) -> str:  # Any: see `_shown_sign`.
    values = {
        name: f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        for name, row in rows.items()
    }
    return (
        f"{_DOING[cell.edit]} the {cell.role} track of {cell.answers.replace(' ', '-')} answers "
        f"({values[TRACKS]} nats against other tracks, {values[ELSEWHERE]} against as large a "
        "change elsewhere)"
    )
