"""Which latents go together across layers, and which move which: two lists that are never one.

A *correlation* says that two latents rise and fall together over decisions, one of each game; the
text before may do both. An *edge* says that setting the one moved the other, in the same state.
Only edges are causal, and only those that also exceed what as much change along random latents
does to the same target.

Axes: `n` decisions, `m` latents (of all layers, in the order of the layers), `s` states,
`c` controls.
"""

import math
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from scipy.stats import norm
from scipy.stats import t as student

from fluoroscope.features.multiple_tests import benjamini_hochberg
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.studies.gambling.causal import mean_test
from fluoroscope.studies.gambling.pathway import CHOSEN, exchanged

ALPHA = 0.05
MIN_R = 0.4
"""Correlations below it are not kept, as the seed did."""

CORRELATIONS = pl.Schema({
    "earlier_hook_point": pl.String, "earlier_latent": pl.Int64,
    "later_hook_point": pl.String, "later_latent": pl.Int64, "decisions": pl.Int64,
    "r": pl.Float64, "r_low": pl.Float64, "r_high": pl.Float64, "p": pl.Float64, "q": pl.Float64,
    "shuffled_r_95": pl.Float64, "is_correlated": pl.Boolean,
})  # fmt: skip
SHUFFLED = pl.Schema({
    "shuffle": pl.Int64, "pairs": pl.Int64, "n_correlated": pl.Int64, "n_above": pl.Int64,
    "largest": pl.Float64,
})  # fmt: skip
EDGES = pl.Schema({
    "source_hook_point": pl.String, "source_latent": pl.Int64,
    "target_hook_point": pl.String, "target_latent": pl.Int64, "states": pl.Int64,
    "effect": pl.Float64, "effect_low": pl.Float64, "effect_high": pl.Float64,
    "slope": pl.Float64, "p": pl.Float64, "q": pl.Float64, "control_95": pl.Float64,
    "exceeds_controls": pl.Boolean, "is_causal": pl.Boolean,
})  # fmt: skip
NODES = pl.Schema({
    **CHOSEN, "states": pl.Int64,
    "stop_effect": pl.Float64, "stop_effect_low": pl.Float64, "stop_effect_high": pl.Float64,
    "p": pl.Float64, "q": pl.Float64, "control_95": pl.Float64, "is_causal": pl.Boolean,
})  # fmt: skip
PATHS = pl.Schema({
    "source_hook_point": pl.String, "source_latent": pl.Int64,
    "mid_hook_point": pl.String, "mid_latent": pl.Int64,
    "target_hook_point": pl.String, "target_latent": pl.Int64,
    "to_mid": pl.Float64, "to_target": pl.Float64, "product": pl.Float64, "whole": pl.Float64,
    "to_stop": pl.Float64, "through": pl.Float64, "stop_whole": pl.Float64,
    "moves_decision": pl.Boolean,
})  # fmt: skip

_MARKS = {"to_stop": ("moves_decision",)}


def correlations(
    latents: Float[np.ndarray, "n m"],
    chosen: pl.DataFrame,
    strata: Int[np.ndarray, " n"],
    *,
    shuffles: int,
    seed: int,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pearson's r of every two latents of different hook points, and what shuffling leaves.

    Rows are decisions of as many games. r has Fisher's 95 % interval, p is of Student's t, q over
    all pairs. In a shuffle the rows of every hook point are exchanged within strata, on their own:
    `shuffled_r_95` is the 95th percentile of |r| for the pair. `is_correlated`: q < 0.05,
    |r| > 0.4 and above that percentile. The second frame says of each shuffle how many pairs have
    q < 0.05 and |r| > 0.4 (`n_correlated`), how many the latter alone, and the largest |r|.
    """
    early, late = later_pairs(chosen)
    n = len(latents)
    if len(early) == 0 or n < 4:
        return pl.DataFrame(schema=CORRELATIONS), pl.DataFrame(schema=SHUFFLED)
    r = _pearson(latents)[early, late]
    p = _p_of_r(r, n)
    q = benjamini_hochberg(p)
    points = chosen["hook_point"].to_numpy()
    null = np.zeros((shuffles, len(early)))
    rows = []
    for i in range(shuffles):
        null[i] = _pearson(_shuffled(latents, points, strata, seed, i))[early, late]
        above = np.abs(null[i]) > MIN_R
        passes = (benjamini_hochberg(_p_of_r(null[i], n)) < ALPHA) & above
        largest = np.nanmax(np.abs(null[i]), initial=0.0)
        rows.append((i, len(early), int(passes.sum()), int(above.sum()), float(largest)))
    # A latent that is the same in all rows has no r, shuffled or not.
    size = np.nan_to_num(np.abs(null), nan=-1.0)
    limit = np.quantile(size, 0.95, axis=0)
    is_correlated = (q < ALPHA) & (np.abs(r) > MIN_R) & (np.abs(r) > limit)
    reach = norm.ppf(0.975) / math.sqrt(n - 3)
    with np.errstate(divide="ignore"):
        z = np.arctanh(r)
    table = _pairs(chosen, early, late, ("earlier", "later")).with_columns(
        pl.lit(n).alias("decisions"),
        pl.Series("r", r),
        pl.Series("r_low", np.tanh(z - reach)),
        pl.Series("r_high", np.tanh(z + reach)),
        pl.Series("p", p),
        pl.Series("q", q),
        pl.Series("shuffled_r_95", np.where(limit < 0, np.nan, limit)),
        pl.Series("is_correlated", is_correlated),
    )
    return table.cast(CORRELATIONS).fill_nan(None), pl.DataFrame(
        rows, schema=SHUFFLED, orient="row"
    )


class Moved(NamedTuple):
    """What setting each latent to its mean of decisions to stop does, against setting it to its
    mean of decisions to bet, in the same state.
    """

    latents: Float[np.ndarray, "s m m"]
    """State, the latent that is set, the one that is read; of later hook points, else 0."""

    stop: Float[np.ndarray, "s m"]
    """Of the share of stopping among decisions."""

    control_latents: Float[np.ndarray, "m c m"]
    """Means over states of as much change along random latents."""

    control_stop: Float[np.ndarray, "m c"]


def edge_table(chosen: pl.DataFrame, moved: Moved) -> pl.DataFrame:
    """Every latent as a source with every later one as a target.

    `effect` is the mean change of the target, in its standard deviations, with its 95 % interval
    and p over states, q over all edges; `slope` is that for one standard deviation of the source;
    `control_95` is the 95th percentile of what its controls do to the target. An edge is causal if
    q < 0.05 and it is larger than that.
    """
    early, late = later_pairs(chosen)
    if len(early) == 0 or len(moved.latents) == 0:
        return pl.DataFrame(schema=EDGES)
    sd = chosen["sd"].to_numpy()
    effect, low, high, p = mean_test(moved.latents[:, early, late] / sd[late])
    q = benjamini_hochberg(p)
    limit = _limit(moved.control_latents[early, :, late] / sd[late][:, None])
    exceeds = np.abs(effect) > limit
    swing = (chosen["stop_mean"] - chosen["bet_mean"]).to_numpy() / sd
    return (
        _pairs(chosen, early, late, ("source", "target"))
        .with_columns(
            pl.lit(len(moved.latents)).alias("states"),
            pl.Series("effect", effect),
            pl.Series("effect_low", low),
            pl.Series("effect_high", high),
            pl.Series("slope", effect / swing[early]),
            pl.Series("p", p),
            pl.Series("q", q),
            pl.Series("control_95", limit),
            pl.Series("exceeds_controls", exceeds),
            pl.Series("is_causal", (q < ALPHA) & exceeds),
        )
        .cast(EDGES)
        .fill_nan(None)
    )


def node_table(chosen: pl.DataFrame, moved: Moved, *, is_legible: bool) -> pl.DataFrame:
    """The chosen latents with what each does to the share of stopping, judged as edges are; none
    is causal where the model hardly says stop or bet at all.
    """
    if len(chosen) == 0 or len(moved.stop) == 0:
        return pl.DataFrame(schema=NODES)
    effect, low, high, p = mean_test(moved.stop)
    q, limit = benjamini_hochberg(p), _limit(moved.control_stop)
    is_causal = (q < ALPHA) & (np.abs(effect) > limit) & is_legible
    return (
        chosen.with_columns(
            pl.lit(len(moved.stop)).alias("states"),
            pl.Series("stop_effect", effect),
            pl.Series("stop_effect_low", low),
            pl.Series("stop_effect_high", high),
            pl.Series("p", p),
            pl.Series("q", q),
            pl.Series("control_95", limit),
            pl.Series("is_causal", is_causal),
        )
        .cast(NODES)
        .fill_nan(None)
    )


def path_table(edges: pl.DataFrame, nodes: pl.DataFrame, n: int = 20) -> pl.DataFrame:
    """The `n` strongest chains of two causal edges: source -> mid -> target -> decision.

    `to_mid` and `to_target` are slopes and `product` is theirs; `to_stop` is the change of the
    share of stopping for one standard deviation of the target, and `through` the product of all
    three. `whole` and `stop_whole` are what was measured from source to target and from source to
    decision, which all ways between them share: a product near them says that the way by `mid`
    would do, not that no other is taken. Chains whose target moves the decision come first.
    """
    place = ["hook_point", "latent"]
    swing = (pl.col("stop_mean") - pl.col("bet_mean")) / pl.col("sd")
    stops = nodes.select(
        *place, "is_causal", (pl.col("stop_effect") / swing).alias("slope")
    ).rename({"is_causal": "moves_decision"})

    def named(frame: pl.DataFrame, ends: dict[str, str], slope: str) -> pl.DataFrame:
        names = {f"{a}{part}": f"{b}_{part}" for a, b in ends.items() for part in place}
        return frame.select(*names, *_MARKS.get(slope, ()), "slope").rename(
            {**names, "slope": slope}
        )

    causal = edges.filter("is_causal")
    joined = named(causal, {"source_": "source", "target_": "mid"}, "to_mid")
    for frame, ends, slope in (
        (causal, {"source_": "mid", "target_": "target"}, "to_target"),
        (edges, {"source_": "source", "target_": "target"}, "whole"),
        (stops, {"": "target"}, "to_stop"),
        (stops, {"": "source"}, "stop_whole"),
    ):
        other = named(frame, ends, slope)
        on = [name for name in other.columns if name in joined.columns]
        joined = joined.join(other, on=on, how="inner", maintain_order="left_right")
    product = pl.col("to_mid") * pl.col("to_target")
    chains = joined.with_columns(
        product.alias("product"), (product * pl.col("to_stop")).alias("through")
    ).select(list(PATHS))
    order = ["moves_decision", pl.col("through").abs(), *list(PATHS)[:6]]
    return chains.sort(order, descending=[True, True, *[False] * 6]).head(n).cast(PATHS)


def later_pairs(
    chosen: pl.DataFrame,
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Rows of `chosen`: an earlier latent, and one that is computed behind it."""
    points = [HookPoint(name) for name in chosen["hook_point"]]
    is_later = np.array([[a < b for b in points] for a in points], bool).reshape(
        len(points), len(points)
    )
    early, late = np.nonzero(is_later)
    return early, late


def _pairs(
    chosen: pl.DataFrame,
    early: Int[np.ndarray, " pairs"],
    late: Int[np.ndarray, " pairs"],
    names: tuple[str, str],
) -> pl.DataFrame:
    parts = [
        chosen[rows].select(
            pl.col("hook_point").alias(f"{name}_hook_point"),
            pl.col("latent").alias(f"{name}_latent"),
        )
        for name, rows in zip(names, (early, late), strict=True)
    ]
    return pl.concat(parts, how="horizontal")


def _pearson(latents: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "m m"]:
    centred = latents - latents.mean(axis=0)
    size = np.linalg.norm(centred, axis=0)
    # What is left of a constant is rounding.
    size[size <= 1e-9 * np.abs(latents).max(axis=0, initial=0)] = np.nan
    unit = centred / size
    return np.clip(unit.T @ unit, -1, 1)


def _p_of_r(r: Float[np.ndarray, " pairs"], n: int) -> Float[np.ndarray, " pairs"]:
    with np.errstate(divide="ignore"):
        t = r * np.sqrt((n - 2) / (1 - r**2))
    return 2 * student.sf(np.abs(t), n - 2)


def _shuffled(
    latents: Float[np.ndarray, "n m"],
    points: np.ndarray,
    strata: Int[np.ndarray, " n"],
    seed: int,
    shuffle: int,
) -> Float[np.ndarray, "n m"]:
    found = latents.copy()
    for point in dict.fromkeys(points):
        columns: Bool[np.ndarray, " m"] = points == point
        order = exchanged(strata, seed, "rows", shuffle, str(point))
        found[:, columns] = latents[order][:, columns]
    return found


def _limit(controls: Float[np.ndarray, "k c"]) -> Float[np.ndarray, " k"]:
    """The 95th percentile of the controls' sizes; infinite where there is none."""
    if controls.shape[1] == 0:
        return np.full(len(controls), math.inf)
    return np.quantile(np.abs(controls), 0.95, axis=1)
