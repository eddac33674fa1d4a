"""Part `accuracy`: how right forms of connections were, from finished runs of the study.

Costs at two sizes say nothing of what is learned at that cost. Runs on one set of walks must have
asked the same questions in trainings of the same settings, or their forms are not to be compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.connection_forms import FORMS
from benchmarks.connection_parts import row
from benchmarks.plugin_parts import Part
from fluoroscope.core.errors import ConfigError
from fluoroscope.runs.run import Run
from fluoroscope.studies.connection.arms import SLOTS, with_form
from fluoroscope.studies.connection.config import ConnectionConfig
from fluoroscope.studies.connection.network.network_config import ConnectionName
from fluoroscope.studies.connection.reasoners import count_parameters

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

    @property
    def sets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one["data_set"] for one in self.rows))

    def of(self, data_set: str, form: ConnectionName) -> str | None:
        """Of all test questions, and of those deeper than any that was trained; None where no arm
        of the run has this form.
        """
        for one in self.rows:
            if one["data_set"] == data_set and self._is_of(one["arm"], form):
                return self._said(one)
        return None

    def describe(self) -> str:
        seeds = sorted({one["n_seeds"] for one in self.rows if one["n_seeds"] is not None})
        trained = self.settings.data.made.pointer.train_depth
        return (
            f"of {' or '.join(map(str, seeds))} seeds, trained on walks of 1 to {trained} hops; "
            "95 % intervals, and what is deeper"
        )

    def connections(self, form: ConnectionName) -> int:
        """Weights of the connections alone."""
        return count_parameters(with_form(self.settings.network, form)).connections

    @property
    def compared(self) -> dict[str, object]:
        """What must be the same of runs whose forms stand in one table."""
        settings = self.settings.model_dump(mode="json")
        network = settings["network"]
        network["connection"].pop("name")
        kept = ("data", "training", "seed", "seeds", "precision")
        return {"network": network, **{key: settings[key] for key in kept if key in settings}}

    def _is_of(self, arm: str, form: str) -> bool:
        return arm == form or (arm == SLOTS and self.settings.network.connection.name == form)

    def _said(self, one: Row) -> str:
        low, high = one["accuracy_low"], one["accuracy_high"]
        said = f"{one['accuracy']:.3f} ({low:.3f} to {high:.3f})"
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


def accuracy(folders: Sequence[Path]) -> Part:
    """A row a set of walks and form; a form that several runs have is that of the first."""
    part, first = Part(), dict[str, Accuracies]()
    for found in map(Accuracies.of_run, folders):
        for name in found.sets:
            one = first.setdefault(name, found)
            if one.compared != found.compared:
                raise ConfigError(
                    f"The runs {one.run} and {found.run} asked {name} with other settings or "
                    "seeds; give runs that differ in their arms alone."
                )
            part.conditions[f"accuracy, {name}"] = found.describe()
            done = {line[1] for line in part.rows if line[0] == _what(name)}
            part.rows += [
                row(
                    _what(name),
                    form,
                    parameters=f"{found.connections(form):,}",
                    accuracy=said,
                    note=f"run {found.run}",
                )
                for form in FORMS
                if form not in done and (said := found.of(name, form)) is not None
            ]
    return part


def _what(data_set: str) -> str:
    return f"{data_set}: whole trainings"
