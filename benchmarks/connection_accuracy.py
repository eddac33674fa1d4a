"""How right forms of connections were, from the tables of a finished run of the study."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from fluoroscope.core.errors import ConfigError
from fluoroscope.runs.run import Run
from fluoroscope.studies.connection.arms import SLOTS
from fluoroscope.studies.connection.config import ConnectionConfig
from fluoroscope.studies.connection.settings import ConnectionSettings

NOT_MEASURED = "not measured"
_TASKS = "pointer_"
Row = Mapping[str, Any]  # Any: values of a table.


@dataclass(frozen=True)
class Accuracies:
    """Of the walks of one run."""

    run: str
    settings: ConnectionConfig
    rows: tuple[Row, ...]
    """Of `accuracy`: a row a question set and arm."""

    depths: tuple[Row, ...]
    """Of `depths`: a row a set, arm and depth; none where no set says how deep it is."""

    @classmethod
    def of_run(cls, folder: Path) -> "Accuracies":
        """`ConfigError` where it is no finished run of this study."""
        run, tables = Run.open(folder), folder / "tables"
        if not isinstance(run.config, ConnectionConfig) or not (tables / "accuracy.csv").exists():
            raise ConfigError(
                f"--accuracy needs the folder of a finished run of the connection study, with "
                f"tables/accuracy.csv in it; {folder} is none. Make one with: fluoro run "
                "connection --preset connection/pointer"
            )
        found = [
            tuple(
                one
                for one in pl.read_csv(file).iter_rows(named=True)
                if one["data_set"].startswith(_TASKS)
            )
            if file.exists()
            else ()
            for file in (tables / "accuracy.csv", tables / "depths.csv")
        ]
        return cls(folder.name, run.config, found[0], found[1])

    def of(self, form: str) -> str:
        """Of each set of walks: all test questions, and those deeper than any that was trained."""
        own = [one for one in self.rows if self._is_of(one["arm"], form)]
        return "; ".join(self._said(one) for one in own) or NOT_MEASURED

    def describe(self) -> str:
        seeds = sorted({one["n_seeds"] for one in self.rows if one["n_seeds"] is not None})
        trained = self.settings.data.made.pointer.train_depth
        return (
            f"test accuracy with 95 % intervals, of the run {self.run}, "
            f"{' or '.join(map(str, seeds))} seeds; deeper: of more than the {trained} hops that "
            "were trained"
        )

    def _is_of(self, arm: str, form: str) -> bool:
        return arm == form or (arm == SLOTS and self.settings.network.connection.name == form)

    def _said(self, one: Row) -> str:
        low, high = one["accuracy_low"], one["accuracy_high"]
        said = f"{one['data_set']} {one['accuracy']:.3f} ({low:.3f} to {high:.3f})"
        trained = self.settings.data.made.pointer.train_depth
        same = ("data_set", "arm")
        deep = [
            other
            for other in self.depths
            if all(other[key] == one[key] for key in same) and other["depth"] > trained
        ]
        if not deep:
            return said
        n = sum(other["n"] for other in deep)
        return f"{said}, deeper {sum(other['accuracy'] * other['n'] for other in deep) / n:.3f}"


def settings_or(accuracies: Accuracies | None, other: ConnectionSettings) -> ConnectionSettings:
    return other if accuracies is None else accuracies.settings
