"""Activations -> sparse latents of every hook point (`latents/`), and which of them differ
between games that went bankrupt and games that were stopped (`contrast/`).

latents/shards/<hook point>/latents.safetensors, provenance.json
contrast/latents.parquet       a row a latent: found on discovery games, replicated on others
contrast/decision.parquet      decisions to stop against decisions to bet
contrast/null.parquet          the largest statistic under shuffled outcomes
contrast/selected.parquet      the latents that are screened
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float
from scipy.sparse import csc_array, csr_array, vstack
from torch import Tensor

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import read_json, write_json, write_parquet
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.features.cluster_robust import is_explained
from fluoroscope.features.contrasts import MIN_CLUSTERS, Rows, contrasts, top_latents
from fluoroscope.features.permutation import family_wise, permutation_null, split_by_cluster
from fluoroscope.features.rows import orthonormal_basis
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import load_model
from fluoroscope.steps.sae_sources import check_recorded, load_choice
from fluoroscope.studies.gambling.config import GamblingConfig
from fluoroscope.studies.gambling.states import BANKRUPT, SAFE, codes, covariates
from fluoroscope.studies.gambling.steps.play import DECISIONS_A_GAME
from fluoroscope.studies.gambling.steps.record import (
    RECORD,
    read_activations,
    read_prompts,
    read_states,
)

LATENTS, CONTRAST = "latents", "contrast"
FOUND, DECISION, NULL, SELECTED = (
    "latents.parquet", "decision.parquet", "null.parquet", "selected.parquet",
)  # fmt: skip
_FILE, _PROVENANCE = "latents.safetensors", "provenance.json"
_ROWS = 512
_ADJUSTED = ("adjusted_d", "adjusted_se", "adjusted_t", "_adjusted", "score_z", "_score")
_ALPHA = 0.05
MIN_GAMES = 10
"""Games of each kind, in each half, below which there is nothing to contrast."""

_EMPTY = {
    "hook_point": pl.String, "latent": pl.Int64, "cohen_d": pl.Float64, "adjusted_d": pl.Float64,
    "mean_in": pl.Float64, "mean_out": pl.Float64, "std_in": pl.Float64, "std_out": pl.Float64,
    "p_welch": pl.Float64, "q_score": pl.Float64, "is_different": pl.Boolean,
}  # fmt: skip


class LatentsStep(MapStep):
    """One shard a hook point."""

    name = LATENTS
    inputs = (RECORD,)

    def __init__(self, config: GamblingConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        saes = self.config.subject.saes
        n_games = self.config.play.repetitions * len(self.config.table.conditions)
        n = n_games * (DECISIONS_A_GAME if self.config.record.decisions == "all" else 1.0)
        widest = max((sae.d_model * sae.d_sae for sae in saes), default=0)
        return Cost(
            flops=2.0 * n * sum(sae.d_model * sae.d_sae for sae in saes),
            overhead_s=0.3 * len(saes),
            memory_bytes=8.0 * widest + 8.0 * n * max((s.d_model for s in saes), default=0) + 0.3e9,
            disk_bytes=8.0 * n * 100 * len(saes),
            parallel=max(1, len(saes)),
            note="about 100 active latents a decision and hook point",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(point) for point in self.config.hook_points]

    @torch.no_grad()
    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        choice = self.config.sae_at(shard.key)
        model = load_model(run, self.config.model, context.device)
        sae = load_choice(choice, device=context.device, model=model.identity)
        rows = read_activations(run, shard.key)
        parts = []
        for start in range(0, len(rows), _ROWS):
            part = sae.encode(rows[start : start + _ROWS].to(sae.W_dec)).cpu().float()
            parts.append(csr_array(part.numpy()))
            context.sink.progress(min(start + _ROWS, len(rows)), len(rows), "prompts")
        stacked = _stacked(parts, sae.d_sae)
        if stacked.nnz and stacked.data.min() < 0:
            raise AssertionError("latents are never negative")
        tensors = {
            "data": torch.from_numpy(stacked.data),
            "indices": torch.from_numpy(stacked.indices.astype(np.int64)),
            "indptr": torch.from_numpy(stacked.indptr.astype(np.int64)),
            "shape": torch.tensor([len(rows), sae.d_sae]),
        }
        write_tensors(context.folder / _FILE, tensors)
        write_json(context.folder / _PROVENANCE, choice.provenance())


class ContrastStep(MapStep):
    """What differs, on half of the games; whether it does so again, on the other half."""

    name = CONTRAST
    inputs = (RECORD, LATENTS)

    def __init__(self, config: GamblingConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        n = sum(sae.d_sae for sae in self.config.subject.saes)
        # A permutation costs about as much as the statistics themselves.
        return Cost(
            overhead_s=2e-5 * n * (3 + self.config.contrast.permutations / 4),
            memory_bytes=2e3 * n + 0.5e9,
            disk_bytes=1.2e3 * n,
            parallel=4,
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        parts = ["discovery", "replication"]
        parts += ["decision"] if self.config.contrast.stop_contrast else []
        return [Shard(part) for part in (*parts, "null")]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        is_decision = shard.key == "decision"
        rows, states = self._rows(run, is_decision=is_decision)
        chosen = states["is_discovery"].to_numpy() ^ (shard.key == "replication")
        file = context.folder / FOUND
        if not _is_enough(states.filter(chosen), rows.group[chosen]):
            write_parquet(file, pl.DataFrame(schema=_EMPTY))
            return
        latents = self._latents(run, states["row"].to_numpy()[chosen])
        if shard.key != "null":
            write_parquet(file, _contrasted(latents, rows.take(chosen)))
        elif self.config.contrast.permutations:
            n, seed = self.config.contrast.permutations, self.config.seed
            write_parquet(file, permutation_null(latents, rows.take(chosen), n, seed))
        else:
            write_parquet(file, pl.DataFrame(schema=_EMPTY))

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        parts = {
            shard.key: pl.read_parquet(folder / "shards" / shard.key / FOUND)
            for shard in self.shards(run)
        }
        found = _with_replication(parts["discovery"], parts["replication"])
        if "largest" in parts["null"].columns and len(found):
            values = family_wise(parts["discovery"], parts["null"])
            found = found.with_columns(pl.Series("p_family", values))
            write_parquet(folder / NULL, parts["null"])
        settings = self.config.contrast
        write_parquet(folder / FOUND, found)
        if "decision" in parts:
            write_parquet(folder / DECISION, parts["decision"])
        # A latent whose means are equal has nothing to be set to.
        usable = found.filter(pl.col("mean_in") != pl.col("mean_out"))
        selected = top_latents(usable, settings.top, settings.by) if len(usable) else usable
        write_parquet(folder / SELECTED, selected)
        if len(found) == 0:
            sink.message(
                f"Fewer than {MIN_GAMES} games of each half went bankrupt, or were stopped: there "
                "is nothing to contrast, and no latent is looked at further."
            )

    def _rows(self, run: Run, *, is_decision: bool) -> tuple[Rows, pl.DataFrame]:
        """The decisions that are compared, with their group."""
        settings = self.config.contrast
        states = discovery_states(run, self.config)
        if is_decision:
            # Within a hand of cards, standing is no stop and hitting no bet.
            known = pl.col("action").is_not_null() & ~pl.col("action").is_in(["hit", "stand"])
            kept = states.filter(known)
            group = kept["action"] == "stop"
        else:
            kept = states.filter(pl.col("ending").is_in([BANKRUPT, SAFE]))
            kept = kept.filter("is_last") if settings.decisions == "last" else kept
            group = kept["ending"] == BANKRUPT
        lengths = np.array([len(prompt) for prompt in read_prompts(run)])
        factors = self.config.table.factors()
        given = covariates(kept, lengths, factors)
        sides = kept.group_by("is_discovery").agg(pl.col("repetition").n_unique())
        if min(sides["repetition"].to_list(), default=0) >= MIN_CLUSTERS:
            return Rows(group.to_numpy(), codes(kept["repetition"]), given), kept
        # Too few repetitions to be the unit: games are, and the report says so.
        rows = Rows(group.to_numpy(), codes(kept["game"]), given, codes(kept["condition"]))
        return rows, kept

    def _latents(self, run: Run, rows: np.ndarray) -> dict[str, csc_array]:
        return {
            point: csc_array(read_latents(run, self.config, point)[rows])
            for point in self.config.hook_points
        }


def discovery_states(run: Run, config: GamblingConfig) -> pl.DataFrame:
    """All decisions, with `is_discovery`: whether their repetition is one that latents are found
    on. No luck is on both sides.
    """

    def split() -> pl.DataFrame:
        states = read_states(run)
        if not len(states):
            return states.with_columns(pl.lit(value=True).alias("is_discovery"))
        # Conditions of a repetition share its luck, so that games of it are no news to each other.
        mask = split_by_cluster(
            codes(states["repetition"]),
            config.contrast.discovery,
            config.seed,
        )
        return states.with_columns(pl.Series("is_discovery", mask))

    return run.cached((CONTRAST, "states"), split)


def read_latents(run: Run, config: GamblingConfig, hook_point: str) -> csr_array:
    """Latents of a hook point at the last token of every prompt: [rows, d_sae]."""
    folder = run.shard_folder(LATENTS, hook_point)
    check_recorded(read_json(folder / _PROVENANCE), config.sae_at(hook_point), str(folder))
    found = read_tensors(folder / _FILE)
    data, indices, indptr = (found[name].numpy() for name in ("data", "indices", "indptr"))
    return csr_array((data, indices, indptr), shape=tuple(found["shape"].tolist()))


def density_of(latents: csr_array, d_sae: int) -> Float[Tensor, " s"]:
    """Share of the prompts in which each latent is active."""
    n = len(latents.indptr) - 1
    columns = latents.indices[latents.data > 0]
    active = np.bincount(columns, minlength=d_sae)
    return torch.from_numpy(active / max(1, n))


def read_selected(run: Run) -> pl.DataFrame:
    return pl.read_parquet(run.step_folder(CONTRAST) / SELECTED)


def _is_enough(states: pl.DataFrame, group: Bool[np.ndarray, " n"]) -> bool:
    games = states["game"]
    return min(games.filter(side).n_unique() for side in (group, ~group)) >= MIN_GAMES


def _contrasted(latents: dict[str, csc_array], rows: Rows) -> pl.DataFrame:
    """`contrasts`, where a latent is only different if the clustered test says so as well: that
    takes nothing for granted about how rows of a repetition go together.

    Where the covariates tell the groups apart entirely, as when all who stop do so in the first
    round, nothing is left to adjust: then no latent is called different.
    """
    if not is_explained(rows.group, orthonormal_basis(rows.covariates)):
        found = contrasts(latents, rows)
        is_clear = (pl.col("q_clustered") < _ALPHA).fill_null(value=False)
        return found.with_columns(pl.col("is_different") & is_clear)
    found = contrasts(latents, replace(rows, covariates=rows.covariates[:, :0]))
    adjusted = [name for name in found.columns if name.endswith(_ADJUSTED)]
    nothing = [pl.lit(math.nan).alias(name) for name in adjusted]
    return found.with_columns(*nothing, pl.lit(value=False).alias("is_different"))


def _with_replication(found: pl.DataFrame, again: pl.DataFrame) -> pl.DataFrame:
    """Whether what is different is so, with the same sign, in games that it was not found on."""
    if not len(found) or not len(again):
        return found.with_columns(
            pl.lit(None, pl.Float64).alias("replicated_d"),
            pl.lit(None, pl.Boolean).alias("replicates"),
        )
    other = again.select(
        "hook_point",
        "latent",
        pl.col("cohen_d").alias("replicated_d"),
        again_p=pl.max_horizontal(pl.col("p_score", "p_clustered").fill_nan(1)),
    )
    joined = found.join(other, on=["hook_point", "latent"], how="left", maintain_order="left")
    same = (pl.col("cohen_d") * pl.col("replicated_d") > 0) & (pl.col("again_p") < _ALPHA)
    return joined.with_columns((pl.col("is_different") & same).alias("replicates")).drop("again_p")


def _stacked(parts: list[csr_array], d_sae: int) -> csr_array:
    if not parts:
        return csr_array((0, d_sae), dtype=np.float32)
    return csr_array(vstack(parts))
