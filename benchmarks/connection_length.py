"""Part `length`: what reading a text costs as it gets longer, beside a Transformer's.

A slot network routes each token once, and then thinks in steps that no longer know how long the
text was: `a + b S`. In an encoder each token reads every other: `b S + c S^2`. Both have the same
width and words, and as many parameters without those of the vocabulary. Forward alone, all that is
done before an answer is written. The exponent is the slope of a line through the three longest, on
logarithms, found in each round. Operations are those of products, counted on the same call.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.connection_parts import milliseconds, row
from benchmarks.harness import Contender, Ratio, Timing, interleave, speed_ratio
from benchmarks.plugin_parts import Part
from fluoroscope.core.config import build
from fluoroscope.studies.connection.baselines.baseline_config import TransformerConfig
from fluoroscope.studies.connection.baselines.matching import Match, match_parameters
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.reasoners import (
    AnyConfig,
    count_parameters,
    new_reasoner,
    unseeded_reasoner,
)

LENGTHS, QUICK_LENGTHS = (64, 128, 256, 512, 1024, 2048), (16, 32, 64)
N_FITTED = 3
LINEAR = 1.1
"""The largest exponent that is called linear."""

_WORDS = 1000
_REST = {
    "vocab_size": _WORDS,
    "step": "gated",
    "halting": {"name": "fixed"},
    "output": {"name": "decoder", "n_layers": 1, "n_heads": 8},
    "connection": {"name": "gated", "n_heads": 8},
    "max_target": 4,
    "dropout": 0.0,
}


@dataclass(frozen=True)
class Reader:
    name: str
    config: AnyConfig
    n_steps: int | None = None
    """Of thought; None takes as many as it has."""

    def reads(self, n_tokens: int) -> Callable[[], None]:
        """A text of so many tokens."""
        reasoner = new_reasoner(self.config, seed=0).eval()
        stream = torch.Generator().manual_seed(1)
        ids = torch.randint(1, _WORDS, (1, n_tokens), generator=stream)
        mask = torch.ones_like(ids, dtype=torch.bool)

        @torch.no_grad()
        def run() -> None:
            reasoner.think(ids, mask, self.n_steps)

        return run

    def flops(self, n_tokens: int) -> int:
        """Of the same, without doing it."""
        # Fused attention on the CPU has no count; what it computes is what this way does.
        with FakeTensorMode(), sdpa_kernel([SDPBackend.MATH]), torch.no_grad():
            reasoner = unseeded_reasoner(self.config).eval()
            ids = torch.ones(1, n_tokens, dtype=torch.int64)
            with FlopCounterMode(display=False) as counted:
                reasoner.think(ids, ids == 1, self.n_steps)
        return counted.get_total_flops()


def length(rounds: int, is_quick: bool) -> Part:
    lengths = QUICK_LENGTHS if is_quick else LENGTHS
    slots = slot_config(is_quick, lengths[-1])
    match = match_parameters(slots, "transformer")
    readers = (
        Reader("slot network", slots),
        Reader("slot network, reading alone", slots, n_steps=0),
        Reader("Transformer", match.config),
    )
    repeats = 1 if is_quick else 3
    contenders = [
        Contender(_key(n, reader), _several(reader.reads(n), repeats), repeats)
        for n in lengths
        for reader in readers
    ]
    part = Part(timings=interleave(contenders, rounds))
    for n in lengths:
        part.rows += _rows(n, readers, part.timings)
    for reader in readers:
        found = _exponent([part.timings[_key(n, reader)].cpu_seconds for n in lengths], lengths)
        computed = _slope([reader.flops(n) for n in lengths], lengths)
        part.rows.append(
            row(
                f"growth, S {lengths[-N_FITTED]} to {lengths[-1]}",
                reader.name,
                parameters=f"{count_parameters(reader.config).non_embedding:,}",
                cost=f"S^{found}",
                note=f"of operations S^{computed:.2f}",
            )
        )
        if isinstance(reader.config, NetworkConfig):
            said = f"{reader.name}: at most linear in S (S^{LINEAR}): S^{found}"
            part.goals[said] = found.median <= LINEAR
    part.conditions["length"] = _conditions(slots, match)
    return part


def slot_config(is_quick: bool, longest: int) -> NetworkConfig:
    """With a cheap form: the plan's own has as many weights as hundreds of layers."""
    size = (
        {"d_model": 16, "n_slots": 8, "max_steps": 2}
        if is_quick
        else {"d_model": 256, "n_slots": 128, "max_steps": 6}
    )
    return build(NetworkConfig, {**_REST, **size, "max_source": longest})


def _key(n_tokens: int, reader: Reader) -> str:
    return f"S {n_tokens}: {reader.name}"


def _several(run: Callable[[], None], n: int) -> Callable[[], None]:
    def runs() -> None:
        for _ in range(n):
            run()

    return runs


def _rows(n: int, readers: Sequence[Reader], timings: dict[str, Timing]) -> list[list[str]]:
    """Beside the last of the readers."""
    peer, rows = timings[_key(n, readers[-1])], []
    for reader in readers:
        timing = timings[_key(n, reader)]
        faster = "" if timing is peer else str(speed_ratio(timing, peer))
        note = f"{reader.flops(n) / 1e9:,.3f} GFLOP"
        cost = f"{milliseconds(timing)} a text"
        rows.append(row(f"reading, S {n}", reader.name, cost=cost, faster=faster, note=note))
    return rows


def _exponent(seconds: Sequence[Sequence[float]], lengths: Sequence[int]) -> Ratio:
    """Over rounds; `seconds` are of each length in each."""
    slopes = [_slope(one, lengths) for one in zip(*seconds, strict=True)]
    return Ratio(statistics.median(slopes), min(slopes), max(slopes))


def _slope(costs: Sequence[float], lengths: Sequence[int]) -> float:
    """Of the longest."""
    x, y = (np.log(np.asarray(each[-N_FITTED:], float)) for each in (lengths, costs))
    return float(np.polyfit(x, y, 1)[0])


def _conditions(slots: NetworkConfig, match: Match) -> str:
    config = match.config
    assert isinstance(config, TransformerConfig), "a Transformer was asked for"
    return (
        f"a text at a time, forward, float32; D {slots.d_model}; {slots.n_slots} slots, no layers "
        f"before them, gated connection and step, {slots.max_steps} steps of thought; "
        f"the Transformer has {config.n_encoder_layers} layers with {config.d_hidden} hidden units "
        f"in its encoder and {match.gap:+.1%} parameters; times faster are of it"
    )
