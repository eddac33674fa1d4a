"""Which latents may be clamped (`select/`), by every rule and at every hook point.

select/latents.parquet   a row a latent of a choice, with all that is known of it: `selection`,
                         `threshold`, `rank` at its hook point; `draw` is 0 of what was selected,
                         and else that of a random latent that is as frequent as `control_of`

The first n ranks are the choice of n latents, and their controls.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep, Shard, ShardContext
from fluoroscope.studies.unlearning.plans import UnlearningConfig
from fluoroscope.studies.unlearning.selection import by_frequency, by_importance, random_matched
from fluoroscope.studies.unlearning.steps.statistics import LATENTS, STATISTICS

SELECT = "select"


class SelectStep(MapStep):
    name = SELECT
    inputs = (STATISTICS,)

    def __init__(self, config: UnlearningConfig) -> None:
        self.config = config

    def shards(self, run: Run) -> Sequence[Shard]:
        return [
            Shard(f"{selection}-{place}", {"selection": selection, "threshold": threshold})
            for selection in self.config.select.by
            for place, threshold in enumerate(self.config.thresholds(selection))
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        selection, threshold = shard.params["selection"], shard.params["threshold"]
        table = pl.read_parquet(run.step_folder(STATISTICS) / LATENTS)
        at = sorted({point for points in self.config.clamped_at for point in points})
        table = table.filter(pl.col("hook_point").is_in(at))
        rule = by_frequency if selection == "frequency" else by_importance
        try:
            chosen = rule(table, max(self.config.select.n), threshold)
        except ConfigError as error:
            setting = "max_retain" if selection == "frequency" else "percentile"
            raise ConfigError(
                f"{error} (select.{setting}, select.hook_points; or leave {selection} out of "
                "select.by.)"
            ) from None
        parts = [chosen.with_columns(draw=pl.lit(0))]
        for draw in range(1, self.config.evaluate.draws + 1):
            controls = random_matched(table, chosen, 1000 * self.config.seed + draw)
            ranks = chosen.select("hook_point", control_of="latent", rank="rank")
            ranked = controls.join(
                ranks, on=["hook_point", "control_of"], how="left", maintain_order="left"
            )
            parts.append(ranked.with_columns(draw=pl.lit(draw)))
        found = pl.concat(parts, how="diagonal_relaxed").with_columns(
            selection=pl.lit(selection), threshold=pl.lit(float(threshold))
        )
        write_parquet(context.folder / LATENTS, found)

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        parts = [pl.read_parquet(folder / "shards" / one.key / LATENTS) for one in self.shards(run)]
        write_parquet(folder / LATENTS, pl.concat(parts, how="diagonal_relaxed"))


def load_choices(run: Run) -> pl.DataFrame:
    return run.cached((SELECT, LATENTS), lambda: pl.read_parquet(run.step_folder(SELECT) / LATENTS))


def chosen_rows(
    choices: pl.DataFrame,
    settings: Mapping[str, Any],  # Any: JSON values.
    draw: int = 0,
) -> pl.DataFrame:
    """Rows of what `settings` name: selection, threshold, hook points and n."""
    return choices.filter(
        (pl.col("selection") == settings["selection"])
        & (pl.col("threshold") == settings["threshold"])
        & pl.col("hook_point").is_in(settings["hook_points"])
        & (pl.col("rank") <= settings["n"])
        & (pl.col("draw") == draw)
    ).sort("hook_point", "rank")


def chosen_latents(
    choices: pl.DataFrame,
    settings: Mapping[str, Any],  # Any: JSON values.
    draw: int = 0,
) -> dict[HookPoint, tuple[int, ...]]:
    rows = chosen_rows(choices, settings, draw)
    found: dict[HookPoint, tuple[int, ...]] = {}
    for point, latent in rows.select("hook_point", "latent").iter_rows():
        found[HookPoint(point)] = (*found.get(HookPoint(point), ()), latent)
    return found
