"""Among what a policy chooses (`candidates/`): the latents that correlate with the outcome most.

candidates/candidates.parquet   a row a candidate of each set: what is known of it from collection

The set `best` has those with the largest r, at one hook point unless several are asked for: the
one with the largest r of all, since a policy reads where it acts, and there it is plainest what the
reply is going to be. Each has the amount E[x | active] times the sign of its r. Sets `random N`
have as many latents of the same hook points, matched in frequency and norm.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.features.correlation_selection import (
    random_controls,
    ranked,
    with_coefficients,
)
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.collect import COLLECT
from fluoroscope.steps.subject import load_layers, sae_inputs
from fluoroscope.studies.policy.candidates import Candidates
from fluoroscope.studies.policy.config import BEST, PolicyConfig
from fluoroscope.studies.policy.settings import CandidatesSpec

CANDIDATES = "candidates"
CHOSEN = "candidates.parquet"


class CandidatesStep(MapStep):
    name = CANDIDATES

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config
        self.inputs = (*sae_inputs(config), COLLECT)

    def cost(self) -> Cost:
        return Cost(overhead_s=5.0, note="reads a table")

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard("all")]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        settings = self.config.candidates
        table = pl.read_parquet(run.step_folder(COLLECT) / f"latents-{settings.pool}.parquet")
        best = best_candidates(table, settings)
        parts = [best.with_columns(set=pl.lit(BEST), control_of=pl.lit(None, pl.Int64))]
        if settings.draws:
            saes = load_layers(run, self.config, context.device)
            norms = {
                point: saes[point].W_dec.detach().norm(dim=1).cpu().double().numpy()
                for point in best["hook_point"].unique().to_list()
            }
            drawn = random_controls(table, best, norms, self.config.seed, settings.draws)
            names = pl.format("random {}", pl.col("draw") + 1)
            parts.append(with_coefficients(drawn, "active").with_columns(set=names).drop("draw"))
        frame = pl.concat(parts, how="diagonal_relaxed").select("set", pl.exclude("set"))
        write_parquet(context.folder / CHOSEN, frame)

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        frame = pl.read_parquet(folder / "shards" / "all" / CHOSEN)
        write_parquet(folder / CHOSEN, frame)
        best = frame.filter(set=BEST)
        where = ", ".join(best["hook_point"].unique(maintain_order=True))
        sink.message(f"{len(best)} candidates at {where}.")


def best_candidates(table: pl.DataFrame, settings: CandidatesSpec) -> pl.DataFrame:
    """The best `n` of the hook points that are asked for, best first, with `coefficient`."""
    points = settings.hook_points
    if points is not None:
        known = table["hook_point"].unique(maintain_order=True).to_list()
        missing = next((point for point in points if point not in known), None)
        if missing is not None or not points:
            raise ConfigError(
                f"candidates.hook_points has {missing or 'nothing'}; there are SAEs at: "
                f"{', '.join(known)}."
            )
        table = table.filter(pl.col("hook_point").is_in(points))
    order = ranked(table, "r", settings.sign, settings.only_significant)
    if order.is_empty():
        n_tested = int(table["is_tested"].sum())
        n_significant = int((table["is_tested"] & table["is_significant"]).sum())
        raise ConfigError(
            f"No latent can be a candidate: of {len(table)}, {n_tested} are active in enough "
            f"samples to be tested, and {n_significant} of them go along with the outcome beyond "
            f"chance; asked for are those of sign {settings.sign}. Collect more samples, or take "
            "candidates.only_significant=false or candidates.sign=either."
        )
    if points is None:
        order = order.filter(pl.col("hook_point") == order["hook_point"][0])
    return with_coefficients(order.head(settings.n), "active")


def chosen_candidates(run: Run, name: str) -> pl.DataFrame:
    """The rows of one set."""
    return pl.read_parquet(run.step_folder(CANDIDATES) / CHOSEN).filter(set=name)


def load_candidates(run: Run, config: PolicyConfig, name: str, device: str) -> Candidates:
    """One set, to act with."""

    def load() -> Candidates:
        rows = chosen_candidates(run, name)
        saes = {HookPoint(at): sae for at, sae in load_layers(run, config, device).items()}
        chosen = [
            (HookPoint(row["hook_point"]), row["latent"], row["coefficient"])
            for row in rows.iter_rows(named=True)
        ]
        return Candidates.of_latents(saes, chosen, config.candidates.multiples)

    return run.cached((CANDIDATES, name, device), load)
