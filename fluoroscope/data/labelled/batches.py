"""Which rows are read together: epochs that are shuffled, and whole sides.

An epoch is a function of the seed and its number, never of what was drawn before: a training
that goes on in the middle of epoch 3 needs nothing but the number 3. Bucketed, an epoch's random
order is cut into pools, and batches are of neighbours in length within a pool, so that little is
padded while any two rows may still meet.
"""

import numpy as np
from jaxtyping import Int

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream

POOL_BATCHES = 64
"""Batches whose rows are sorted by length together."""


def epoch_batches(
    lengths: Int[np.ndarray, " n"],
    batch_size: int,
    seed: int,
    epoch: int,
    *,
    drop_last: bool,
    bucketed: bool,
) -> list[np.ndarray]:
    """Rows of each batch: every row once, but for a random remainder smaller than a batch, which
    is left out with `drop_last` and is the last batch otherwise.
    """
    n = len(lengths)
    _check_batch_size(batch_size)
    if drop_last and n < batch_size:
        raise ConfigError(
            f"drop_last leaves nothing: there are {n} rows, fewer than batch_size={batch_size}. "
            "Set drop_last=false or a smaller batch_size."
        )
    luck = stream(seed, "batches", epoch)
    order = luck.permutation(n)
    # The remainder is taken before sorting, or it would always be of the longest texts.
    whole, rest = np.split(order, [n - n % batch_size])
    if bucketed:
        size = POOL_BATCHES * batch_size
        pools = [whole[start : start + size] for start in range(0, len(whole), size)]
        pools = [pool[np.argsort(lengths[pool], kind="stable")] for pool in pools]
        batches = [batch for pool in pools for batch in pool.reshape(-1, batch_size)]
        batches = [batches[place] for place in luck.permutation(len(batches))]
    else:
        batches = list(whole.reshape(-1, batch_size))
    return batches if drop_last or not len(rest) else [*batches, rest]


def side_batches(lengths: Int[np.ndarray, " n"], batch_size: int) -> list[np.ndarray]:
    """Every row once, from the shortest to the longest: for evaluation, where order is free."""
    _check_batch_size(batch_size)
    order = np.argsort(lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}.")
