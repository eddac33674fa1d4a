"""The AUROC of one run minus that of another, over the questions that both were asked.

Where both scored the same answers in the same folds, answers are compared one by one
(`comparisons.compare`). Where each model gave answers of its own, labels differ, and what the two
share is the question: groups are drawn again for both at once, and the AUROC of each is of its own
answers. Both leave out what makes a question hard for either.

Axes: n rows, b resamples, g groups.
"""

from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool

from fluoroscope.core.intervals import MIN_UNITS
from fluoroscope.runs.run import Run
from fluoroscope.studies.hallucination.detection.comparisons import (
    Comparison,
    compare,
    compare_groups,
)
from fluoroscope.studies.hallucination.detection.scores import (
    Scored,
    scored,
)
from fluoroscope.studies.hallucination.steps.answers import read_answer_records
from fluoroscope.studies.hallucination.steps.features import readable_answers

How = Literal["answers", "questions"]


class Shared(NamedTuple):
    """What two runs have in common."""

    one: Bool[np.ndarray, " n"]
    """Rows of the first that are kept."""

    other: Bool[np.ndarray, " m"]
    n_groups: int
    is_same_rows: bool
    """Row by row the same answers, with the same labels."""


def shared_questions(one: Run, other: Run) -> Shared:
    """Answers to prompts that both runs have, in groups of the same name."""
    mine, theirs = _asked(one), _asked(other)
    keys = ["group_id", "prompt"]
    both = mine.select(keys).unique().join(theirs.select(keys).unique(), on=keys, how="inner")
    kept = [
        frame.join(both.with_columns(kept=True), on=keys, how="left", maintain_order="left")
        for frame in (mine, theirs)
    ]
    masks = [frame["kept"].fill_null(False).to_numpy() for frame in kept]
    what = ["id", "group_id", "prompt", "completion", "label"]
    rows = [frame.filter(pl.col("kept")).select(what) for frame in kept]
    return Shared(masks[0], masks[1], both["group_id"].n_unique(), rows[0].equals(rows[1]))


def compare_paired(
    one: Scored, other: Scored, shared: Shared, seed: int, n_resamples: int
) -> tuple[Comparison, How] | None:
    """`one` minus `other`, and what was paired; None where too little is shared for it."""
    first, second = _kept(one, shared.one), _kept(other, shared.other)
    if first is None or second is None or shared.n_groups < MIN_UNITS:
        return None
    if shared.is_same_rows and np.array_equal(first.folds, second.folds):
        return compare(first, second, seed, n_resamples), "answers"
    return compare_groups(first, second, seed, n_resamples), "questions"


def _kept(rows: Scored, is_kept: Bool[np.ndarray, " n"]) -> Scored | None:
    labels = rows.labels[is_kept]
    if labels.all() or not labels.any():
        return None
    return scored(rows.scores[:, is_kept], labels, rows.groups[is_kept], rows.folds[:, is_kept])


def _asked(run: Run) -> pl.DataFrame:
    records = [(one.id, one.prompt, one.completion) for one in read_answer_records(run)]
    schema = ["id", "prompt", "completion"]
    texts = pl.DataFrame(records, schema=schema, orient="row")
    answers = readable_answers(run).select("id", "group_id", "label")
    return answers.join(texts, on="id", how="left", maintain_order="left")
