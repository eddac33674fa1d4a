"""Networks that the plan (seed 003) and its last code name, and what they were to be trained with.

    plan    base_config, large_config; the arms of its phases: 1 linear connections with as many
            slots as the width, in both readings; 2 slots to width; 3 rank; 4 when to stop
    code    g2_micro to g2_large: one number a pair, one step, a Transformer decoder
    ours    no_connections, and steps that are always done

This module is free of torch. Lengths of answers, which the plan does not say, are as by default.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.registry import nearest
from fluoroscope.studies.connection.network.network_config import NetworkConfig


class Batches(NamedTuple):
    """As the plan has them for a card of 24 GB."""

    train: int
    """Texts in a pass."""

    evaluation: int
    accumulation: int
    """Passes whose gradients are added up for a step."""

    learning_rate: float

    @property
    def effective(self) -> int:
        """Texts in a step."""
        return self.train * self.accumulation


class Known(NamedTuple):
    network: NetworkConfig
    batches: Batches


_PLAN = Batches(train=32, evaluation=64, accumulation=2, learning_rate=1e-4)
_PLAN_LARGE = Batches(train=16, evaluation=32, accumulation=4, learning_rate=1e-4)


def _network(**settings: object) -> NetworkConfig:
    return build(NetworkConfig, settings)


def _of_plan(**settings: object) -> Known:
    return Known(_network(**settings), _PLAN)


def _of_code(
    d_model: int, n_layers: int, n_heads: int, length: int, batch: int, learning_rate: float
) -> Known:
    network = _network(
        d_model=d_model,
        n_slots=d_model,
        max_steps=1,
        connection={"name": "scalar", "rank": 1},
        output={"name": "decoder", "n_layers": n_layers, "n_heads": n_heads},
        max_source=length,
        max_target=length,
    )
    # It evaluates as it trains, and accumulates nothing.
    return Known(network, Batches(batch, batch, 1, learning_rate))


KNOWN: Mapping[str, Known] = MappingProxyType(
    {
        "base_config": _of_plan(),
        "large_config": Known(
            _network(
                d_model=512,
                n_slots=256,
                connection={"rank": 64},
                max_steps=8,
                halting={"threshold": 0.005},
            ),
            _PLAN_LARGE,
        ),
        "linear_feature": _of_plan(n_slots=256, connection={"name": "linear_feature"}),
        "linear_slot": _of_plan(n_slots=256, connection={"name": "linear_slot"}),
        **{f"nd_{n}_256": _of_plan(n_slots=n) for n in (64, 128, 256, 512)},
        **{f"rank_{rank}": _of_plan(connection={"rank": rank}) for rank in (8, 16, 32, 64)},
        "sensitive_termination": _of_plan(halting={"threshold": 0.001}),
        "medium_termination": _of_plan(halting={"threshold": 0.01}),
        "loose_termination": _of_plan(halting={"threshold": 0.1}),
        "no_dynamic_baseline": _of_plan(max_steps=4, halting={"name": "fixed"}),
        "no_connections": _of_plan(max_steps=0, connection={"name": "none"}),
        **{f"steps_{k}": _of_plan(max_steps=k, halting={"name": "fixed"}) for k in (1, 2, 4, 8)},
        "g2_micro": _of_code(128, 4, 4, 128, 64, 2e-4),
        "g2_small": _of_code(256, 5, 4, 256, 48, 2e-4),
        "g2_base": _of_code(512, 6, 8, 256, 32, 1e-4),
        "g2_large": _of_code(768, 6, 8, 256, 24, 1e-4),
    }
)


def known_config(name: str) -> Known:
    """By name; a `ConfigError` with the nearest where there is none."""
    if name not in KNOWN:
        raise ConfigError(
            f"There is no network {name!r}.{nearest(name, KNOWN)} There are: {', '.join(KNOWN)}."
        )
    return KNOWN[name]
