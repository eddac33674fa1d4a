"""What a connection run found: right answers of every arm, paired with the main one's."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool

from fluoroscope.core.intervals import Interval
from fluoroscope.data.questions.scoring import answer_scores, judged, right
from fluoroscope.features.multiple_tests import benjamini_hochberg
from fluoroscope.runs.run import Run
from fluoroscope.steps.comparing_arms import (
    Difference,
    Draws,
    Outcome,
    accuracy_interval,
    compare_right,
    outcome_of,
)
from fluoroscope.studies.connection.config import ConnectionConfig
from fluoroscope.studies.connection.steps.questions import (
    AskedSet,
    about_set,
    load_questions,
    prior_answers,
)
from fluoroscope.studies.connection.steps.train import CURVES, TRAIN, TRAININGS
from fluoroscope.studies.connection.steps.training_loop import ANSWERS

Right = Bool[np.ndarray, "seeds n"]


@dataclass(frozen=True)
class Beside:
    """The main arm less another one."""

    arm: str
    difference: Difference
    q: float
    """p with all comparisons of the run corrected together (Benjamini-Hochberg)."""

    outcome: Outcome


@dataclass(frozen=True)
class SetFindings:
    name: str
    asked: AskedSet
    about: Mapping[str, Any]  # Any: JSON values.
    depths: tuple[int | None, ...]
    """Of the test questions, in the order of their rows."""

    draws: Draws
    arms: Mapping[str, Right]
    """In the order asked for, priors last; a prior has the same answers with each seed."""

    answers: pl.DataFrame
    """Of the test side: a row an arm, seed and question."""

    beside: tuple[Beside, ...] = ()

    @property
    def main(self) -> str:
        return next(iter(self.arms))

    def accuracy(self, arm: str) -> Interval:
        return accuracy_interval(self.arms[arm], self.draws)

    @property
    def trained_depths(self) -> list[int]:
        """Of the training side, as far as its questions say them."""
        return sorted(int(depth) for depth in self.about["depths"]["train"] if depth.isdecimal())

    @property
    def all_depths(self) -> list[int]:
        return sorted({depth for depth in self.depths if depth is not None})


@dataclass(frozen=True)
class Findings:
    config: ConnectionConfig
    sets: tuple[SetFindings, ...]
    curves: pl.DataFrame
    trainings: pl.DataFrame


def load_findings(
    run: Run, config: ConnectionConfig, step: str = TRAIN, main: str | None = None
) -> Findings:
    """`main` is the arm that others are compared with, by default the first."""
    folder = run.step_folder(step)
    answers = pl.read_parquet(folder / ANSWERS).filter(pl.col("side") == "test")
    names = answers["dataset"].unique(maintain_order=True)
    sets = [_of_set(run, config, name, answers, main) for name in names]
    return Findings(
        config=config,
        sets=tuple(_compared(sets, config)),
        curves=pl.read_parquet(folder / CURVES),
        trainings=pl.read_parquet(folder / TRAININGS),
    )


def scores_of_arm(one: SetFindings, arm: str) -> dict[str, float]:
    """Mean over seeds of accuracy, exact match, parse rate and F1."""
    seeds = one.answers.filter(pl.col("arm") == arm)["seed"].unique(maintain_order=True)
    found = [scores_of_training(one, arm, seed) for seed in seeds]
    return {name: float(np.mean([scores[name] for scores in found])) for name in found[0]}


def scores_of_training(one: SetFindings, arm: str, seed: int) -> dict[str, float]:
    """The same of one of them."""
    own = one.answers.filter((pl.col("arm") == arm) & (pl.col("seed") == seed))
    questions = one.asked.side("test")
    return answer_scores(questions, own["answer"].to_list(), one.asked.kind).as_dict()


def _of_set(
    run: Run, config: ConnectionConfig, name: str, answers: pl.DataFrame, main: str | None
) -> SetFindings:
    asked = load_questions(run, config, name)
    questions = asked.side("test")
    own = answers.filter(pl.col("dataset") == name)
    arms: dict[str, Right] = {}
    trained = own["arm"].unique(maintain_order=True).to_list()
    for arm in sorted(trained, key=lambda one: one != main):
        by_seed = own.filter(pl.col("arm") == arm).partition_by("seed", maintain_order=True)
        arms[arm] = np.stack([part["is_right"].to_numpy().astype(bool) for part in by_seed])
    n_seeds = len(next(iter(arms.values())))
    priors = prior_answers(run, name)
    for prior in priors.columns[1:]:
        said = right(judged(questions, priors[prior].to_list(), asked.kind))
        arms[prior] = np.repeat(said[None], n_seeds, axis=0)
    groups = [one.group_id for one in questions]
    return SetFindings(
        name=name,
        asked=asked,
        about=about_set(run, name),
        depths=tuple(one.depth for one in questions),
        draws=Draws(groups, n_seeds, config.seed),
        arms=arms,
        answers=own,
    )


def _compared(sets: list[SetFindings], config: ConnectionConfig) -> list[SetFindings]:
    """With the main arm beside each other one; all tests of the run are corrected together."""
    found = [
        (one.name, arm, compare_right(one.arms[one.main], rows, one.draws, config.seed))
        for one in sets
        for arm, rows in one.arms.items()
        if arm != one.main
    ]
    q = benjamini_hochberg(np.array([difference.p for _, _, difference in found]))
    beside: dict[str, list[Beside]] = {one.name: [] for one in sets}
    for (name, arm, difference), own in zip(found, q.tolist(), strict=True):
        outcome = outcome_of(difference.difference, own)
        beside[name].append(Beside(arm, difference, own, outcome))
    return [replace(one, beside=tuple(beside[one.name])) for one in sets]
