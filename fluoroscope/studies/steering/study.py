"""The steering study as steps: collect -> select -> tune -> evaluate -> strips -> report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import Sink
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.study import Study
from fluoroscope.steps.collect import COLLECT, CollectStep
from fluoroscope.steps.subject import Subject, resolve_subject, subject_sources, subject_steps
from fluoroscope.steps.task_data import check_readable, check_task, task_sources
from fluoroscope.studies.steering.config import SteeringConfig, expanded
from fluoroscope.studies.steering.methods.base import METHODS
from fluoroscope.studies.steering.report import write_report
from fluoroscope.studies.steering.settings import SteeringSettings
from fluoroscope.studies.steering.spec import SteeringSpec
from fluoroscope.studies.steering.steps.evaluate import EVALUATE, EvaluateStep
from fluoroscope.studies.steering.steps.select import SELECT, SelectStep
from fluoroscope.studies.steering.steps.strips import STRIPS, StripsStep
from fluoroscope.studies.steering.steps.truth import TruthStep
from fluoroscope.studies.steering.steps.tune import TUNE, TuneStep
from fluoroscope.studies.steering.transfer import compare_steering


class SteeringStudy(Study[SteeringSpec, SteeringConfig]):
    name = "steering"
    spec = SteeringSpec
    phases = MappingProxyType(
        {"collect": (COLLECT,), "select": (SELECT, TUNE), "evaluate": (EVALUATE, STRIPS)}
    )

    def resolve(self, spec: SteeringSpec) -> SteeringConfig:
        return _resolved(spec)

    def sketch(self, spec: SteeringSpec) -> SteeringConfig:
        """Well-known models and SAEs are reckoned with by their sizes, without the hub."""
        return _resolved(spec, is_sketch=True)

    def sources(self, config: SteeringConfig) -> Mapping[str, str]:
        found = dict(subject_sources(config))
        for task in (config.task, *config.evaluate.others):
            found |= task_sources(task, config.data_dir)
        return found

    def steps(self, config: SteeringConfig) -> Sequence[MapStep]:
        steps: list[MapStep] = [
            *subject_steps(config, config.seed),
            CollectStep(config, config.task, config.collect, config.data_dir, config.seed),
            SelectStep(config),
            TuneStep(config),
            EvaluateStep(config),
            StripsStep(config),
        ]
        return [*steps, TruthStep(config)] if is_known_world(config) else steps

    def report(self, run: Run, sink: Sink) -> None:
        write_report(run, run.config)

    def compare(self, runs: Sequence[Path], report: Report) -> None:
        compare_steering(runs, report)


def is_known_world(config: SteeringConfig) -> bool:
    """Whether it is known what was planted."""
    return config.model.is_organism and config.task.name == "organism-bias"


def _resolved(spec: SteeringSpec, *, is_sketch: bool = False) -> SteeringConfig:
    # What later steps would refuse is refused before the first reply.
    names = [task.name for task in (spec.task, *spec.evaluate.others)]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"The tasks are {', '.join(names)}: each is judged once, so name none twice."
        )
    for task in (spec.task, *spec.evaluate.others):
        check_task(task)
        if not is_sketch:
            check_readable(task, spec.data_dir, spec.seed)
    subject = resolve_subject(spec, is_sketch=is_sketch)
    points = [str(point) for point in subject.points]
    recipes = expanded(spec, points, is_organism=subject.model.is_organism)
    for recipe in recipes:
        METHODS.load(recipe.method)
    return SteeringConfig(
        **{name: getattr(subject, name) for name in Subject.model_fields},
        **{name: getattr(spec, name) for name in SteeringSettings.model_fields},
        all_recipes=recipes,
    )
