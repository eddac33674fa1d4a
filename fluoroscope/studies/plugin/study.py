"""The plug-in study as steps: texts -> read -> select -> (halve) -> choose -> train."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from fluoroscope.core.errors import ConfigError, ModelError
from fluoroscope.core.registry import nearest
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import COMMIT, fingerprints
from fluoroscope.data.labelled.base import labelled_commit, labelled_set
from fluoroscope.models.encoder_names import ENCODERS, encoder_source
from fluoroscope.models.families import find_family
from fluoroscope.models.hub import model_fingerprint
from fluoroscope.models.shape import ModelShape
from fluoroscope.models.single_layer.facts import check_layer, layer_facts
from fluoroscope.models.single_layer.known import LLMS, llm_source
from fluoroscope.models.training.precision import decide
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.study import Study
from fluoroscope.steps.wandb_runs import check_wandb
from fluoroscope.studies.plugin.config import PluginConfig
from fluoroscope.studies.plugin.pooling import pooling_name
from fluoroscope.studies.plugin.report import write_report
from fluoroscope.studies.plugin.settings import PluginSettings, SelectionSpec
from fluoroscope.studies.plugin.spec import PluginSpec
from fluoroscope.studies.plugin.steps.choose import CHOOSE, ChooseStep
from fluoroscope.studies.plugin.steps.halve import FIRST, SECOND, HalveStep, halves
from fluoroscope.studies.plugin.steps.read import READ, ReadStep
from fluoroscope.studies.plugin.steps.select import SELECT, SelectStep
from fluoroscope.studies.plugin.steps.texts import TEXTS, TextsStep, data_source, files_of
from fluoroscope.studies.plugin.steps.train import TRAIN, TrainStep


class PluginStudy(Study[PluginSpec, PluginConfig]):
    name = "plugin"
    spec = PluginSpec
    phases = MappingProxyType(
        {
            "preprocessing": (TEXTS,),
            "selection": (READ, SELECT, FIRST, SECOND, CHOOSE),
            "training": (TRAIN,),
        }
    )

    def resolve(self, spec: PluginSpec) -> PluginConfig:
        return _resolved(spec)

    def sources(self, config: PluginConfig) -> Mapping[str, str]:
        source = encoder_source(config.model.source)
        found = {"model": model_fingerprint(source, config.model.revision)}
        if config.n_layers:
            source = llm_source(config.llm.source)
            found["llm"] = model_fingerprint(source, config.llm.revision)
        for name in (*config.datasets, *config.test_on):
            files = files_of(name, config.data_dir)
            found |= {f"{data_source(name)} {file}": hash_ for file, hash_ in fingerprints(files)}
            if (commit := labelled_commit(name, config.data_dir)) is not None:
                found[data_source(name)] = f"{COMMIT}{commit}"
        return found

    def steps(self, config: PluginConfig) -> Sequence[MapStep]:
        steps: list[MapStep] = [TextsStep(config)]
        if config.reads_llm:
            steps.append(ReadStep(config))
        if config.chooses:
            steps.append(SelectStep(config))
            if halves(config):
                steps += [HalveStep(config, 0), HalveStep(config, 1)]
            steps.append(ChooseStep(config))
        return [*steps, TrainStep(config)]

    def report(self, run: Run, sink: Sink) -> None:
        write_report(run, run.config, sink)


def _resolved(spec: PluginSpec) -> PluginConfig:
    _check_settings(spec)
    with _nearest_named(spec.model.source, ENCODERS):
        source = encoder_source(spec.model.source)
        shape = ModelShape.of(source, spec.model.revision)
    kind = find_family(shape.family, source).kind
    if kind == "encoder-decoder":
        raise ConfigError(
            f"model.source={spec.model.source} is of the family {shape.family}, which reads a text "
            "and writes another; a layer is plugged into an encoder or a decoder."
        )
    if kind == "decoder" and spec.model.pooling == "cls":
        raise ConfigError(
            f"model.pooling=cls takes the first token of a text, and in {spec.model.source}, a "
            "decoder, that token has seen no other. Take model.pooling=last or masked_mean."
        )
    d_layer, n_layers, layer = 1, 0, spec.layer
    if spec.mode != "base":
        with _nearest_named(spec.llm.source, LLMS):
            facts = layer_facts(llm_source(spec.llm.source), spec.llm.revision)
        d_layer, n_layers = facts.d_model, facts.n_layers
        layer = check_layer(spec.layer, n_layers, spec.llm.source)
        _check_rounds(spec, n_layers)
    return PluginConfig(
        **{
            **{name: getattr(spec, name) for name in PluginSettings.model_fields},
            "layer": layer,
        },
        d_model=shape.d_model,
        encoder_kind=kind,
        max_length=min(spec.training.max_length, shape.context_length),
        precision=decide(spec.training.precision),
        d_layer=d_layer,
        n_layers=n_layers,
    )


def _check_settings(spec: PluginSpec) -> None:
    """Refuses what no model would make sense of."""
    if spec.outputs.wandb:
        check_wandb("outputs.wandb")
    for name in (*spec.datasets, *spec.test_on):
        labelled_set(name)
    if pooling_name(spec.model.pooling) == "mean" and spec.training.padding != "max_length":
        raise ConfigError(
            f"model.pooling={spec.model.pooling} counts padding, so that with training.padding="
            f"{spec.training.padding} a text's vector depends on the texts it is read beside. Take "
            "model.pooling=masked_mean, or training.padding=max_length as the plan's code does."
        )
    selection = spec.selection
    judged = {selection.method, *selection.also} & {"gradient_fit", "halving"}
    if spec.mode == "pifi_ilm" and selection.ilm.split == "validation" and judged:
        raise ConfigError(
            f"selection.ilm.split=validation has layers learnt from the side that {min(judged)} is "
            "judged on. Take selection.ilm.split=train, or leave that method out."
        )
    for name in ("checkpoints", "models", "results", "cache", "preprocessed"):
        _check_folder(f"outputs.{name}", getattr(spec.outputs, name))


def _check_folder(name: str, place: str | None) -> None:
    path = Path(place).expanduser() if place else None
    file = next((one for one in (path, *path.parents) if one.is_file()), None) if path else None
    if file is not None:
        raise ConfigError(f"{name}={place} should be a folder, and {file} is a file. Name another.")


def _check_rounds(spec: PluginSpec, n_layers: int) -> None:
    """The default is of a model of many layers, and means all of a small one."""
    keep, is_default = spec.selection.keep, spec.selection.keep == SelectionSpec().keep
    if not is_default and keep[0] > n_layers:
        raise ConfigError(
            f"selection.keep={keep} leaves more layers than the {n_layers} of {spec.llm.source}; "
            f"its first number is at most {n_layers}."
        )


@contextmanager
def _nearest_named(source: str, keys: Mapping[str, str]) -> Iterator[None]:
    """Whoever mistyped a key is not told of the hub alone."""
    try:
        yield
    except ModelError as error:
        if Path(source).is_dir() or source in keys:
            raise
        raise ModelError(f"{error}{nearest(source, keys)}") from None
