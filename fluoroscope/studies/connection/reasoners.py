"""Any reasoner by its settings, and how many parameters it has."""

from typing import NamedTuple

import torch
from torch import nn

from fluoroscope.studies.connection.baselines.baseline_config import BaselineConfig
from fluoroscope.studies.connection.baselines.new_baseline import new_baseline, unseeded_baseline
from fluoroscope.studies.connection.network.embedding import Embedding
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.network.reasoner import Reasoner
from fluoroscope.studies.connection.network.slot_network import SlotNetwork, new_network

AnyConfig = NetworkConfig | BaselineConfig


class ParameterCounts(NamedTuple):
    total: int

    vocabulary: int
    """Of tokens, places, and the map to the vocabulary."""

    connections: int
    """Of what slots hear each other by; 0 where there are no slots."""

    @property
    def non_embedding(self) -> int:
        """All but those of the vocabulary: what sizes are compared by."""
        return self.total - self.vocabulary


def new_reasoner(config: AnyConfig, seed: int) -> Reasoner:
    """A reasoner on the CPU, the same for the same seed; torch's generators stay as they are."""
    if isinstance(config, NetworkConfig):
        return new_network(config, seed)
    return new_baseline(config, seed)


def unseeded_reasoner(config: AnyConfig) -> Reasoner:
    """Drawn from torch's generator; within `torch.device("meta")` it costs no memory."""
    return SlotNetwork(config) if isinstance(config, NetworkConfig) else unseeded_baseline(config)


def count_parameters(config: AnyConfig) -> ParameterCounts:
    """Counted on a reasoner without values, of any size."""
    with torch.device("meta"):
        return counts_of(unseeded_reasoner(config))


def counts_of(reasoner: Reasoner) -> ParameterCounts:
    of_words = (
        module
        for name, module in reasoner.named_modules()
        if isinstance(module, Embedding) or _is_head(name, module, reasoner.vocab_size)
    )
    connection = reasoner.connection if isinstance(reasoner, SlotNetwork) else nn.Identity()
    return ParameterCounts(
        total=_count(reasoner),
        vocabulary=sum(_count(module) for module in of_words),
        connections=_count(connection),
    )


def _is_head(name: str, module: nn.Module, vocab_size: int) -> bool:
    is_last = name.rpartition(".")[2] == "head"
    return is_last and isinstance(module, nn.Linear) and module.out_features == vocab_size


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
