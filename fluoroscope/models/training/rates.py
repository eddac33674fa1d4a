"""What part of its peak a learning rate is in each step; no torch."""

import math
from typing import Any, Literal, Protocol

Schedule = Literal["constant", "linear", "cosine"]


class _HasGroups(Protocol):
    param_groups: list[dict[str, Any]]  # Any: parameters and numbers, as torch has them.


def rate_share(
    step: int, n_steps: int, schedule: Schedule, warmup_share: float, floor: float = 0.0
) -> float:
    """In step `step`, counted from 0, of all `n_steps`.

    The first step of a warm-up has a part as well, its last the whole; the step after the last
    would have `floor`, which is also a part of the peak.
    """
    n_warm = round(warmup_share * n_steps)
    if step < n_warm:
        return (step + 1) / n_warm
    left = (n_steps - step) / (n_steps - n_warm)
    match schedule:
        case "constant":
            return 1.0
        case "linear":
            return floor + (1 - floor) * left
        case "cosine":
            return floor + (1 - floor) * 0.5 * (1 - math.cos(math.pi * left))


def set_rates(optimiser: _HasGroups, part: float) -> None:
    """Every rate becomes this part of the `peak` of its group."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * part
