"""Baselines of the size of a slot network: as many parameters, or as many operations.

The two are different questions, and what is equal in one is far off in the other: the plan's base
network has 268 million weights of connections, of which each is used once a text and step, where
those of a Transformer are used for every token. So there are two matches, and two tables to read.

What is searched is the number of layers and the width of their feed-forward parts; all else is the
slot network's: vocabulary, width, heads, lengths, decoder, steps, latents as many as slots. Both
counts are linear in each of the two, so that a few measurements of small shapes give them all. Of
the shapes that come near enough that one is taken which is most like an ordinary Transformer of 6
layers that are 4 `d_model` wide (a step of a repeating one: of 1 layer), by the logarithms of both.
Where even a single thin layer is too much, as with slots that cost next to nothing, the decoder is
a layer less deep.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from typing import Literal, NamedTuple

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.connection.baselines.baseline_config import (
    BaselineConfig,
    LoopedConfig,
    PerceiverConfig,
    TransformerConfig,
)
from fluoroscope.studies.connection.dry_run import Workload, dry_run
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.reasoners import AnyConfig, count_parameters

Family = Literal["transformer", "perceiver", "looped"]
Unit = Literal["non-embedding parameters", "training FLOPs"]

TOLERANCE = 0.02
LAYERS = range(1, 129)
FFN_MULTIPLES = (2, 3, 4, 6, 8)
"""Of the plan's own rule."""

_USUAL_LAYERS = {"transformer": 6, "perceiver": 1, "looped": 1}


@dataclass(frozen=True)
class Match:
    """A baseline, and how near it comes to what it was matched to."""

    config: BaselineConfig
    unit: Unit
    target: int
    """Of the slot network."""

    reached: int
    """Of the baseline, counted on it as it is."""

    @property
    def gap(self) -> float:
        """As a share of the target; negative where the baseline has less."""
        return self.reached / self.target - 1


def match_parameters(
    network: NetworkConfig,
    family: Family,
    tolerance: float = TOLERANCE,
    layers: Sequence[int] = LAYERS,
) -> Match:
    """The baseline with as many parameters beside those of the vocabulary.

    `layers` bounds the search; a `ConfigError` says what came nearest where nothing is near enough.
    """
    return _match(network, family, "non-embedding parameters", _non_embedding, tolerance, layers)


def match_flops(
    network: NetworkConfig,
    family: Family,
    work: Workload,
    tolerance: float = TOLERANCE,
    layers: Sequence[int] = LAYERS,
) -> Match:
    """The baseline whose step of training on `work` takes as many operations; all steps of thought
    are counted, as no text is sure to stop earlier. Errors as of `match_parameters`.
    """

    def flops(config: AnyConfig) -> int:
        return dry_run(config, work).training_flops

    return _match(network, family, "training FLOPs", flops, tolerance, layers)


def reference_match(network: NetworkConfig) -> Match:
    """The Transformer by the rule of the plan's code: as many layers of `m` widths as stay below
    the slot network's parameters, for each m of `FFN_MULTIPLES`, and of these the nearest.

    It may be as far off as a layer is large. That rule forgot the biases of attention; here they
    are counted.
    """
    target, plain = _non_embedding(network), like(network, "transformer")
    found: list[tuple[int, _Shape]] = []
    for multiple in FFN_MULTIPLES:
        shape = _Shape(1, multiple * network.d_model, plain.n_decoder_layers)
        one, two = (_non_embedding(_shaped(plain, shape._replace(n=n))) for n in (1, 2))
        more = max(0, (target - one) // (two - one))
        found.append((one + more * (two - one), shape._replace(n=1 + more)))
    _, shape = min(found, key=lambda each: abs(each[0] - target))
    config = _shaped(plain, shape)
    return Match(config, "non-embedding parameters", target, _non_embedding(config))


def like(network: NetworkConfig, family: Family) -> BaselineConfig:
    """A baseline of the slot network's vocabulary, width, lengths, decoder and steps.

    Of a slot network without a decoder it has a single layer.
    """
    output = network.output
    shared = {
        "vocab_size": network.vocab_size,
        "d_model": network.d_model,
        "max_source": network.max_source,
        "max_target": network.max_target,
        "dropout": network.dropout,
        "noise": network.noise,
        "spread": network.spread,
        "neighbours": network.neighbours,
        "pad_id": network.pad_id,
        "n_heads": output.n_heads,
        "n_decoder_layers": output.n_layers if output.name == "decoder" else 1,
    }
    match family:
        case "transformer":
            return build(TransformerConfig, shared)
        case "looped":
            return build(LoopedConfig, {**shared, "max_steps": network.max_steps})
        case "perceiver":
            latents = {"n_latents": network.n_slots, "every_step": network.routing.every_step}
            return build(PerceiverConfig, {**shared, **latents, "max_steps": network.max_steps})


def _match(
    network: NetworkConfig,
    family: Family,
    unit: Unit,
    measure: Callable[[AnyConfig], int],
    tolerance: float,
    layers: Sequence[int],
) -> Match:
    target, plain = measure(network), like(network, family)
    counts = _Counts.of(lambda shape: measure(_shaped(plain, shape)))
    shapes: list[_Shape] = []
    # A decoder as deep as the slot network's, if anything is near with it.
    for n_decoder in range(plain.n_decoder_layers, 0, -1):
        of_it = [counts.nearest(n, n_decoder, target, tolerance) for n in layers]
        near = [shape for shape in of_it if abs(counts.at(shape) / target - 1) <= tolerance]
        if near:
            config = _shaped(plain, min(near, key=lambda each: _oddity(each, plain)))
            return Match(config, unit, target, measure(config))
        shapes += of_it
    nearest = min(shapes, key=lambda shape: abs(counts.at(shape) - target))
    raise ConfigError(
        f"No {family} of {min(layers)} to {max(layers)} layers comes within {tolerance:.0%} of "
        f"{target:,} {unit}: the nearest has {counts.at(nearest):,}, with {nearest.n} layers of "
        f"{nearest.width} hidden units and {nearest.n_decoder} in the decoder. Allow other layers, "
        "or match another network."
    )


class _Shape(NamedTuple):
    n: int
    """Layers before the decoder, of all steps together once."""

    width: int
    """Of their feed-forward parts."""

    n_decoder: int


@dataclass(frozen=True)
class _Counts:
    """`a + b n + c h + e n h + g m` of n layers, h wide, and m in the decoder."""

    a: int
    b: int
    c: int
    e: int
    g: int

    @classmethod
    def of(cls, measure: Callable[[_Shape], int]) -> "_Counts":
        narrow, wide = 8, 16
        apart = wide - narrow
        one, two = measure(_Shape(1, narrow, 1)), measure(_Shape(2, narrow, 1))
        one_wide = measure(_Shape(1, wide, 1))
        e = (measure(_Shape(2, wide, 1)) - two - one_wide + one) // apart
        c = (one_wide - one) // apart - e
        b = two - one - e * narrow
        g = measure(_Shape(1, narrow, 2)) - one
        return cls(one - b - (c + e) * narrow - g, b, c, e, g)

    def at(self, shape: _Shape) -> int:
        n, width, n_decoder = shape
        return self.a + self.b * n + self.c * width + self.e * n * width + self.g * n_decoder

    def nearest(self, n: int, n_decoder: int, target: int, tolerance: float) -> _Shape:
        """With the width that comes nearest; of 8 units, as kernels like it, where that is near by
        far.
        """
        fixed = self.at(_Shape(n, 0, n_decoder))
        exact = (target - fixed) / (self.c + self.e * n)
        even = _Shape(n, max(8, 8 * round(exact / 8)), n_decoder)
        if abs(self.at(even) / target - 1) <= tolerance / 10:
            return even
        return _Shape(n, max(1, round(exact)), n_decoder)


def _oddity(shape: _Shape, plain: BaselineConfig) -> float:
    """How far from an ordinary shape."""
    usual = _USUAL_LAYERS[plain.kind]
    return log(shape.n / usual) ** 2 + log(shape.width / (4 * plain.d_model)) ** 2


def _shaped(plain: BaselineConfig, shape: _Shape) -> BaselineConfig:
    layers = "n_encoder_layers" if isinstance(plain, TransformerConfig) else "n_layers"
    settings = {layers: shape.n, "d_hidden": shape.width, "n_decoder_layers": shape.n_decoder}
    return plain.model_copy(update=settings)


def _non_embedding(config: AnyConfig) -> int:
    return count_parameters(config).non_embedding
