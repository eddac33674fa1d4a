"""The anatomy study as steps: texts -> read -> statistics, and what is made of them: portraits,
losses, cross, match, map -> report.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from transformers import AutoConfig

from fluoroscope.core.errors import ConfigError, ModelError
from fluoroscope.core.sink import Sink
from fluoroscope.data.documents import corpus_fingerprint
from fluoroscope.models.families import FAMILIES, find_family
from fluoroscope.models.hub import find_config
from fluoroscope.models.position_ablation import check_encoding
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.study import Study
from fluoroscope.steps.known_releases import find_or_sketch_saes
from fluoroscope.steps.subject import Subject, resolve_subject, subject_sources, subject_steps
from fluoroscope.studies.anatomy.plans import AnatomyConfig, check_plan
from fluoroscope.studies.anatomy.report import write_report
from fluoroscope.studies.anatomy.settings import AnatomySettings
from fluoroscope.studies.anatomy.spec import AnatomySpec
from fluoroscope.studies.anatomy.steps.cross import CROSS, CrossStep
from fluoroscope.studies.anatomy.steps.decoder_map import MAP, DecoderMapStep
from fluoroscope.studies.anatomy.steps.losses import LOSSES_STEP, LossesStep
from fluoroscope.studies.anatomy.steps.match import MATCH, MatchStep
from fluoroscope.studies.anatomy.steps.portraits import PORTRAITS, PortraitsStep
from fluoroscope.studies.anatomy.steps.read import READ, ReadStep
from fluoroscope.studies.anatomy.steps.statistics import STATISTICS, StatisticsStep
from fluoroscope.studies.anatomy.steps.texts import TextsStep


class AnatomyStudy(Study[AnatomySpec, AnatomyConfig]):
    name = "anatomy"
    spec = AnatomySpec
    phases = MappingProxyType(
        {
            "look": (READ, STATISTICS, PORTRAITS),
            "judge": (LOSSES_STEP, CROSS),
            "compare": (MATCH, MAP),
        }
    )

    def resolve(self, spec: AnatomySpec) -> AnatomyConfig:
        return _resolved(spec)

    def sketch(self, spec: AnatomySpec) -> AnatomyConfig:
        """Well-known models and SAEs are reckoned with by their sizes, without the hub."""
        return _resolved(spec, is_sketch=True)

    def sources(self, config: AnatomyConfig) -> Mapping[str, str]:
        found = dict(subject_sources(config))
        for name, corpus in config.corpora().items():
            text = corpus_fingerprint(corpus)
            found |= {f"text {name}".strip(): text} if text is not None else {}
        for name, choices in config.others.items():
            found |= {f"{name} {sae.hook_point}": sae.weights_sha256 for sae in choices}
        return found

    def steps(self, config: AnatomyConfig) -> Sequence[MapStep]:
        has_losses = FAMILIES[config.shape.family].kind == "decoder"
        return [
            *subject_steps(config, config.seed),
            *(TextsStep(config, name) for name in config.corpora()),
            ReadStep(config),
            StatisticsStep(config),
            PortraitsStep(config),
            *([LossesStep(config)] if has_losses else []),
            CrossStep(config),
            MatchStep(config),
            DecoderMapStep(config),
        ]

    def report(self, run: Run, sink: Sink) -> None:
        write_report(run, run.config, sink)


def _resolved(spec: AnatomySpec, *, is_sketch: bool = False) -> AnatomyConfig:
    subject = resolve_subject(spec, is_sketch=is_sketch, one_each=False)
    others = {
        name: find_or_sketch_saes(
            named.source or [], named.hook_points, subject.model, is_sketch=is_sketch
        )
        for name, named in spec.match.others.items()
    }
    if any(one.startswith("positions") for one in spec.ablations) and not is_sketch:
        check_positions(spec.model.source, spec.model.revision)
    config = AnatomyConfig(
        **{name: getattr(subject, name) for name in Subject.model_fields},
        **{name: getattr(spec, name) for name in AnatomySettings.model_fields},
        others=others,
    )
    check_plan(config)
    return config


def check_positions(source: str, revision: str | None) -> None:
    """Raises `ConfigError` where positions cannot be taken away, before anything is read."""
    config = AutoConfig.from_pretrained(find_config(source, revision).parent)
    try:
        check_encoding(source, find_family(config.model_type, source), config)
    except ModelError as error:
        raise ConfigError(f"{error} Or give ablations=[reconstructed].") from None
