"""What the parts of `benchmarks.connection` share: their table, and ways to hear in pairs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from benchmarks.harness import Contender, Timing, speed_ratio
from benchmarks.plugin_parts import Part
from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.connection.network.connections.base import Connection, make_connection
from fluoroscope.studies.connection.network.connections.bilinear import Bilinear
from fluoroscope.studies.connection.network.connections.naive import naive_influence
from fluoroscope.studies.connection.network.network_config import ConnectionConfig

COLUMNS = ("what", "way", "parameters", "cost", "times faster", "accuracy", "note")

WayName = Literal["double loop", "torch.einsum", "fast"]
NAIVE: WayName = "double loop"
EINSUM: WayName = "torch.einsum"
FAST: WayName = "fast"

BATCH = 8
"""Texts at once, where not said otherwise."""


@dataclass(frozen=True)
class Size:
    """Of maps of pairs, and of what they are used on."""

    n_slots: int
    d_model: int
    rank: int
    batch: int = BATCH

    def __str__(self) -> str:
        return f"N {self.n_slots}, D {self.d_model}, r {self.rank}, batch {self.batch}"

    @property
    def flops(self) -> int:
        """Of one step forward: two products of d r for each pair and text."""
        return 4 * self.batch * self.n_slots**2 * self.d_model * self.rank

    @property
    def weight_bytes(self) -> int:
        return 4 * 2 * self.n_slots**2 * self.d_model * self.rank

    def slots(self) -> Tensor:
        stream = torch.Generator().manual_seed(1)
        shape = (self.batch, self.n_slots, self.d_model)
        return torch.randn(shape, generator=stream).requires_grad_()


@dataclass(frozen=True)
class Way:
    """One way to compute what slots hear in a step, with the weights that it learns."""

    hears: Callable[[Tensor], Tensor]
    weights: tuple[Tensor, ...]


def row(
    what: str,
    way: str,
    *,
    parameters: str = "",
    cost: str = "",
    faster: str = "",
    accuracy: str = "",
    note: str = "",
) -> list[str]:
    """In the order of `COLUMNS`."""
    return [what, way, parameters, cost, faster, accuracy, note]


def milliseconds(timing: Timing) -> str:
    """Of a unit of work."""
    return f"{1e3 / timing.rate:,.2f} ms"


def beside_first(what: str, timings: Mapping[str, Timing]) -> Part:
    """A row each, beside the first in the same rounds."""
    part = Part(timings={f"{what}: {name}": timing for name, timing in timings.items()})
    first = next(iter(timings))
    for name, timing in timings.items():
        faster = "" if name == first else str(speed_ratio(timing, timings[first]))
        cost = milliseconds(timing)
        part.rows.append(row(what, name, cost=cost, faster=faster, note=timing.note))
    return part


def new_connection(d_model: int, n_slots: int, config: ConnectionConfig) -> Connection:
    """The same each time; torch's generators stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return make_connection(d_model, n_slots, config)


def pair_connection(size: Size) -> Bilinear:
    config = ConnectionConfig(name="bilinear", rank=size.rank)
    connection = new_connection(size.d_model, size.n_slots, config)
    assert isinstance(connection, Bilinear), "it is what its name says"
    return connection


def way_of(name: WayName, connection: Bilinear) -> Way:
    """`torch.einsum` learns copies, in the order in which the formula has them."""
    match name:
        case "fast":
            return way_of_form(connection)
        case "double loop":
            weights = tuple(connection.parameters())
            return Way(lambda slots: naive_influence(connection, slots), weights)
        case "torch.einsum":
            W_s, W_t = (w.detach().contiguous().requires_grad_() for w in connection.pair_weights())
            return Way(lambda slots: einsum_influence(W_s, W_t, slots), (W_s, W_t))


def way_of_form(connection: Connection) -> Way:
    """A form as networks use it, made ready anew in each pass."""
    return Way(lambda slots: connection.operator()(slots), tuple(connection.parameters()))


def einsum_influence(W_s: Tensor, W_t: Tensor, slots: Tensor) -> Tensor:
    """`sum over i of S_i W_s[i, j] W_t[i, j]`, as it is written.

    i = j is spared a mask: both weights begin at 0 there, so their gradients are 0 too.
    """
    ranks = torch.einsum("bid,ijdr->bijr", slots, W_s)
    return torch.einsum("bijr,ijrd->bjd", ranks, W_t)


def one_pass(way: Way, slots: Tensor, learns: bool) -> Tensor:
    """What is heard, and with `learns` new gradients of the slots and all weights."""
    for tensor in (slots, *way.weights):
        tensor.grad = None
    with torch.set_grad_enabled(learns):
        heard = way.hears(slots)
    if learns:
        heard.square().mean().backward()
    return heard


def contender(
    name: str, way: Way, slots: Tensor, learns: bool, repeats: int, note: str = ""
) -> Contender:
    """Its unit of work is a pass."""

    def run() -> None:
        for _ in range(repeats):
            one_pass(way, slots, learns)

    return Contender(name, run, repeats, note)


def check_names(names: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            raise ConfigError(f"There is no part {name!r}; there are: {', '.join(known)}.")
