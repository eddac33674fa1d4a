"""SAEs that a study trains itself: a spec, the plans it means, and the steps that make them.

Text -> `tokens/` -> `activations/` (or a stream) -> `saes/` -> `quality/`, and `truth/` for the
organism, whose features are known.
"""

import itertools
from collections.abc import Sequence
from typing import Any

from fluoroscope.activations.extract_config import ExtractConfig
from fluoroscope.core.config import Config, build
from fluoroscope.core.errors import ConfigError
from fluoroscope.data.corpus_config import CorpusConfig, Split
from fluoroscope.models.hook_points import HookPoint, parse_hook_points
from fluoroscope.models.shape import ModelShape
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep
from fluoroscope.sae.architectures import SAES
from fluoroscope.sae.training_config import TrainingConfig
from fluoroscope.steps.evaluate_saes import EvaluateSAEsStep
from fluoroscope.steps.evaluation_config import EvaluationConfig
from fluoroscope.steps.extract import ExtractStep, TokeniseStep
from fluoroscope.steps.models import ModelConfig
from fluoroscope.steps.sae_sources import SAEChoice, find_saes
from fluoroscope.steps.sae_training_spec import SAESpec, SAETrainingSpec, swept
from fluoroscope.steps.score_saes import ScoreSAEsStep, can_be_scored
from fluoroscope.steps.train_saes import SAES_STEP, SAEPlan, TrainSAEsStep

VALIDATION_TOKENS = 20_000
"""Held-out activations that choose the best weights."""


class SAETrainingConfig(Config):
    """A `SAETrainingSpec` with everything filled in that the model decides."""

    corpus: CorpusConfig
    n_tokens: int
    hook_points: list[str]
    groups: dict[str, list[SAEPlan]]
    """Loop -> the SAEs that are trained in it."""

    from_store: bool
    extract: ExtractConfig
    training: TrainingConfig
    evaluation: EvaluationConfig


def resolve_training(spec: SAETrainingSpec, source: str, shape: ModelShape) -> SAETrainingConfig:
    """The SAEs that `spec` means of the model in `source`."""
    points = parse_hook_points(spec.hook_points, shape.n_layers)
    plans = [plan for point in points for plan in sae_plans(spec.sae, point, shape.d_model)]
    from_store = spec.activations == "store"
    _check(spec, source, shape, from_store)
    size = spec.hook_points_per_loop or (1 if from_store else len(points))
    return SAETrainingConfig(
        corpus=spec.corpus,
        n_tokens=spec.n_tokens,
        hook_points=[str(point) for point in points],
        groups=_groups(points, plans, size),
        from_store=from_store,
        extract=spec.extract,
        training=spec.training,
        evaluation=spec.evaluation,
    )


def training_steps(
    config: SAETrainingConfig, model: ModelConfig, shape: ModelShape, seed: int
) -> list[MapStep]:
    """From text to SAEs that are judged on text that nothing else has read."""
    points = [HookPoint(text) for text in config.hook_points]
    context = config.corpus.context
    steps: list[MapStep] = [TokeniseStep(model, config.corpus, config.n_tokens)]
    if config.from_store:
        held_out = min(config.n_tokens, VALIDATION_TOKENS)
        kept: dict[Split, int] = {"train": config.n_tokens, "validation": held_out}
        steps.append(ExtractStep(model, shape, points, config.extract, context, kept))
    steps += [
        TrainSAEsStep(
            model,
            shape,
            config.groups,
            config.training,
            config.extract,
            context,
            config.n_tokens,
            seed,
            config.from_store,
        ),
        EvaluateSAEsStep(
            model, shape, config.groups, config.extract, config.evaluation, context, seed
        ),
    ]
    if can_be_scored(model, config.groups):
        steps.append(ScoreSAEsStep(model, config.groups, config.evaluation.truth_pairs))
    return steps


def trained_saes(run: Run, model: ModelConfig) -> list[SAEChoice]:
    """The SAEs that the run trained, those with the best validation loss."""
    folder = str(run.step_folder(SAES_STEP))
    return run.cached((SAES_STEP, "choices"), lambda: find_saes(folder, None, model))


def sae_plans(spec: SAESpec, point: HookPoint, d_model: int) -> list[SAEPlan]:
    """One plan for each combination of the settings that are lists."""
    own = dict(spec.model_extra or {})
    width = spec.d_sae if spec.d_sae is not None else spec.expansion * d_model
    axes: dict[str, list[Any]] = {"d_sae": swept(width), "seed": swept(spec.seed)}
    axes |= {name: swept(value) for name, value in own.items()}
    empty = [name for name, values in axes.items() if not values]
    if empty:
        raise ConfigError(f"sae.{empty[0]}=[] names no value, so there is no SAE to train.")
    varied = [name for name, values in axes.items() if len(values) > 1]
    kind = SAES.load(spec.architecture)
    plans = []
    for values in itertools.product(*axes.values()):
        settings = dict(zip(axes, values, strict=True))
        parts = [str(point), *(f"{name}{settings[name]}" for name in varied)]
        seed = settings.pop("seed")
        config = build(kind.config_type, {"d_model": d_model, **settings}, at="sae.")
        plans.append(
            SAEPlan(
                key="-".join(parts),
                hook_point=str(point),
                architecture=spec.architecture,
                settings=config.model_dump(mode="json"),
                seed=seed,
            )
        )
    keys = [plan.key for plan in plans]
    if len(set(keys)) < len(keys):
        raise ConfigError("A list of SAE settings holds the same value twice.")
    return plans


def _groups(
    points: Sequence[HookPoint], plans: Sequence[SAEPlan], size: int
) -> dict[str, list[SAEPlan]]:
    groups = {}
    for start in range(0, len(points), size):
        members = points[start : start + size]
        key = str(members[0]) if len(members) == 1 else f"{members[0]}_to_{members[-1]}"
        names = {str(point) for point in members}
        groups[key] = [plan for plan in plans if plan.hook_point in names]
    return groups


def _check(spec: SAETrainingSpec, source: str, shape: ModelShape, from_store: bool) -> None:
    if spec.corpus.context > shape.context_length:
        raise ConfigError(
            f"corpus.context={spec.corpus.context} is longer than the {shape.context_length} "
            f"positions that {source} reads."
        )
    if spec.n_tokens < spec.training.batch_size:
        raise ConfigError(
            f"n_tokens={spec.n_tokens} is less than one batch "
            f"(training.batch_size={spec.training.batch_size}); give more tokens."
        )
    if spec.extract.exclude_sinks and not from_store:
        raise ConfigError("extract.exclude_sinks needs activations=store.")
