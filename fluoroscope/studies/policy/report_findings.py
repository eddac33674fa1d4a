"""Findings: the tables that a policy run left, read once for all parts of the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from fluoroscope.runs.run import DONE, Run
from fluoroscope.studies.policy.config import EXACT, PolicyConfig
from fluoroscope.studies.policy.judging import (
    ACTIVE,
    CONTROL,
    CONTROL_GREEDY,
    EVERYWHERE,
    GREEDY,
    NEVER,
    ORACLE,
    POLICY,
    STATIC,
    UNIFORM,
)
from fluoroscope.studies.policy.steps.evaluate import (
    CHOICES,
    EVALUATE,
    FROM_TABLE,
    FROM_TEXTS,
    REPLIES,
    VALUES,
    action_names,
)
from fluoroscope.studies.policy.steps.learn import CURVES, LEARN

ORDER = (NEVER, UNIFORM, STATIC, ACTIVE, CONTROL, CONTROL_GREEDY, POLICY, GREEDY, ORACLE)
"""Of methods in tables and figures: from what knows least."""

Row = Mapping[str, Any]  # Any: values of a table.


@dataclass(frozen=True, eq=False)
class Findings:
    config: PolicyConfig
    values: pl.DataFrame
    choices: pl.DataFrame
    curves: pl.DataFrame
    replies: pl.DataFrame | None
    actions: Sequence[str]
    """Name of each."""

    @property
    def task(self) -> str:
        return self.config.task.name

    @property
    def main_mode(self) -> str:
        return self.config.modes[0]

    @property
    def source(self) -> str:
        """Where the main policy's values are from."""
        return FROM_TABLE if self.config.is_enumerated else FROM_TEXTS

    @cached_property
    def parts(self) -> list[str]:
        """Of the main task, the largest first; without the row of all together."""
        own = self.values.filter(task=self.task, source=self.source, method=NEVER)
        rows = own.filter(pl.col("part") != EVERYWHERE).sort("n", descending=True)
        return rows["part"].to_list()

    def rows(self, task: str, source: str, part: str = EVERYWHERE) -> pl.DataFrame:
        """Untrained ways and means over trainings, in the order of `ORDER`, then of modes."""
        own = self.values.filter(task=task, source=source, part=part)
        own = own.filter(pl.col("seed").is_null())
        place = {name: number for number, name in enumerate(ORDER)}
        modes = {mode: number for number, mode in enumerate(("", *self.config.modes))}
        order = own.select(
            pl.col("method").replace_strict(place, return_dtype=pl.Int64),
            pl.col("mode").replace_strict(modes, return_dtype=pl.Int64),
        )
        return own[order.with_row_index().sort("method", "mode")["index"]]

    def row(
        self, method: str, part: str = EVERYWHERE, mode: str | None = None, task: str | None = None,
        source: str | None = None,
    ) -> Row | None:  # fmt: skip
        """None where there is no such."""
        is_learnt = method in (POLICY, GREEDY, CONTROL, CONTROL_GREEDY)
        wanted = (mode or self.main_mode) if is_learnt else ""
        own = self.rows(task or self.task, source or self.source, part)
        found = own.filter(method=method, mode=wanted)
        return found.row(0, named=True) if len(found) else None

    def known(self, method: str, part: str = EVERYWHERE) -> Row:
        """Of the main task and mode."""
        found = self.row(method, part)
        assert found is not None
        return found


def load_findings(run: Run, config: PolicyConfig) -> Findings:
    """Of a run that is evaluated."""
    folder = run.step_folder(EVALUATE)
    has_replies = (folder / REPLIES).exists()
    return Findings(
        config,
        pl.read_parquet(folder / VALUES),
        pl.read_parquet(folder / CHOICES),
        pl.read_parquet(run.step_folder(LEARN) / CURVES),
        pl.read_parquet(folder / REPLIES) if has_replies else None,
        action_names(run, config),
    )


def is_done(run: Run, step: str) -> bool:
    return (run.folder / step / DONE).exists()


def mode_name(mode: str) -> str:
    """For people."""
    return {EXACT: "exact gradient", "grpo": "GRPO", "ppo": "PPO"}.get(mode, mode)


def label_of(row: Row) -> str:
    """A way to act, with what it was trained by."""
    return f"{row['method']} ({mode_name(row['mode'])})" if row["mode"] else row["method"]
