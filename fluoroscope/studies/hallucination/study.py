"""The hallucination study as steps: answers -> what is read of them -> tracks -> detectors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import fingerprints
from fluoroscope.data.answers.sets import ANSWER_SETS, QUESTION_SETS
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.study import Study
from fluoroscope.steps.evaluate_saes import QUALITY
from fluoroscope.steps.extract import ACTIVATIONS, TOKENS
from fluoroscope.steps.score_saes import TRUTH
from fluoroscope.steps.subject import Subject, resolve_subject, subject_sources, subject_steps
from fluoroscope.steps.train_saes import SAES_STEP
from fluoroscope.studies.hallucination.comparing import compare_hallucination
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.detection import DETECTORS
from fluoroscope.studies.hallucination.report import write_report
from fluoroscope.studies.hallucination.settings import HallucinationSettings
from fluoroscope.studies.hallucination.spec import HallucinationSpec
from fluoroscope.studies.hallucination.steps.answers import ANSWERS, AnswersStep
from fluoroscope.studies.hallucination.steps.associate import ASSOCIATE, AssociateStep
from fluoroscope.studies.hallucination.steps.causes import CAUSES, CausesStep
from fluoroscope.studies.hallucination.steps.detect import DETECT, DetectStep
from fluoroscope.studies.hallucination.steps.evaluate import (
    EVALUATE,
    PERMUTE,
    EvaluateStep,
    PermuteStep,
)
from fluoroscope.studies.hallucination.steps.online import ONLINE, OnlineStep
from fluoroscope.studies.hallucination.steps.read import READ, ReadStep
from fluoroscope.studies.hallucination.steps.samples import SAMPLES, SamplesStep
from fluoroscope.studies.hallucination.steps.track import TRACK, TrackStep
from fluoroscope.studies.hallucination.steps.validate_tracker import VALIDATE, ValidateTrackerStep
from fluoroscope.studies.hallucination.tracking.trackers import TRACKERS


class HallucinationStudy(Study[HallucinationSpec, HallucinationConfig]):
    name = "hallucination"
    spec = HallucinationSpec
    reports_parts = True
    phases = MappingProxyType(
        {
            "extract": (TOKENS, ACTIVATIONS),
            "train": (SAES_STEP, QUALITY, TRUTH),
            "track": (ANSWERS, SAMPLES, READ, ASSOCIATE, TRACK),
            "detect": (DETECT, ONLINE),
            "evaluate": (PERMUTE, EVALUATE, CAUSES, VALIDATE),
        }
    )

    def resolve(self, spec: HallucinationSpec) -> HallucinationConfig:
        return _resolved(spec)

    def sketch(self, spec: HallucinationSpec) -> HallucinationConfig:
        """Well-known models and SAEs are reckoned with by their sizes, without the hub."""
        return _resolved(spec, is_sketch=True)

    def sources(self, config: HallucinationConfig) -> Mapping[str, str]:
        sets = QUESTION_SETS if config.data.answers == "own" else ANSWER_SETS
        files = sets.load(config.data.name).files_of(config.data.path)
        data = {f"data {name}": sha256 for name, sha256 in fingerprints(files)}
        return {**subject_sources(config), **data}

    def steps(self, config: HallucinationConfig) -> Sequence[MapStep]:
        sampled: list[MapStep] = [SamplesStep(config)] if config.answers.samples else []
        caused: list[MapStep] = [CausesStep(config)] if config.causes.answers else []
        return [
            *subject_steps(config, config.seed),
            AnswersStep(config),
            *sampled,
            ReadStep(config),
            AssociateStep(config),
            TrackStep(config),
            DetectStep(config),
            OnlineStep(config),
            PermuteStep(config),
            EvaluateStep(config),
            *caused,
            ValidateTrackerStep(config),
        ]

    def report(self, run: Run, sink: Sink) -> None:
        write_report(run, run.config)

    def compare(self, runs: Sequence[Path], report: Report) -> None:
        compare_hallucination(runs, report)


def _resolved(spec: HallucinationSpec, *, is_sketch: bool = False) -> HallucinationConfig:
    # What later steps would refuse is refused before the first answer.
    sets = QUESTION_SETS if spec.data.answers == "own" else ANSWER_SETS
    sets.load(spec.data.name)
    TRACKERS.load(spec.tracking.tracker)
    DETECTORS.load(spec.detection.detector)
    subject = resolve_subject(spec, is_sketch=is_sketch)
    _check_layers(subject.points)
    return HallucinationConfig(
        **{name: getattr(subject, name) for name in Subject.model_fields},
        **{name: getattr(spec, name) for name in HallucinationSettings.model_fields},
    )


def _check_layers(points: Sequence[HookPoint]) -> None:
    if len(points) < 2:
        raise ConfigError(
            f"Tracks lead from layer to layer, so SAEs of two layers or more are needed; there "
            f"is one, of {points[0]}."
        )
    streams = {point.stream for point in points}
    if len(streams) > 1:
        raise ConfigError(
            f"Tracks are followed within one stream, and the SAEs are of {sorted(streams)}; "
            "choose with saes.hook_points=all.resid_post."
        )
