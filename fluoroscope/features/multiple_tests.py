"""Many tests at once: the false discovery rate (Benjamini and Hochberg 1995)."""

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control


def benjamini_hochberg(p: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The q of each p. A NaN is no test: it stays NaN and does not count."""
    q = np.full(len(p), np.nan)
    is_tested = ~np.isnan(p)
    if is_tested.any():
        q[is_tested] = false_discovery_control(p[is_tested])
    return q


def count_discoveries(small: Float[np.ndarray, " n"], n_tests: int, alpha: float) -> int:
    """How many q of `n_tests` are below `alpha`, from the p that are (larger ones cannot count)."""
    ordered = np.sort(small)
    passes = np.flatnonzero(ordered * n_tests < alpha * np.arange(1, len(ordered) + 1))
    return int(passes[-1]) + 1 if len(passes) else 0
