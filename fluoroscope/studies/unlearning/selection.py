"""Which latents are clamped, by what is known of them on texts to forget and on texts to keep.

`by_frequency` is the recipe of SAEBench after Farrell et al. (arXiv:2410.19278): latents that are
active in a share of at least tau of the tokens to keep are left out, and of the others those are
taken that are active most often in texts to forget. `by_importance` is that of DSG
(arXiv:2504.08192): of the latents whose ratio of mean squares is high, those with the largest mean
square on texts to forget. `random_matched` draws controls that are as frequent.
"""

from collections.abc import Mapping

import numpy as np
import polars as pl

from fluoroscope.core.errors import ConfigError, MismatchError
from fluoroscope.core.seeding import stream
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.studies.unlearning.statistics import LatentCounts

N_NEAREST = 10
"""Latents among which a random control is drawn."""

Counts = Mapping[HookPoint, LatentCounts]


def latent_table(forget: Counts, retain: Counts) -> pl.DataFrame:
    """A row for each latent of each hook point.

    `forget_frequency` and `retain_frequency` of tokens, `frequency` of both together;
    `forget_texts` and `retain_texts`, the shares of texts; `forget_square` and `retain_square`,
    E[a^2]; `importance`, their ratio: null of a latent that is active on neither side, infinite of
    one that is active on texts to forget alone.
    """
    if set(forget) != set(retain):
        raise MismatchError(
            "Texts to forget and to keep must be read at the same hook points, got "
            f"{sorted(map(str, forget))} and {sorted(map(str, retain))}."
        )
    return pl.concat([_of_point(point, forget[point], retain[point]) for point in sorted(forget)])


def by_frequency(table: pl.DataFrame, n: int, max_retain: float) -> pl.DataFrame:
    """At each hook point the `n` latents most frequent in texts to forget, of those that are
    active in less than `max_retain` (tau) of the tokens to keep; none that is never active.
    """
    _check_n(n)
    if not 0 < max_retain <= 1:
        raise ConfigError(f"max_retain is a share above 0 and at most 1, got {max_retain}.")
    kept = table.filter(
        (pl.col("retain_frequency") < max_retain) & (pl.col("forget_frequency") > 0)
    )
    return _best(kept, "forget_frequency", n, f"max_retain={max_retain:g}")


def by_importance(table: pl.DataFrame, n: int, percentile: float) -> pl.DataFrame:
    """At each hook point the `n` latents with the largest mean square on texts to forget, of
    those whose importance is at or above this percentile of the hook point's active latents.
    """
    _check_n(n)
    if not 0 <= percentile <= 100:
        raise ConfigError(f"A percentile is from 0 to 100, got {percentile}.")
    parts = []
    for layer in table.filter(pl.col("importance").is_not_null()).partition_by(
        "hook_point", maintain_order=True
    ):
        ratio = layer["importance"].to_numpy()
        # Ranks, as a mean of infinite ratios is none.
        floor = np.percentile(ratio, percentile, method="higher")
        parts.append(layer.filter((pl.col("importance") >= floor) & (pl.col("forget_square") > 0)))
    kept = pl.concat(parts) if parts else table.clear()
    return _best(kept, "forget_square", n, f"percentile={percentile:g}")


def random_matched(table: pl.DataFrame, chosen: pl.DataFrame, seed: int) -> pl.DataFrame:
    """For each chosen latent another of its hook point that is active about as often on both sides
    together: drawn from the `N_NEAREST` nearest in log frequency, none twice and none chosen.
    """
    parts = []
    for picked in chosen.partition_by("hook_point", maintain_order=True):
        point = picked["hook_point"][0]
        layer = table.filter((pl.col("hook_point") == point) & (pl.col("frequency") > 0))
        is_free = ~layer["latent"].is_in(picked["latent"].to_list()).to_numpy()
        place = np.log(layer["frequency"].to_numpy())
        for latent, frequency in picked.select("latent", "frequency").iter_rows():
            away = np.where(is_free, np.abs(place - np.log(frequency)), np.inf)
            near = np.argsort(away, kind="stable")[:N_NEAREST]
            near = near[np.isfinite(away[near])]
            if not len(near):
                raise ConfigError(
                    f"{point} has {len(layer)} latents that are ever active, too few for controls "
                    f"beside {len(picked)} that are chosen. Choose fewer."
                )
            drawn = int(stream(seed, "random latent", point, latent).choice(near))
            is_free[drawn] = False
            parts.append(layer[[drawn]].with_columns(control_of=pl.lit(latent)))
    if not parts:
        raise ConfigError("No latent is chosen, so there is nothing to control for.")
    return pl.concat(parts)


def latents_by_point(chosen: pl.DataFrame) -> dict[HookPoint, tuple[int, ...]]:
    """What clamps and detectors are given."""
    return {
        HookPoint(part["hook_point"][0]): tuple(part["latent"].to_list())
        for part in chosen.partition_by("hook_point", maintain_order=True)
    }


def _best(kept: pl.DataFrame, by: str, n: int, rule: str) -> pl.DataFrame:
    if kept.is_empty():
        raise ConfigError(
            f"No latent is active on texts to forget and passes {rule}. Loosen it, or take more "
            "texts or other layers."
        )
    # Ties by number, so that the same table gives the same choice.
    ordered = kept.sort(["hook_point", by, "latent"], descending=[False, True, False])
    ranked = ordered.with_columns(rank=pl.int_range(1, pl.len() + 1).over("hook_point"))
    return ranked.filter(pl.col("rank") <= n)


def _check_n(n: int) -> None:
    if n < 1:
        raise ConfigError(f"At least one latent is clamped, got n={n}.")


def _of_point(point: HookPoint, forget: LatentCounts, retain: LatentCounts) -> pl.DataFrame:
    if forget.d_sae != retain.d_sae:
        raise MismatchError(
            f"At {point} there are {forget.d_sae} latents on texts to forget and {retain.d_sae} "
            "on texts to keep: two SAEs. Measure both with one."
        )
    above, below = forget.mean_square, retain.mean_square
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = above / below
    both = (forget.active + retain.active) / (forget.n_tokens + retain.n_tokens)
    return pl.DataFrame(
        {
            "hook_point": [str(point)] * forget.d_sae,
            "latent": np.arange(forget.d_sae),
            "frequency": both,
            "forget_frequency": forget.frequency,
            "retain_frequency": retain.frequency,
            "forget_texts": forget.text_frequency,
            "retain_texts": retain.text_frequency,
            "forget_square": above,
            "retain_square": below,
            "importance": ratio,
        }
    ).with_columns(pl.col("importance").fill_nan(None))
