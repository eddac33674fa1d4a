"""The hallucination study as steps: answers -> what is read of them -> tracks -> detectors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import fingerprints
from fluoroscope.data.answers.sets import ANSWER_SETS, QUESTION_SETS
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.hub import model_fingerprint
from fluoroscope.models.shape import ModelShape
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.study import Study
from fluoroscope.steps.evaluate_saes import QUALITY
from fluoroscope.steps.extract import ACTIVATIONS, TOKENS, text_sources
from fluoroscope.steps.known_releases import find_or_sketch_saes
from fluoroscope.steps.models import ModelConfig, subject_model
from fluoroscope.steps.sae_sources import SAEChoice
from fluoroscope.steps.sae_training import SAETrainingConfig, resolve_training, training_steps
from fluoroscope.steps.score_saes import TRUTH
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
        found = {"model": model_fingerprint(config.model.name, config.model.revision)}
        sets = QUESTION_SETS if config.data.answers == "own" else ANSWER_SETS
        files = sets.load(config.data.name).files_of(config.data.path)
        found |= {f"data {name}": sha256 for name, sha256 in fingerprints(files)}
        if config.train is not None:
            return {**found, **text_sources(config.model, config.train.corpus)}
        return found | {f"sae {sae.hook_point}": sae.weights_sha256 for sae in config.saes}

    def steps(self, config: HallucinationConfig) -> Sequence[MapStep]:
        sampled: list[MapStep] = [SamplesStep(config)] if config.answers.samples else []
        caused: list[MapStep] = [CausesStep(config)] if config.causes.answers else []
        trained: list[MapStep] = []
        if config.train is not None:
            trained = training_steps(config.train, config.model, config.shape, config.seed)
        return [
            *trained,
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
    shape = ModelShape.of(spec.model.source, spec.model.revision)
    model = subject_model(spec.model, shape, is_sketch=is_sketch)
    saes, train = _layers(spec, model, shape, is_sketch)
    return HallucinationConfig(
        model=model,
        shape=shape,
        saes=saes,
        train=train,
        **{name: getattr(spec, name) for name in HallucinationSettings.model_fields},
    )


def _layers(
    spec: HallucinationSpec, model: ModelConfig, shape: ModelShape, is_sketch: bool
) -> tuple[list[SAEChoice], SAETrainingConfig | None]:
    """The SAEs that are named, or how they are trained here."""
    source, train = spec.saes.source, None
    if source is not None and spec.train is not None:
        raise ConfigError(
            "saes names SAEs that there are, and train says how to train others; give one of both "
            "(saes.source=null takes back what a preset names)."
        )
    if source is not None:
        saes = find_or_sketch_saes(source, spec.saes.hook_points, model, is_sketch=is_sketch)
        points = [HookPoint(sae.hook_point) for sae in saes]
    elif spec.train is not None:
        saes, train = [], resolve_training(spec.train, spec.model.source, shape)
        points = [HookPoint(name) for name in train.hook_points]
        n = sum(len(plans) for plans in train.groups.values())
        if n > len(points):
            raise ConfigError(
                f"train.sae means {n} SAEs of {len(points)} hook points, and one of each is "
                "tracked; give every setting one value, and sweep in a dictionary run."
            )
    else:
        raise ConfigError(
            "Say whose latents are tracked: saes=organism:batch_topk, a folder of SAEs, or a "
            "dictionary run of this model; or have them trained here: train.corpus=FILE."
        )
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
    return saes, train
