"""Pareto front: the points of which none other gives as much for less, or more for as much.

Axes: `n` points.
"""

import numpy as np
from jaxtyping import Bool, Float


def pareto_front(
    gain: Float[np.ndarray, " n"], cost: Float[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Which points are on the front; equal points are both, one with a NaN is not.

    From the cheapest on, a point is on the front if it gains more than all that cost less, and
    no less than those that cost as much.
    """
    is_known = ~(np.isnan(gain) | np.isnan(cost))
    is_front = np.zeros(len(gain), bool)
    best_gain, its_cost = -np.inf, np.nan
    for place in np.lexsort((-gain, cost)):
        if not is_known[place]:
            continue
        is_equal = gain[place] == best_gain and cost[place] == its_cost
        if gain[place] > best_gain or is_equal:
            is_front[place] = True
            best_gain, its_cost = gain[place], cost[place]
    return is_front
