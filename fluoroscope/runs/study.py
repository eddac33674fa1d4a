"""Study: a question as settings, steps and a report; what `fluoro run NAME` finds by its name."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar

from fluoroscope.core.config import Config
from fluoroscope.core.sink import Sink
from fluoroscope.runs.record import load_class, read_record
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep

if TYPE_CHECKING:
    from fluoroscope.runs.report import Report

SpecT = TypeVar("SpecT", bound=Config)
ConfigT = TypeVar("ConfigT", bound=Config)


class Study(ABC, Generic[SpecT, ConfigT]):
    """Made without arguments, so that a worker process makes its own from run.json."""

    name: str
    spec: type[SpecT]
    """What a user writes; its module imports no torch."""

    reports_parts: bool = False
    """Whether `report` can be written when only some steps are done."""

    phases: Mapping[str, Sequence[str]] = MappingProxyType({})
    """Names for several steps together, for `--until` and `--only`; a step that a run does not
    have may be among them."""

    @abstractmethod
    def resolve(self, spec: SpecT) -> ConfigT:
        """Fills in what only the model knows, and checks that all fits together."""

    def sketch(self, spec: SpecT) -> ConfigT:
        """What a plan needs of `resolve`: sizes. May reckon with what is known of a well-known
        model or release where its files are not at hand.
        """
        return self.resolve(spec)

    def sources(self, config: ConfigT) -> Mapping[str, str]:
        """What the run reads from outside (model, corpus): name -> fingerprint.

        Called before the engine makes a run folder, so what is missing or cannot be read is said
        there; a run is not continued on others. One that begins with `commit:` can be fetched
        again as it was: the run stays with it. The answer must not take longer than moments.
        """
        return {}

    @abstractmethod
    def steps(self, config: ConfigT) -> Sequence[MapStep]:
        """In the order of work; each step's inputs stand before it. Costs nothing to call."""

    def report(self, run: Run, sink: Sink) -> None:
        """Writes tables/, figures/ and report.html once every step is done."""

    def compare(self, runs: Sequence[Path], report: "Report") -> None:
        """Adds what is to be said of several runs of this study, by their folders."""
        from fluoroscope.runs.compare import compare_runs

        compare_runs(runs, report)


def open_study(folder: Path, device: str = "cpu") -> tuple[Run, Study[Config, Config]]:
    """The run in `folder` and its study, rebuilt from run.json alone."""
    record = read_record(folder)
    return Run.open(folder, device), load_class(record.study_class)()
