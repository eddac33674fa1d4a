"""Numbers of what two SAEs share, each beside its nulls; and ratios of all pairs of many SAEs.

*Shared*: the share of an SAE's live latents whose highest cosine in the other is above the
threshold (the mean of those cosines is `mean_max`). *One to one*: the pairs of the assignment
above it, as a share of the smaller side (the Shared Feature Ratio), and of each side. *Paired*:
decoder and encoder agree. A one-to-one or paired latent has a nearest one that is at least as
near, so the nulls of `shared` bound those of the others. *Own*: the share of latents that have
another one of their own SAE above the threshold; where it is high, SAEs share less than they seem
to.

Intervals (Wilson's; Student's for means) are over latents: how a ratio would move with other
latents like these, of the same two SAEs. They do not cover other seeds, data or sizes; for those,
match several SAEs and look at the spread between pairs.

Axes: n SAEs of one side, m of the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.intervals import Interval, mean_interval, share_interval
from fluoroscope.features.matching import Neighbours
from fluoroscope.features.matching_nulls import (
    approximate_maximum,
    chance_above,
    expected_maximum,
)
from fluoroscope.features.sae_matching import KindMatching, SAEMatching
from fluoroscope.features.top_matches import Directions, top_matches

Row = dict[str, float | int | str | bool]


@dataclass(frozen=True, eq=False)
class LayerRatios:
    """Shared ratios of all pairs of two rows of SAEs, such as all layers of two seeds."""

    a_to_b: Float64[np.ndarray, "n m"]
    """Of live latents of SAE n of a, the share whose nearest in SAE m of b is near enough."""

    b_to_a: Float64[np.ndarray, "n m"]
    """Of live latents of SAE m of b, the share with one near enough in SAE n of a."""

    same_index: Float64[np.ndarray, "n m"]
    """Of what SAE n of a shares with SAE m of b, the share whose nearest has its own index; NaN
    where none is shared, or one has more latents than the other. SAEs that start from one seed
    begin with the same random rows, and where this is high, what they share may be left of that."""

    chance: float
    """The largest share that random directions, as many and as wide, would have."""


def matching_ratios(found: SAEMatching) -> dict[str, Interval]:
    """Every share and mean of `found`, with its interval, by its name in `matching_row`."""
    ratios: dict[str, Interval] = {}
    for name, kind in (("decoder", found.decoder), ("encoder", found.encoder)):
        of_kind = _of_kind(kind, found)
        ratios |= {f"{name}_{key}": value for key, value in of_kind.items()}
    ratios["paired_a_to_b"] = share_interval(found.paired_of_a[found.live_a])
    ratios["paired_b_to_a"] = share_interval(found.paired_of_b[found.live_b])
    # There is a pair for every live latent of the smaller side.
    ratios["paired_one_to_one"] = share_interval(found.paired_one_to_one)
    return ratios


def matching_row(found: SAEMatching) -> Row:
    """All numbers, flat: ratios as NAME, NAME_low and NAME_high, their nulls, and the sizes."""
    row: Row = {
        "d_model": found.d_model,
        "threshold": found.config.threshold,
        "latents_a": len(found.live_a),
        "latents_b": len(found.live_b),
        "dead_a": int((~found.live_a).sum()),
        "dead_b": int((~found.live_b).sum()),
    }
    for name, interval in matching_ratios(found).items():
        row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    for name, kind in (("decoder", found.decoder), ("encoder", found.encoder)):
        pairs = kind.one_to_one
        row |= {
            f"{name}_one_to_one_total": pairs.total,
            f"{name}_one_to_one_upper_bound": pairs.upper_bound,
            f"{name}_one_to_one_is_exact": pairs.is_exact,
            f"{name}_one_to_one_candidates": pairs.n_candidates or 0,
        }
    of_a = found.decoder.of_a
    row["decoder_same_index_a_to_b"] = _same_index(of_a, found.live_a, found.config.threshold)
    return row | _chance(found)


def layer_ratios(
    a: Sequence[Directions], b: Sequence[Directions], threshold: float = 0.7
) -> LayerRatios:
    """Shared ratios of every SAE of `a` with every one of `b`; one product for each pair."""
    if not (len(a) and len(b)):
        raise ConfigError(f"Pairs need SAEs on both sides, got {len(a)} and {len(b)}.")
    forth, back, same = (np.empty((len(a), len(b))) for _ in range(3))
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            found = top_matches(one, other, 1)
            forth[i, j] = (found.of_a.cosines[one.latents, 0] > threshold).mean()
            back[i, j] = (found.of_b.cosines[other.latents, 0] > threshold).mean()
            same[i, j] = _same_index(found.of_a, one.latents, threshold)
    most = max(len(one) for one in (*a, *b))
    return LayerRatios(forth, back, same, chance_above(threshold, most, a[0].width))


def _same_index(found: Neighbours, live: np.ndarray, threshold: float) -> float:
    """Of shared latents the share whose nearest is that of the same index."""
    is_shared = found.cosines[live, 0] > threshold
    if len(found.indices) != found.n_targets or not is_shared.any():
        return math.nan
    own = np.arange(found.n_targets)[live]
    return float((found.indices[live, 0] == own)[is_shared].mean())


def _of_kind(kind: KindMatching, found: SAEMatching) -> dict[str, Interval]:
    threshold = found.config.threshold
    of_a, of_b = kind.of_a.cosines[found.live_a, 0], kind.of_b.cosines[found.live_b, 0]
    own_a, own_b = kind.own_a[found.live_a], kind.own_b[found.live_b]
    matched = kind.one_to_one.cosines
    is_shared = matched > threshold
    n_a, n_b = len(of_a), len(of_b)
    return {
        "shared_a_to_b": share_interval(of_a > threshold),
        "shared_b_to_a": share_interval(of_b > threshold),
        "mean_max_a_to_b": _mean(of_a),
        "mean_max_b_to_a": _mean(of_b),
        "one_to_one": share_interval(is_shared),
        "one_to_one_of_a": share_interval(_padded(is_shared, n_a)),
        "one_to_one_of_b": share_interval(_padded(is_shared, n_b)),
        "mean_one_to_one": _mean(matched),
        # A latent alone in its SAE has no other: NaN, and not above.
        "own_a": share_interval(own_a > threshold),
        "own_b": share_interval(own_b > threshold),
        "mean_own_a": _mean(own_a),
        "mean_own_b": _mean(own_b),
        "rotated_a_to_b": share_interval(kind.rotated.of_a > threshold),
        "rotated_b_to_a": share_interval(kind.rotated.of_b > threshold),
        "mean_rotated_a_to_b": _mean(kind.rotated.of_a),
        "mean_rotated_b_to_a": _mean(kind.rotated.of_b),
    }


def _chance(found: SAEMatching) -> Row:
    """Random directions: as drawn, and as the Beta law has it."""
    n_a, n_b, d = int(found.live_a.sum()), int(found.live_b.sum()), found.d_model
    threshold = found.config.threshold
    row: Row = {}
    for way, drawn, m in (("a_to_b", found.random.of_a, n_b), ("b_to_a", found.random.of_b, n_a)):
        row |= {
            f"random_{way}": float((drawn > threshold).mean()),
            f"chance_{way}": chance_above(threshold, m, d),
            f"mean_random_{way}": float(drawn.mean()),
            f"expected_maximum_{way}": expected_maximum(m, d),
            f"approximate_maximum_{way}": approximate_maximum(m, d),
        }
    return row


def _mean(values: np.ndarray) -> Interval:
    return mean_interval(values.astype(np.float64))


def _padded(is_so: np.ndarray, n: int) -> np.ndarray:
    """With latents that have no pair."""
    return np.concatenate([is_so, np.zeros(n - len(is_so), bool)])
