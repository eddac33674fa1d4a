"""What the steps read: texts as tokens, the encoder, borrowed layers; once in each process."""

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.data.corpus_config import SPLITS, Split
from fluoroscope.data.labelled.encoding import Encoded, encode
from fluoroscope.data.labelled.example import Example
from fluoroscope.models.encoder_names import encoder_source
from fluoroscope.models.encoders import Encoder, load_encoder
from fluoroscope.models.single_layer.known import llm_source
from fluoroscope.models.single_layer.loading import LayerTensors, load_layer
from fluoroscope.runs.run import Run
from fluoroscope.steps.models import pinned_revision
from fluoroscope.studies.plugin.classifier import PlugClassifier
from fluoroscope.studies.plugin.config import Arm, PluginConfig
from fluoroscope.studies.plugin.plugs import make_plug
from fluoroscope.studies.plugin.steps.read import input_rms
from fluoroscope.studies.plugin.steps.texts import TEXTS, TextSet, load_texts, set_key, token_cache

_LAYERS_KEPT = 2
"""Borrowed layers in memory: the one that trainings in turn have, and one more."""


def texts_of(run: Run, name: str) -> TextSet:
    return run.cached(("texts", name), lambda: load_texts(run.step_folder(TEXTS), name))


def encoder_of(run: Run, config: PluginConfig) -> Encoder:
    """As it was pretrained; what is trained is a copy."""
    source = encoder_source(config.model.source)
    revision = pinned_revision(run, "model", config.model.revision)
    return run.cached(("encoder", source), lambda: load_encoder(source, revision=revision))


def encoded_sides(run: Run, config: PluginConfig, name: str) -> Mapping[Split, Encoded]:
    """Tokens for the encoder, as the texts' step has left them."""
    texts, tokenizer = texts_of(run, name), encoder_of(run, config).tokenizer
    cache = token_cache(config, run.step_folder(TEXTS) / "shards" / set_key(name))
    return run.cached(
        ("sides", name),
        lambda: {
            side: encode(texts.side(side), tokenizer, config.max_length, cache=cache)
            for side in SPLITS
        },
    )


def encoded_examples(run: Run, config: PluginConfig, examples: Sequence[Example]) -> Encoded:
    """Tokens of what is no whole side, which are not kept."""
    return encode(examples, encoder_of(run, config).tokenizer, config.max_length)


def layer_of(
    run: Run, config: PluginConfig, layer: int, form: str, *, keeps: bool = True
) -> LayerTensors:
    """A layer of the large model, from the layer cache; kept in memory for the next training."""
    source = llm_source(config.llm.source)
    revision = pinned_revision(run, "llm", config.llm.revision)

    def load() -> LayerTensors:
        found = load_layer(
            source,
            layer,
            revision=revision,
            dtype=config.llm.dtype,
            cache=cache_folder(config),
            form="sequence" if form == "sequence" else "token",
        )
        _check_finite(found)
        return found

    kept: dict[tuple[int, str], LayerTensors] = run.cached("borrowed layers", dict)
    if not keeps or (layer, form) in kept:
        return kept.get((layer, form)) or load()
    while len(kept) >= _LAYERS_KEPT:
        kept.pop(next(iter(kept)))
    kept[layer, form] = load()
    return kept[layer, form]


def _check_finite(found: LayerTensors) -> None:
    """Before training, where it would look like a rate that is too high."""
    broken = [name for name, one in found.tensors.items() if not bool(one.isfinite().all())]
    if broken:
        own = found.identity
        raise NumericsError(
            f"Layer {own.layer} of {own.source} is not finite in {own.dtype}: {broken[0]} has a "
            "NaN or an infinity. Fetch the model again, or take llm.dtype=float32 or bfloat16."
        )


def cache_folder(config: PluginConfig) -> Path:
    """Of borrowed layers, which many runs share."""
    if config.outputs.cache:
        return Path(config.outputs.cache).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "fluoroscope" / "layers"


def new_classifier(
    run: Run, config: PluginConfig, dataset: str, arm: Arm, seed: int
) -> PlugClassifier:
    """Before its first step; equal seeds give equal heads, and equal maps where widths agree."""
    plug = None
    if arm.form is not None:
        tensors, target = None, None
        if arm.form.has_layer:
            if arm.layer is None:
                raise ConfigError(f"The arm {arm.name} needs a layer, and none was chosen.")
            tensors = layer_of(run, config, arm.layer, arm.form.reads)
            if arm.form.is_rms_matched:
                target = input_rms(run, dataset)[arm.layer]
        plug = make_plug(arm.form, config.d_model, tensors, config.d_layer, seed, target)
    return PlugClassifier(
        copy.deepcopy(encoder_of(run, config)),
        arm.form,
        config.model.pooling,
        plug,
        len(texts_of(run, dataset).classes),
        config.training.dropout,
        seed,
    )
