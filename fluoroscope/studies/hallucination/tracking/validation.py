"""Trackers against worlds whose tracks are known: which is nearer to the truth, and how sure.

Every tracker sees the same scenes, so that trackers are compared by differences within scenes
and worlds by means over them. All intervals are 95 %, over scenes.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import polars as pl
from jaxtyping import Bool, Float64

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.intervals import Interval, clustered_mean_interval, mean_interval
from fluoroscope.studies.hallucination.tracking.gospa import (
    continuity,
    is_real,
    trajectory_gospa,
)
from fluoroscope.studies.hallucination.tracking.links import Links
from fluoroscope.studies.hallucination.tracking.synthetic import Scene, World, scene
from fluoroscope.studies.hallucination.tracking.tracks import TrackSet

Tracking = Callable[[Scene], TrackSet]

COMPARED = ("gospa", "n_switches")
"""What a tracker is to have less of than another."""

_COUNTS = ("n_missed", "n_false", "n_switches", "n_fragmentations", "mota")
_N_BINS = 10


def on_links(track: Callable[[Links], TrackSet]) -> Tracking:
    """A tracker that looks at nothing but links."""
    return lambda made: track(made.links)


def validate(
    trackers: Mapping[str, Tracking], worlds: Mapping[str, World], seeds: Sequence[int]
) -> pl.DataFrame:
    """One row for each world and tracker: means over scenes, one a seed, with intervals.

    Trackers are given from the best to the worst, as claimed. `less_gospa` and `less_n_switches`
    say how much less of it a tracker has than the one after it (`than`) on the same scenes: the
    claim holds where `_low` is above 0. `overconfidence` is the mean existence of found tracks
    less the share of them that is real; `existence_error` the mean distance of the two in ten
    bins of existence (Naeini et al. 2015).
    """
    return summarised(scene_scores(trackers, worlds, seeds))


def summarised(scenes: pl.DataFrame) -> pl.DataFrame:
    """The table of `validate`, from the rows of `scene_scores`."""
    names = scenes["tracker"].unique(maintain_order=True).to_list()
    after = dict(pairwise(names))
    led = compared(scenes, list(after.items())).drop("n_scenes")
    rows = [
        {"world": world, "tracker": name, "n_scenes": len(part), **_summary(part)}
        for (world, name), part in scenes.group_by("world", "tracker", maintain_order=True)
    ]
    table = pl.DataFrame(rows, infer_schema_length=None)
    return table.join(led, on=["world", "tracker"], how="left", maintain_order="left").with_columns(
        pl.col(led.columns[3:]).fill_null(float("nan"))
    )


def compared(scenes: pl.DataFrame, pairs: Sequence[tuple[str, str]]) -> pl.DataFrame:
    """One row for each world and pair: how much less GOSPA and how many identity switches fewer
    the first (`tracker`) has than the second (`than`), on the same scenes.
    """
    rows = []
    for world in scenes["world"].unique(maintain_order=True):
        for name, other in pairs:
            row = {"world": world, "tracker": name, "than": other}
            for quantity in COMPARED:
                less = paired_difference(scenes, world, other, name, quantity)
                row |= _columns(f"less_{quantity}", less)
            mine = scenes.filter((pl.col("world") == world) & (pl.col("tracker") == name))
            rows.append(row | {"n_scenes": len(mine)})
    schema = {"world": pl.String, "tracker": pl.String, "than": pl.String}
    numbers = [f"less_{quantity}{end}" for quantity in COMPARED for end in ("", "_low", "_high")]
    schema |= dict.fromkeys(numbers, pl.Float64)
    return pl.DataFrame(rows, schema=schema | {"n_scenes": pl.Int64})


def scene_scores(
    trackers: Mapping[str, Tracking], worlds: Mapping[str, World], seeds: Sequence[int]
) -> pl.DataFrame:
    """One row for each world, tracker and scene; `existence` and `is_real` are lists, over the
    tracks that were found.
    """
    if not (trackers and worlds and len(seeds)):
        raise ConfigError(
            "To validate takes at least one tracker, one world and one seed; got "
            f"{len(trackers)}, {len(worlds)} and {len(seeds)}."
        )
    rows = []
    for world_name, world in worlds.items():
        for seed in seeds:
            made = scene(world, seed)
            for name, track in trackers.items():
                found = track(made)
                row = {"world": world_name, "tracker": name, "seed": seed}
                rows.append(row | _score(made.truth, found, made.links))
    lists = {"existence": pl.List(pl.Float64), "is_real": pl.List(pl.Boolean)}
    return pl.DataFrame(rows, schema_overrides=lists, infer_schema_length=None)


def paired_difference(
    scenes: pl.DataFrame, world: str, one: str, other: str, quantity: str = "gospa"
) -> Interval:
    """How much more of a column of `scene_scores` one tracker has than another, on the same
    scenes; without ends where that is the same in all of them.
    """
    values = [
        scenes.filter((pl.col("world") == world) & (pl.col("tracker") == name))
        .sort("seed")[quantity]
        .to_numpy()
        .astype(float)
        for name in (one, other)
    ]
    less = values[0] - values[1]
    # Scenes that are all alike do not tell how much others may differ.
    return mean_interval(less) if np.ptp(less) > 0 else Interval(float(less[0]), np.nan, np.nan)


def calibration_error(existence: Float64[np.ndarray, " t"], is_so: Bool[np.ndarray, " t"]) -> float:
    """Mean distance of existence and the share that is real, in ten bins of existence."""
    if not len(existence):
        return 0.0
    which = np.minimum((existence * _N_BINS).astype(int), _N_BINS - 1)
    surplus = np.bincount(which, existence - is_so, minlength=_N_BINS)
    return float(np.abs(surplus).sum() / len(existence))


def _score(truth: TrackSet, found: TrackSet, links: Links) -> dict[str, object]:
    gospa = trajectory_gospa(truth, found, links.layers)
    counts = continuity(truth, found)
    return {
        "gospa": gospa.distance,
        "missed": gospa.missed,
        "false": gospa.false,
        "switching": gospa.switching,
        **{name: getattr(counts, name) for name in _COUNTS},
        "n_tracks": len(found),
        "existence": found.existence.tolist(),
        "is_real": is_real(truth, found).tolist(),
    }


def _summary(part: pl.DataFrame) -> dict[str, float]:
    """Of the scenes of one tracker in one world."""
    row: dict[str, float] = {}
    for name in ("gospa", *_COUNTS):
        row |= _columns(name, mean_interval(part[name].to_numpy().astype(float)))
    row |= {
        name: float(np.mean(part[name].to_numpy())) for name in ("missed", "false", "switching")
    }
    tracks = part.select("seed", "existence", "is_real").explode("existence", "is_real")
    tracks = tracks.drop_nulls()
    existence = tracks["existence"].to_numpy()
    is_so = tracks["is_real"].to_numpy().astype(bool)
    surplus = _no_interval()
    if len(tracks):
        surplus = clustered_mean_interval(existence - is_so, tracks["seed"].to_numpy())
    row |= _columns("overconfidence", surplus)
    row["existence_error"] = calibration_error(existence, is_so)
    return row


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _no_interval() -> Interval:
    return Interval(np.nan, np.nan, np.nan)
