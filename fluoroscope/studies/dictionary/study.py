"""The dictionary study as steps: tokens -> activations -> SAEs -> quality -> report."""

from collections.abc import Mapping, Sequence

from fluoroscope.core.sink import Sink
from fluoroscope.models.shape import ModelShape
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.study import Study
from fluoroscope.steps.extract import text_sources
from fluoroscope.steps.models import resolve_model
from fluoroscope.steps.sae_training import resolve_training, training_steps
from fluoroscope.studies.dictionary.config import DictionaryConfig
from fluoroscope.studies.dictionary.report import write_report
from fluoroscope.studies.dictionary.spec import DictionarySpec


class DictionaryStudy(Study[DictionarySpec, DictionaryConfig]):
    name = "dictionary"
    spec = DictionarySpec

    def resolve(self, spec: DictionarySpec) -> DictionaryConfig:
        shape = ModelShape.of(spec.model.source, spec.model.revision)
        training = resolve_training(spec, spec.model.source, shape)
        return DictionaryConfig(
            **{name: getattr(training, name) for name in type(training).model_fields},
            model=resolve_model(spec.model, shape),
            shape=shape,
            seed=spec.seed,
            threads=spec.threads,
        )

    def sources(self, config: DictionaryConfig) -> Mapping[str, str]:
        return text_sources(config.model, config.corpus)

    def steps(self, config: DictionaryConfig) -> Sequence[MapStep]:
        return training_steps(config, config.model, config.shape, config.seed)

    def report(self, run: Run, sink: Sink) -> None:
        write_report(run, run.config)
