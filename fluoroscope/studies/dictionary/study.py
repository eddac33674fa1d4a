"""The dictionary study as steps: tokens -> activations -> SAEs -> quality -> report."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import Sink
from fluoroscope.data.corpus_config import Split
from fluoroscope.models.hook_points import HookPoint, parse_hook_points
from fluoroscope.models.shape import ModelShape
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.study import Study
from fluoroscope.sae.architectures import SAES
from fluoroscope.steps.evaluate_saes import EvaluateSAEsStep
from fluoroscope.steps.extract import ExtractStep, TokeniseStep, text_sources
from fluoroscope.steps.models import resolve_model
from fluoroscope.steps.score_saes import ScoreSAEsStep, can_be_scored
from fluoroscope.steps.train_saes import SAEPlan, TrainSAEsStep
from fluoroscope.studies.dictionary.config import DictionaryConfig
from fluoroscope.studies.dictionary.report import write_report
from fluoroscope.studies.dictionary.spec import DictionarySpec, SAESpec, swept


class DictionaryStudy(Study[DictionarySpec, DictionaryConfig]):
    name = "dictionary"
    spec = DictionarySpec

    def resolve(self, spec: DictionarySpec) -> DictionaryConfig:
        shape = ModelShape.of(spec.model.source, spec.model.revision)
        points = parse_hook_points(spec.hook_points, shape.n_layers)
        plans = [plan for point in points for plan in sae_plans(spec.sae, point, shape.d_model)]
        from_store = spec.activations == "store"
        _check(spec, shape, from_store)
        size = spec.hook_points_per_loop or (1 if from_store else len(points))
        model = resolve_model(spec.model, shape)
        return DictionaryConfig(
            model=model,
            shape=shape,
            corpus=spec.corpus,
            n_tokens=spec.n_tokens,
            hook_points=[str(point) for point in points],
            groups=_groups(points, plans, size),
            from_store=from_store,
            extract=spec.extract,
            training=spec.training,
            evaluation=spec.evaluation,
            seed=spec.seed,
            threads=spec.threads,
        )

    def sources(self, config: DictionaryConfig) -> Mapping[str, str]:
        return text_sources(config.model, config.corpus)

    def steps(self, config: DictionaryConfig) -> Sequence[MapStep]:
        points = [HookPoint(text) for text in config.hook_points]
        context, model, shape = config.corpus.context, config.model, config.shape
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
                config.seed,
                config.from_store,
            ),
            EvaluateSAEsStep(
                model,
                shape,
                config.groups,
                config.extract,
                config.evaluation,
                context,
                config.seed,
            ),
        ]
        if can_be_scored(config.model, config.groups):
            steps.append(ScoreSAEsStep(model, config.groups, config.evaluation.truth_pairs))
        return steps

    def report(self, run: Run, sink: Sink) -> None:
        write_report(run, run.config)


VALIDATION_TOKENS = 20_000
"""Held-out activations that choose the best weights."""


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


def _check(spec: DictionarySpec, shape: ModelShape, from_store: bool) -> None:
    if spec.corpus.context > shape.context_length:
        raise ConfigError(
            f"corpus.context={spec.corpus.context} is longer than the {shape.context_length} "
            f"positions that {spec.model.source} reads."
        )
    if spec.n_tokens < spec.training.batch_size:
        raise ConfigError(
            f"n_tokens={spec.n_tokens} is less than one batch "
            f"(training.batch_size={spec.training.batch_size}); give more tokens."
        )
    if spec.extract.exclude_sinks and not from_store:
        raise ConfigError("extract.exclude_sinks needs activations=store.")
