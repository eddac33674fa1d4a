"""The connection study as steps: questions -> train."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import COMMIT, fingerprints
from fluoroscope.data.questions.base import question_commit, question_place
from fluoroscope.data.rows import all_files_at
from fluoroscope.models.training.precision import decide
from fluoroscope.runs.run import DONE, Run
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.study import Study
from fluoroscope.steps.wandb_runs import check_wandb
from fluoroscope.studies.connection.config import ConnectionConfig
from fluoroscope.studies.connection.report import write_report
from fluoroscope.studies.connection.report_sweep import write_sweep_report
from fluoroscope.studies.connection.settings import ConnectionSettings
from fluoroscope.studies.connection.spec import ConnectionSpec
from fluoroscope.studies.connection.steps.phase import PhaseStep
from fluoroscope.studies.connection.steps.questions import (
    QUESTIONS,
    QuestionsStep,
    data_source,
    set_key,
)
from fluoroscope.studies.connection.steps.train import TRAIN, TrainStep
from fluoroscope.studies.connection.sweep_config import PHASES


class ConnectionStudy(Study[ConnectionSpec, ConnectionConfig]):
    name = "connection"
    spec = ConnectionSpec
    reports_parts = True
    phases = MappingProxyType({"preprocessing": (QUESTIONS,), "training": (TRAIN,)})

    def resolve(self, spec: ConnectionSpec) -> ConnectionConfig:
        if not spec.arms or not spec.data.sets:
            raise ConfigError(
                f"A run needs something to train and something to ask, got arms={spec.arms} and "
                f"data.sets={spec.data.sets}; give for instance arms=[slots,transformer] "
                "data=pointer_fixed."
            )
        _check_names([*spec.data.sets, *(spec.sweep.final_sets if spec.sweep.is_on else [])])
        if spec.wandb:
            check_wandb("wandb")
        known = {name: getattr(spec, name) for name in ConnectionSettings.model_fields}
        return ConnectionConfig(**known, precision=decide(spec.training.precision))

    def sources(self, config: ConnectionConfig) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for name in config.all_sets:
            files = all_files_at(question_place(name, config.data_dir), name)
            found |= {f"{data_source(name)} {file}": hash_ for file, hash_ in fingerprints(files)}
            if (commit := question_commit(name, config.data_dir)) is not None:
                found[data_source(name)] = f"{COMMIT}{commit}"
        return found

    def steps(self, config: ConnectionConfig) -> Sequence[MapStep]:
        questions = QuestionsStep(config)
        if config.sweep.is_on:
            return [questions, *(PhaseStep(config, phase) for phase in PHASES)]
        return [questions, TrainStep(config)]

    def report(self, run: Run, sink: Sink) -> None:
        if run.config.sweep.is_on:
            write_sweep_report(run, run.config, sink)
        elif (run.folder / TRAIN / DONE).exists():
            write_report(run, run.config, sink)


def _check_names(sets: Sequence[str]) -> None:
    """Results stand below the name of their set, so that each has one of its own."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(sets):
        other = found.setdefault(set_key(name), name)
        if other != name:
            raise ConfigError(
                f"{other} and {name} would both be called {set_key(name)!r} in this run; give one "
                "of the files another name."
            )
