"""The unlearning study as steps: statistics -> select -> detect -> tune -> finetune -> evaluate ->
cards -> relearn -> report.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import sha256_file
from fluoroscope.data.corpus_config import CorpusConfig
from fluoroscope.data.documents import corpus_fingerprint
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.study import Study
from fluoroscope.steps.subject import Subject, resolve_subject, subject_sources, subject_steps
from fluoroscope.steps.task_data import check_task, place_of, task_sources
from fluoroscope.studies.unlearning.plans import (
    DEFAULT_PEOPLE,
    UnlearningConfig,
    check_points,
    check_settings,
)
from fluoroscope.studies.unlearning.report import write_report
from fluoroscope.studies.unlearning.settings import UnlearningSettings
from fluoroscope.studies.unlearning.spec import UnlearningSpec
from fluoroscope.studies.unlearning.steps.cards import CARDS, CardsStep
from fluoroscope.studies.unlearning.steps.detect import DETECT, DetectStep
from fluoroscope.studies.unlearning.steps.evaluate import EVALUATE, EvaluateStep
from fluoroscope.studies.unlearning.steps.finetune import FINETUNE, FineTuneStep
from fluoroscope.studies.unlearning.steps.relearn import RELEARN, RelearnStep
from fluoroscope.studies.unlearning.steps.select import SELECT, SelectStep
from fluoroscope.studies.unlearning.steps.statistics import STATISTICS, StatisticsStep
from fluoroscope.studies.unlearning.steps.tune import TUNE, TuneStep


class UnlearningStudy(Study[UnlearningSpec, UnlearningConfig]):
    name = "unlearning"
    spec = UnlearningSpec
    phases = MappingProxyType(
        {
            "select": (STATISTICS, SELECT),
            "tune": (DETECT, TUNE, FINETUNE),
            "evaluate": (EVALUATE, CARDS, RELEARN),
        }
    )

    def resolve(self, spec: UnlearningSpec) -> UnlearningConfig:
        return _resolved(spec)

    def sketch(self, spec: UnlearningSpec) -> UnlearningConfig:
        """Well-known models and SAEs are reckoned with by their sizes, without the hub."""
        return _resolved(spec, is_sketch=True)

    def sources(self, config: UnlearningConfig) -> Mapping[str, str]:
        found = dict(subject_sources(config))
        for name, corpus in (("forget", config.forget), ("retain", config.retain)):
            text = corpus_fingerprint(corpus) if corpus is not None else None
            found |= {name: text} if text is not None else {}
        tasks = [config.task] if config.task else []
        for task in (*tasks, *config.evaluate.others):
            found |= task_sources(task, config.data_dir)
        return found

    def steps(self, config: UnlearningConfig) -> Sequence[MapStep]:
        return [
            *subject_steps(config, config.seed),
            StatisticsStep(config),
            SelectStep(config),
            DetectStep(config),
            TuneStep(config),
            *([FineTuneStep(config)] if config.finetune else []),
            EvaluateStep(config),
            CardsStep(config),
            RelearnStep(config),
        ]

    def report(self, run: Run, sink: Sink) -> None:
        write_report(run, run.config)


def _resolved(spec: UnlearningSpec, *, is_sketch: bool = False) -> UnlearningConfig:
    # What later steps would refuse is refused before the first text is read.
    for task in (*([spec.task] if spec.task else []), *spec.evaluate.others):
        check_task(task)
        if not is_sketch:
            place_of(task, spec.data_dir)
    subject = resolve_subject(spec, is_sketch=is_sketch)
    check_settings(spec, is_organism=subject.model.is_organism)
    if spec.forget is not None and spec.retain is not None and not is_sketch:
        _check_apart(spec.forget, spec.retain)
    settings = {name: getattr(spec, name) for name in UnlearningSettings.model_fields}
    if spec.forget is None:
        settings["people"] = spec.people or DEFAULT_PEOPLE
    config = UnlearningConfig(
        **{name: getattr(subject, name) for name in Subject.model_fields}, **settings
    )
    check_points(config)
    return config


def _check_apart(forget: CorpusConfig, retain: CorpusConfig) -> None:
    """Refuses one and the same file on both sides, under whatever name."""
    # Another part of the same file is another text; where parts overlap, their texts are refused.
    is_part = (forget.take, forget.hub_subset, forget.hub_split) != (
        retain.take,
        retain.hub_subset,
        retain.hub_split,
    )
    paths = [Path(one.source).expanduser().resolve() for one in (forget, retain)]
    is_same = paths[0] == paths[1]
    if not is_same and all(path.is_file() for path in paths):
        is_same = sha256_file(paths[0]) == sha256_file(paths[1])
    if is_same and not is_part:
        raise ConfigError(
            f"forget={forget.source} and retain={retain.source} are the same texts; what is to be "
            "forgotten cannot be kept. Give two files."
        )
