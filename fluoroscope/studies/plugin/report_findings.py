"""Findings: what a plug-in run left, read once for all parts of the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from fluoroscope.core.intervals import Interval
from fluoroscope.core.storage import read_json
from fluoroscope.features.multiple_tests import benjamini_hochberg
from fluoroscope.runs.run import Run
from fluoroscope.steps.comparing_arms import (
    Difference,
    Draws,
    Judged,
    Outcome,
    compare_accuracy,
    outcome_of,
    score_intervals,
)
from fluoroscope.studies.plugin.config import Arm, PluginConfig
from fluoroscope.studies.plugin.form import BASE, CONTROLS
from fluoroscope.studies.plugin.steps.choose import chosen_layer
from fluoroscope.studies.plugin.steps.texts import ABOUT, TEXTS, set_key
from fluoroscope.studies.plugin.steps.train import CURVES, TRAIN, read_train
from fluoroscope.studies.plugin.steps.training_loop import PREDICTIONS, STATE, Training


@dataclass(frozen=True, eq=False)
class Side:
    """What an arm, or several, were judged on."""

    groups: Sequence[str]
    parts: Sequence[str]
    draws: Draws


@dataclass(frozen=True, eq=False)
class SetFindings:
    """Of one data set."""

    name: str
    about: Mapping[str, Any]  # Any: JSON values of its set.json.
    layer: int | None
    """Of the main arm."""

    arms: Sequence[Arm]
    """The main one first."""

    judged: Mapping[str, Judged]
    """By an arm's key: on the test side."""

    side: Side
    elsewhere: Mapping[str, tuple[Judged, Side]]
    """The main arm on test sides of other sets."""

    @property
    def main(self) -> Arm:
        return self.arms[0]

    @property
    def n(self) -> int:
        return len(self.side.groups)


@dataclass(frozen=True, eq=False)
class Compared:
    """The main arm less another, with what all differences of the run together make of it."""

    dataset: str
    arm: Arm
    difference: Difference
    q: float

    @property
    def interval(self) -> Interval:
        return self.difference.difference

    @property
    def outcome(self) -> Outcome:
        return outcome_of(self.interval, self.q)


@dataclass(frozen=True, eq=False)
class Findings:
    config: PluginConfig
    sets: Sequence[SetFindings]
    curves: pl.DataFrame

    trainings: pl.DataFrame
    """A row a training: how it ended."""

    def scores(self, judged: Judged, side: Side) -> dict[str, Interval]:
        if id(judged) not in self._scores:
            self._scores[id(judged)] = score_intervals(judged, side.draws)
        return self._scores[id(judged)]

    @cached_property
    def _scores(self) -> dict[int, dict[str, Interval]]:
        return {}

    @cached_property
    def compared(self) -> list[Compared]:
        """The main arm of each data set less every arm beside it; q is over all of them."""
        found = [
            (
                one.name,
                arm,
                compare_accuracy(
                    one.judged[one.main.key], one.judged[arm.key], one.side.draws, self.config.seed
                ),
            )
            for one in self.sets
            for arm in one.arms[1:]
        ]
        q = benjamini_hochberg(np.array([difference.p for *_, difference in found]))
        return [Compared(*one, float(own)) for one, own in zip(found, q, strict=True)]

    def of_set(self, name: str) -> list[Compared]:
        return [one for one in self.compared if one.dataset == name]

    def is_sweep(self, one: SetFindings, arm: Arm) -> bool:
        """Whether an arm is the main one at a layer that was not chosen."""
        return arm is not one.main and arm.name == one.main.name and arm.layer is not None

    def named_arms(self, one: SetFindings) -> list[Arm]:
        """Those that are named one by one: not every layer of a sweep."""
        return [arm for arm in one.arms if not self.is_sweep(one, arm)]


def label_of(arm: Arm) -> str:
    """For people."""
    return arm.name if arm.layer is None else f"{arm.name}, layer {arm.layer}"


def is_control(arm: Arm) -> bool:
    return arm.name == BASE or arm.name in CONTROLS


def load_findings(run: Run, config: PluginConfig) -> Findings:
    """Of a run that is trained."""
    # Examples of a side are in the same order in each training.
    predictions = read_train(run, PREDICTIONS)
    return Findings(
        config=config,
        sets=[_set(run, config, name, predictions) for name in config.datasets],
        curves=read_train(run, CURVES),
        trainings=_trainings(run, config),
    )


def _set(run: Run, config: PluginConfig, name: str, predictions: pl.DataFrame) -> SetFindings:
    about = read_json(run.step_folder(TEXTS) / "shards" / set_key(name) / ABOUT)
    layer, n_classes = chosen_layer(run, config, name), len(about["classes"])
    arms = config.arms(layer)
    own = predictions.filter(pl.col("dataset") == name)
    tested = own.filter(pl.col("side") == "test")
    judged = {arm.key: judged_of(tested, arm, config.all_seeds, n_classes) for arm in arms}
    elsewhere = {}
    for other in config.test_on:
        there = own.filter(pl.col("side") == f"test of {other}")
        of_main = judged_of(there, arms[0], config.all_seeds, n_classes)
        elsewhere[other] = of_main, side_of(there, arms[0], config)
    return SetFindings(
        name, about, layer, arms, judged, side_of(tested, arms[0], config), elsewhere
    )


def judged_of(tested: pl.DataFrame, arm: Arm, seeds: Sequence[int], n_classes: int) -> Judged:
    """What an arm said, from the rows of one side of one data set; rows sorted by their ids."""
    own = _of_arm(tested, arm)
    by_seed = [own.filter(pl.col("seed") == seed).sort("id") for seed in seeds]
    true = pl.col("log_probs").list.get(pl.col("label"))
    return Judged(
        by_seed[0]["label"].to_numpy().astype(np.int64),
        np.stack([one["predicted"].to_numpy() for one in by_seed]).astype(np.int64),
        np.stack([one.select(-true).to_series().to_numpy() for one in by_seed]),
        n_classes,
    )


def side_of(tested: pl.DataFrame, arm: Arm, config: PluginConfig) -> Side:
    """Rows sorted by their ids."""
    own = _of_arm(tested, arm).filter(pl.col("seed") == config.seed).sort("id")
    groups = own["group"].to_list()
    return Side(groups, own["part"].to_list(), Draws(groups, config.seeds, config.seed))


def _of_arm(frame: pl.DataFrame, arm: Arm) -> pl.DataFrame:
    is_its = (pl.col("arm") == arm.name) & pl.col("layer").eq_missing(pl.lit(arm.layer))
    return frame.filter(is_its)


def _trainings(run: Run, config: PluginConfig) -> pl.DataFrame:
    rows = []
    for name in config.datasets:
        for arm in config.arms(chosen_layer(run, config, name)):
            for seed in config.all_seeds:
                training = Training(name, arm, seed)
                folder = run.step_folder(TRAIN) / "shards" / training.key
                state = read_json(folder / STATE)
                rows.append({**training.params, "best_epoch": state["best_epoch"],
                             "n_steps": state["steps"]})  # fmt: skip
    return pl.DataFrame(rows, infer_schema_length=None)
