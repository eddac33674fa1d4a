"""The optimiser of a training: what was pretrained and what is new learn at rates of their own."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import SGD, Adadelta, Adam, AdamW, Optimizer

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.plugin.training_config import OptimiserConfig

_MOMENTUM = 0.9
"""Of `sgd`, as in the authors' code."""


def new_optimiser(
    parameters: Mapping[Any, Sequence[tuple[str, nn.Parameter]]], config: OptimiserConfig
) -> Optimizer:
    """Over `encoder` and `new`; matrices decay, biases and norms do not.

    Each group has its `peak`, which `set_rates` takes a part of.
    """
    new_rate = config.new_learning_rate or config.learning_rate
    groups: list[dict[str, Any]] = []  # Any: parameters and numbers, as torch has them.
    for kind, rate in (("encoder", config.learning_rate), ("new", new_rate)):
        learning = [p for _, p in parameters.get(kind, ()) if p.requires_grad]
        for some, decay in (
            ([p for p in learning if p.ndim > 1], config.weight_decay),
            ([p for p in learning if p.ndim <= 1], 0.0),
        ):
            if some:
                groups.append({"params": some, "weight_decay": decay, "lr": rate, "peak": rate})
    if not groups:
        raise ConfigError("Nothing of this classifier learns; leave it something to train.")
    match config.name:
        case "adam":
            return Adam(groups)
        case "adamw":
            return AdamW(groups)
        case "sgd":
            return SGD(groups, momentum=_MOMENTUM)
        case "adadelta":
            return Adadelta(groups)
