"""A sweep of patches as a study: one step, and a report of what the edits did."""

from collections.abc import Mapping, Sequence

from fluoroscope.core.errors import ConfigError, InterventionError
from fluoroscope.core.sink import Sink
from fluoroscope.features.effects import check_outcomes
from fluoroscope.interventions.positions import Positions
from fluoroscope.models.hub import model_fingerprint
from fluoroscope.models.loading import load_tokenizer
from fluoroscope.models.requests import check_stop_strings
from fluoroscope.models.shape import ModelShape
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.study import Study
from fluoroscope.steps.models import resolve_model
from fluoroscope.steps.sweep import SCHEMA, SweepStep
from fluoroscope.steps.sweep_config import Prompt, SweepConfig
from fluoroscope.studies.patch.config import PatchConfig
from fluoroscope.studies.patch.grid import make_grid
from fluoroscope.studies.patch.prompts import read_prompts
from fluoroscope.studies.patch.report import write_report
from fluoroscope.studies.patch.spec import PatchSpec


class PatchStudy(Study[PatchSpec, PatchConfig]):
    name = "patch"
    spec = PatchSpec

    def resolve(self, spec: PatchSpec) -> PatchConfig:
        shape = ModelShape.of(spec.model.source, spec.model.revision)
        model = resolve_model(spec.model, shape)
        check_outcomes(spec.outcomes, SCHEMA)
        saes, conditions = make_grid(spec, model)
        return PatchConfig(
            model=model,
            shape=shape,
            sweep=SweepConfig(
                saes=saes,
                conditions=conditions,
                prompts=_prompts(spec, shape),
                positions=spec.positions,
                texts=spec.texts,
                controls=spec.controls,
                seed=spec.seed,
            ),
            outcomes=spec.outcomes,
            seed=spec.seed,
            threads=spec.threads,
        )

    def sources(self, config: PatchConfig) -> Mapping[str, str]:
        found = {"model": model_fingerprint(config.model.name, config.model.revision)}
        return found | {f"sae {sae.hook_point}": sae.weights_sha256 for sae in config.sweep.saes}

    def steps(self, config: PatchConfig) -> Sequence[MapStep]:
        return [SweepStep(config.model, config.shape, config.sweep)]

    def report(self, run: Run, sink: Sink) -> None:
        write_report(run, run.config)


def _prompts(spec: PatchSpec, shape: ModelShape) -> list[Prompt]:
    """All that is wrong with a prompt is said before anything runs."""
    tokenizer = load_tokenizer(spec.model.source, spec.model.revision)
    positions = Positions.parse(spec.positions)
    found = []
    for prompt in read_prompts(spec.prompts.source, spec.prompts.n):
        if not prompt.text:
            raise ConfigError(f"Prompt {prompt.id} is empty: there is nothing to continue.")
        tokens = tuple(tokenizer(prompt.text)["input_ids"])
        n_tokens = len(tokens)
        if n_tokens > shape.context_length:
            raise ConfigError(
                f"Prompt {prompt.id} has {n_tokens} tokens, and {spec.model.source} reads at most "
                f"{shape.context_length}. Shorten it; nothing is cut silently."
            )
        check_stop_strings(prompt.text, spec.texts.stop, spec.texts.may_echo)
        try:
            positions.spans(tokens, tokenizer)
        except InterventionError as error:
            raise ConfigError(f"Prompt {prompt.id}: {error}") from None
        found.append(Prompt(id=prompt.id, text=prompt.text, n_tokens=n_tokens))
    return found
