"""How many steps a training has, and how long its rows are; no torch."""

import math

from fluoroscope.core.errors import ConfigError, CorpusError
from fluoroscope.studies.plugin.training_config import TrainingConfig


def steps_of_epoch(n_examples: int, config: TrainingConfig) -> int:
    """Batches of an epoch; a CorpusError where there is none."""
    size = config.batch_size
    n_steps = n_examples // size if config.drop_last else -(-n_examples // size)
    if n_steps == 0:
        raise CorpusError(
            f"Training needs at least one batch; {n_examples} examples make none of {size}"
            f"{' with drop_last' if config.drop_last else ''}. Give more, or a smaller batch_size."
        )
    return n_steps


def steps_of_training(
    n_examples: int, config: TrainingConfig, epochs: int, share: float = 1.0
) -> int:
    """Steps until `share` of all is done, rounded up."""
    if epochs < 1 or not 0 < share <= 1:
        raise ConfigError(
            f"A training has 1 epoch or more and does a share above 0 and up to 1 of them, got "
            f"epochs={epochs} and share={share:g}."
        )
    # The rounding that 0.1 * 30 brings must not make a step more.
    return math.ceil(share * epochs * steps_of_epoch(n_examples, config) - 1e-9)


def padded_length(config: TrainingConfig) -> int | None:
    """Tokens that every row is padded to, in training and in evaluation; None where a row is as
    long as the longest of its batch.
    """
    return config.max_length if config.padding == "max_length" else None
