"""Baselines by their settings, with first weights that follow a seed."""

import torch

from fluoroscope.core.seeding import derive_seed
from fluoroscope.studies.connection.baselines.baseline_config import (
    BaselineConfig,
    LoopedConfig,
    PerceiverConfig,
    TransformerConfig,
)
from fluoroscope.studies.connection.baselines.decoded import DecodedReasoner
from fluoroscope.studies.connection.baselines.looped import LoopedTransformer
from fluoroscope.studies.connection.baselines.perceiver import Perceiver
from fluoroscope.studies.connection.baselines.transformer import Transformer


def new_baseline(config: BaselineConfig, seed: int) -> DecodedReasoner:
    """A baseline on the CPU, the same for the same seed; torch's generators stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "connection", "baseline"))
        return unseeded_baseline(config)


def unseeded_baseline(config: BaselineConfig) -> DecodedReasoner:
    """Drawn from torch's generator."""
    match config:
        case TransformerConfig():
            return Transformer(config)
        case PerceiverConfig():
            return Perceiver(config)
        case LoopedConfig():
            return LoopedTransformer(config)
