"""Findings: the tables that an unlearning run left, read once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from fluoroscope.core.intervals import Interval
from fluoroscope.core.storage import read_json
from fluoroscope.runs.run import DONE, Run
from fluoroscope.studies.unlearning.judging import EVERY_CATEGORY
from fluoroscope.studies.unlearning.plans import UNTREATED_NAME, Plan, Role, UnlearningConfig
from fluoroscope.studies.unlearning.steps.cards import CARDS, CARDS_FILE
from fluoroscope.studies.unlearning.steps.detect import DETECT, FLAGS
from fluoroscope.studies.unlearning.steps.evaluate import (
    ACCURACY,
    CONTRASTS,
    DRIFT,
    EVALUATE,
    PEOPLE,
    RESULTS,
    STATEMENT,
)
from fluoroscope.studies.unlearning.steps.finetune import CHOSEN, FINETUNE, LOOKS
from fluoroscope.studies.unlearning.steps.relearn import CURVES, RELEARN
from fluoroscope.studies.unlearning.steps.select import chosen_rows, load_choices
from fluoroscope.studies.unlearning.steps.statistics import SETS, STATISTICS
from fluoroscope.studies.unlearning.steps.tune import TRIED, TUNE, load_settings

Row = Mapping[str, Any]  # Any: values of a table.


@dataclass(frozen=True, eq=False)
class Findings:
    config: UnlearningConfig
    sets: Row
    settings: Mapping[str, Row]
    """By kind and selection what was tuned."""

    accuracy: pl.DataFrame
    people: pl.DataFrame
    results: pl.DataFrame
    contrasts: pl.DataFrame
    drift: pl.DataFrame
    statement: Mapping[str, str]
    flags: pl.DataFrame
    tried: pl.DataFrame
    picks: pl.DataFrame
    """Latents of the main plan."""

    looks: Mapping[str, Sequence[Row]]
    """By what was fine-tuned, and how."""

    finetuned: Mapping[str, Row]
    cards: Sequence[Row]
    curves: pl.DataFrame | None

    @property
    def main(self) -> str:
        return self.config.main

    @property
    def has_samples(self) -> bool:
        """Whether accuracies tell what is forgotten; else it is perplexities."""
        return self.sets["samples"]["forget"]["n"] > 0

    @property
    def is_kept_asked(self) -> bool:
        return self.sets["samples"]["retain"]["n"] > 0

    @cached_property
    def plans(self) -> dict[str, Plan]:
        return {plan.name: plan for plan in self.config.plans}

    def named(self, *roles: Role) -> list[str]:
        return [name for name, plan in self.plans.items() if plan.role in roles]

    @property
    def draws(self) -> dict[str, list[str]]:
        """What is drawn several times -> the draws."""
        found: dict[str, list[str]] = {}
        for plan in self.plans.values():
            if plan.draw:
                found.setdefault(plan.name.rpartition(" ")[0], []).append(plan.name)
        return found

    def of(self, plan: str, side: str, category: str = EVERY_CATEGORY) -> Row | None:
        """The row of accuracies; None where nothing was asked."""
        if not len(self.accuracy):
            return None
        at = (pl.col("plan") == plan) & (pl.col("side") == side)
        found = self.accuracy.filter(at & (pl.col("category") == category))
        return found.row(0, named=True) if len(found) else None

    def accuracy_of(self, plan: str, side: str) -> Interval:
        row = self.of(plan, side)
        assert row is not None
        return interval(row, "accuracy")

    def moved(self, plan: str, texts: str) -> Row:
        at = (pl.col("plan") == plan) & (pl.col("texts") == texts)
        return self.drift.filter(at).row(0, named=True)

    def change(self, plan: str, name: str) -> Row | None:
        """Compared with the untreated model on one of the sets."""
        if not len(self.results):
            return None
        found = self.results.filter((pl.col("plan") == plan) & (pl.col("set") == name))
        return found.row(0, named=True) if len(found) else None

    def contrast(self, against: str, name: str) -> Row | None:
        if not len(self.contrasts):
            return None
        found = self.contrasts.filter((pl.col("against") == against) & (pl.col("set") == name))
        return found.row(0, named=True) if len(found) else None

    def forgetting(self, plan: str) -> Interval:
        """Accuracy on what is to be forgotten; of texts the perplexity ratio."""
        if self.has_samples:
            return self.accuracy_of(plan, "forget")
        return interval(self.moved(plan, "forget"), "perplexity_ratio")

    def keeping(self, plan: str) -> Interval:
        if self.has_samples:
            return self.accuracy_of(plan, "retain")
        return interval(self.moved(plan, "retain"), "perplexity_ratio")

    def is_forgotten(self, plan: str) -> bool:
        """Not shown to be above chance, where it was before; texts: beyond what is kept."""
        if self.has_samples:
            before, after = self.of(UNTREATED_NAME, "forget"), self.of(plan, "forget")
            assert before is not None
            assert after is not None
            known = before["verdict"] == "above chance"
            return known and after["verdict"] in ("at chance", "below chance")
        return self.forgetting(plan).low > max(1.0, self.keeping(plan).high)

    def lost(self, plan: str) -> float:
        """Of what is to be kept: accuracy, or the rise of perplexity."""
        if self.has_samples:
            return self.keeping(UNTREATED_NAME).value - self.keeping(plan).value
        return self.keeping(plan).value - 1


def load_findings(run: Run, config: UnlearningConfig) -> Findings:
    """Of a run that is evaluated."""
    evaluate, settings = run.step_folder(EVALUATE), load_settings(run)
    is_relearnt = (run.folder / RELEARN / DONE).exists()
    has_cards = (run.folder / CARDS / DONE).exists()
    looks, finetuned = {}, {}
    if config.finetune:
        folder = run.step_folder(FINETUNE)
        finetuned = read_json(folder / CHOSEN)
        for number, one in enumerate(config.finetune):
            name = f"{one.objective}, rate {one.learning_rate:g}"
            looks[name] = read_json(folder / "shards" / f"{number:02d}" / LOOKS)
    return Findings(
        config=config,
        sets=read_json(run.step_folder(STATISTICS) / SETS),
        settings=settings,
        accuracy=pl.read_parquet(evaluate / ACCURACY),
        people=pl.read_parquet(evaluate / PEOPLE),
        results=pl.read_parquet(evaluate / RESULTS),
        contrasts=pl.read_parquet(evaluate / CONTRASTS),
        drift=pl.read_parquet(evaluate / DRIFT),
        statement=read_json(evaluate / STATEMENT),
        flags=pl.read_parquet(run.step_folder(DETECT) / "shards" / "all" / FLAGS),
        tried=pl.read_parquet(run.step_folder(TUNE) / TRIED),
        picks=chosen_rows(load_choices(run), settings[config.main]),
        looks=looks,
        finetuned=finetuned,
        cards=read_json(run.step_folder(CARDS) / "shards" / "all" / CARDS_FILE)
        if has_cards
        else [],
        curves=pl.read_parquet(run.step_folder(RELEARN) / CURVES) if is_relearnt else None,
    )


def interval(row: Row, name: str) -> Interval:
    """Of a row that has `name`, `name_low` and `name_high`; NaN where an end is missing."""
    ends = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return Interval(*(float("nan") if one is None else one for one in ends))
