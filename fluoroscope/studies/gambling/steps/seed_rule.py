"""What the original's rule makes of the selected latents (`seed_rule/`).

seed_rule/latents.parquet    hook_point, latent, seed_safe, seed_risky
seed_rule/summary.parquet    how many pass, and how many would by chance
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.interventions.positions import Positions
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.sampling import Sampling
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.steps.sae_sources import load_saes
from fluoroscope.studies.gambling.config import GamblingConfig
from fluoroscope.studies.gambling.decision_screen import (
    DecisionScreen,
    Edits,
    set_to,
    stop_share,
)
from fluoroscope.studies.gambling.seed_rule import (
    HIGH_BET,
    Chances,
    passed_by_chance,
    seed_states,
    verdicts_of,
)
from fluoroscope.studies.gambling.situations import situation
from fluoroscope.studies.gambling.steps.latents import CONTRAST, read_selected
from fluoroscope.studies.gambling.steps.play import model_player

SEED_RULE = "seed_rule"
LATENTS_FILE, SUMMARY = "latents.parquet", "summary.parquet"


class SeedRuleStep(MapStep):
    """One shard: two prompts."""

    name = SEED_RULE
    inputs = (CONTRAST,)

    def __init__(self, config: GamblingConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        n = sum(min(self.config.contrast.top, sae.d_sae) for sae in self.config.subject.saes)
        shape = self.config.shape
        flops = 12.0 * n * shape.forward_flops_per_token(self.config.table.prompt_tokens)
        saes = sum(8.0 * sae.d_model * sae.d_sae for sae in self.config.subject.saes)
        weights = float(shape.weight_bytes(self.config.model.dtype))
        is_half = self.config.model.dtype != "float32"
        return Cost(
            flops=0.0 if is_half else flops,
            half_flops=flops if is_half else 0.0,
            overhead_s=1 + 5e-4 * n,
            memory_bytes=weights + saes + 0.5e9,
            disk_bytes=1e2 * n,
            note="two prompts, the original's 50 trials drawn",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        has_prompts = seed_states(self.config.table.games()) is not None
        return [Shard("all")] if has_prompts and len(read_selected(run)) else []

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        selected = read_selected(run)
        player = model_player(run, self.config, context.device)
        choices = self.config.subject.saes
        saes = load_saes(choices, device=context.device, model=player.model.identity)
        states = seed_states(self.config.table.games())
        assert states is not None, "without the two prompts there is no shard"
        sampling = Sampling(**self.config.play.sampling.model_dump())
        positions = Positions.parse(self.config.patch.positions)
        screens = {
            name: DecisionScreen(player.model, situation(game, state, player), sampling, positions)
            for name, (game, state) in states.items()
        }
        order = [point for point in saes if len(selected.filter(pl.col("hook_point") == point))]
        stop = _chances(screens["safe"], saes, selected, order, is_stop=True)
        high = _chances(screens["risky"], saes, selected, order, is_stop=False)
        seed = self.config.seed
        found = pl.concat([selected.filter(pl.col("hook_point") == p) for p in order])
        found = found.select("hook_point", "latent")
        verdicts = verdicts_of(stop, high, seed)
        null = passed_by_chance(stop, high, seed)
        either = verdicts["seed_safe"] | verdicts["seed_risky"]
        write_parquet(context.folder / LATENTS_FILE, pl.concat([found, verdicts], how="horizontal"))
        summary = pl.DataFrame(
            {
                "latents": [len(found)],
                "called safe": [int(verdicts["seed_safe"].sum())],
                "called risky": [int(verdicts["seed_risky"].sum())],
                "called either": [int(either.sum())],
                "share": [float(either.to_numpy().mean())],
                "share by chance": [float(null.mean())],
                "by chance, 2.5 %": [float(np.quantile(null, 0.025))],
                "by chance, 97.5 %": [float(np.quantile(null, 0.975))],
            }
        )
        write_parquet(context.folder / SUMMARY, summary)

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        for shard in self.shards(run):
            for name in (LATENTS_FILE, SUMMARY):
                frame = pl.read_parquet(folder / "shards" / shard.key / name)
                write_parquet(folder / name, frame)


def _chances(
    screen: DecisionScreen,
    saes: dict[str, SparseAutoencoder],
    selected: pl.DataFrame,
    order: Sequence[str],
    *,
    is_stop: bool,
) -> Chances:
    parts: list[np.ndarray] = []
    for name in order:
        mine, sae = selected.filter(pl.col("hook_point") == name), saes[name]
        latents = torch.tensor(mine["latent"].to_list() * 2, device=sae.W_dec.device)
        means = mine["mean_out"].to_list() + mine["mean_in"].to_list()
        values = torch.tensor(means, device=sae.W_dec.device)
        edits = set_to(sae, HookPoint(name), latents, values)
        parts.append(_chance(screen, edits, is_stop=is_stop).reshape(2, len(mine)))
    both = np.concatenate(parts, axis=1)
    baseline = float(_chance(screen, [{}], is_stop=is_stop)[0])
    return Chances(baseline, both[0], both[1])


def _chance(screen: DecisionScreen, edits: Edits, *, is_stop: bool) -> np.ndarray:
    """Of stopping, or of a bet above the limit, among decisions."""
    share = stop_share(screen.decisions(edits))
    if is_stop:
        return share.cpu().numpy()
    return ((1 - share) * screen.bets_above(edits, HIGH_BET)).cpu().numpy()


def read_seed_verdicts(run: Run) -> pl.DataFrame:
    """Empty where the rule has nothing to say."""
    file = run.step_folder(SEED_RULE) / LATENTS_FILE
    return pl.read_parquet(file) if file.exists() else pl.DataFrame()


def read_summary(run: Run) -> pl.DataFrame:
    file = run.step_folder(SEED_RULE) / SUMMARY
    return pl.read_parquet(file) if file.exists() else pl.DataFrame()
