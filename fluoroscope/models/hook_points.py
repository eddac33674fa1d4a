"""Where in a network: a layer and a stream, written `12.resid_post`.

Layers count blocks from 0. The streams of one block, in the order in which they are computed:

    embed       what the token-embedding table gives, before positions and norms; layer 0 only
    resid_pre   the residual stream as it enters the block
    attn_out    what attention adds to the residual stream
    mlp_out     what the MLP adds to the residual stream
    resid_post  the residual stream as it leaves the block, before any final norm

How they add up in each architecture is in `families.py`. This module imports no torch, so
that settings and the command line can use it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from fluoroscope.core.errors import ConfigError, ModelError
from fluoroscope.core.registry import nearest

Stream = Literal["embed", "resid_pre", "attn_out", "mlp_out", "resid_post"]
STREAMS: tuple[Stream, ...] = get_args(Stream)


@dataclass(frozen=True, init=False)
class HookPoint:
    """One place in a network: `HookPoint(12, "resid_post")` or `HookPoint("12.resid_post")`.

    Sorted by the order in which the network computes them.
    """

    layer: int
    stream: Stream

    def __init__(self, layer: int | str, stream: Stream | None = None) -> None:
        name: str | None = stream
        if isinstance(layer, str):
            if stream is not None:
                raise ConfigError(f"Give HookPoint({layer + '.' + stream!r}) or a whole layer.")
            layer, name = _split(layer)
        if name not in STREAMS:
            raise ConfigError(
                f"A stream is one of {', '.join(STREAMS)}, got {name!r}."
                f"{nearest(str(name), list(STREAMS))}"
            )
        if layer < 0 or (name == "embed" and layer != 0):
            raise ConfigError(f"Layers count from 0 and embed is 0.embed, got {layer}.{name}.")
        object.__setattr__(self, "layer", layer)
        object.__setattr__(self, "stream", name)

    @classmethod
    def parse(cls, text: str) -> "HookPoint":
        return cls(text)

    @property
    def depth(self) -> tuple[int, int]:
        """What orders hook points: a later one is computed from the earlier ones."""
        return self.layer, STREAMS.index(self.stream)

    def __lt__(self, other: "HookPoint") -> bool:
        return self.depth < other.depth

    def __str__(self) -> str:
        return f"{self.layer}.{self.stream}"


def parse_hook_points(
    wanted: str | HookPoint | Sequence[str | HookPoint], n_layers: int
) -> list[HookPoint]:
    """`"all.resid_post"`, `"0,3.resid_post"`, `"1-31.resid_post,2.mlp_out"`, or a list of such.

    Each once, in the order in which the network computes them; `embed` is `0.embed`.
    """
    parts = [wanted] if isinstance(wanted, str | HookPoint) else list(wanted)
    points: set[HookPoint] = set()
    for part in parts:
        points |= {part} if isinstance(part, HookPoint) else set(_parse(part, n_layers))
    if not points:
        raise ConfigError("No hook point was named; give for instance all.resid_post.")
    for point in sorted(points):
        check_layer(point, n_layers)
    return sorted(points)


def check_layer(point: HookPoint, n_layers: int) -> None:
    """Raises `ModelError` unless a model of `n_layers` has this hook point."""
    if point.layer >= n_layers:
        layers = f"its layers are 0 to {n_layers - 1}" if n_layers else "it has no layers"
        raise ModelError(
            f"The model has no hook point {point}: {layers}, with the streams {', '.join(STREAMS)}."
        )


def _parse(text: str, n_layers: int) -> list[HookPoint]:
    points: list[HookPoint] = []
    layers: list[int] = []
    for item in text.replace(" ", "").split(","):
        head, dot, stream = ("0", ".", item) if item == "embed" else item.partition(".")
        layers += range(n_layers) if head == "all" else _layers(head, text)
        # `0,3.resid_post`: the stream holds for all layers since the last stream.
        if dot:
            points += [HookPoint(f"{layer}.{stream}") for layer in layers]
            layers = []
    if layers:
        raise ConfigError(f"{text!r} ends without a stream; write for instance 0,3.resid_post.")
    return points


def _split(text: str) -> tuple[int, str]:
    head, dot, stream = text.strip().partition(".")
    if not dot:
        raise ConfigError(f"A hook point is written LAYER.STREAM (12.resid_post), got {text!r}.")
    return _layer(head, text), stream


def _layers(head: str, text: str) -> list[int]:
    """`3` or `1-31`."""
    first, dash, last = head.partition("-")
    if not dash:
        return [_layer(head, text)]
    low, high = _layer(first, text), _layer(last, text)
    if low > high:
        raise ConfigError(f"A range of layers goes upwards, such as 1-31.resid_post; got {text!r}.")
    return list(range(low, high + 1))


def _layer(head: str, text: str) -> int:
    if not head.isdecimal():
        raise ConfigError(
            f"A hook point is written LAYER.STREAM with a layer counted from 0, a range or `all` "
            f"(12.resid_post, 1-31.resid_post, all.resid_post), got {text!r}."
        )
    return int(head)
