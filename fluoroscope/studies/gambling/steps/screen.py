"""Selected latents -> what setting them does to the decision (`screen/`, `doses/`).

screen/shards/<k>/effects.safetensors    exact probabilities in some states of discovery games
screen/effects.parquet                   a row a latent; screen/states.parquet: a row a state
doses/shards/<k>/effects.safetensors     the shortlist and its controls in held-out states
doses/causal.parquet                     the verdicts;  doses/controls.parquet: of the controls
doses/curves.parquet                     mean effect by dose;  doses/amounts.parquet: bets
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.interventions.positions import Positions
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.shape import BYTES
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.steps.sae_sources import load_saes
from fluoroscope.studies.gambling.causal import (
    N_DOSES,
    Doses,
    Screened,
    control_verdicts,
    mean_test,
    screened_table,
    verdicts,
)
from fluoroscope.studies.gambling.config import GamblingConfig
from fluoroscope.studies.gambling.decision_screen import (
    DecisionScreen,
    Edits,
    along_others,
    control_directions,
    reconstruction,
    set_to,
    stop_share,
)
from fluoroscope.studies.gambling.situations import situations
from fluoroscope.studies.gambling.states import one_decision_a_game
from fluoroscope.studies.gambling.steps.latents import (
    CONTRAST,
    LATENTS,
    density_of,
    discovery_states,
    read_latents,
    read_selected,
)
from fluoroscope.studies.gambling.steps.play import PLAY, model_player, read_attempts
from fluoroscope.studies.gambling.steps.record import RECORD
from fluoroscope.studies.gambling.steps.seed_rule import SEED_RULE, read_seed_verdicts

SCREEN, DOSES = "screen", "doses"
EFFECTS, SCREENED, STATES = "effects.safetensors", "effects.parquet", "states.parquet"
CAUSAL, CONTROLS, CURVES, AMOUNTS = (
    "causal.parquet", "controls.parquet", "curves.parquet", "amounts.parquet",
)  # fmt: skip


_MEASURED = ("latents", "random_latents", "random_directions")


class _ScreeningStep(MapStep):
    """Shards of some game states each."""

    is_discovery: bool

    def __init__(self, config: GamblingConfig) -> None:
        self.config = config

    @property
    def n_states(self) -> int:
        patch = self.config.patch
        return patch.states if self.is_discovery else patch.held_out_states

    def shards(self, run: Run) -> Sequence[Shard]:
        n, size = len(self.states(run)), self.config.patch.states_per_shard
        return [
            Shard(f"{start:05d}", {"from": start, "to": min(start + size, n)})
            for start in range(0, n, size)
        ]

    def states(self, run: Run) -> pl.DataFrame:
        """The decisions that are screened, each of a game of its own."""
        side = "discovery" if self.is_discovery else "held out"

        def choose() -> pl.DataFrame:
            if not len(self.latents(run)):
                return discovery_states(run, self.config).head(0)
            states = discovery_states(run, self.config).filter(
                pl.col("is_discovery") == self.is_discovery
            )
            return one_decision_a_game(states, self.n_states, self.config.seed, side)

        return run.cached((self.name, "states"), choose)

    def latents(self, run: Run) -> pl.DataFrame:
        return read_selected(run)

    def saes(self, run: Run, device: str) -> dict[str, SparseAutoencoder]:
        model = model_player(run, self.config, device).model
        choices = self.config.subject.saes
        return run.cached(
            (SCREEN, "saes", device),
            lambda: load_saes(choices, device=device, model=model.identity),
        )

    def screens(self, run: Run, shard: Shard, context: ShardContext) -> Sequence[DecisionScreen]:
        player = model_player(run, self.config, context.device)
        chosen = self.states(run)[shard.params["from"] : shard.params["to"]]
        sampling = Sampling(**self.config.play.sampling.model_dump())
        found = situations(self.config, read_attempts(run), chosen, player)
        positions = Positions.parse(self.config.patch.positions)
        return [DecisionScreen(player.model, one, sampling, positions) for one in found]

    def screening_cost(self, edits: float, note: str) -> Cost:
        shape, model = self.config.shape, self.config.model
        behind = np.mean([shape.n_layers - HookPoint(p).layer - 1 for p in self.config.hook_points])
        share = float(behind) / shape.n_layers
        per_token = shape.forward_flops_per_token(self.config.table.prompt_tokens)
        head = 2.0 * shape.vocab_size * shape.d_model
        reads = self.n_states * self.config.table.prompt_tokens * per_token
        flops = self.n_states * edits * (share * per_token + head) + reads
        weights = float(shape.n_params * BYTES[model.dtype])
        saes = sum(8.0 * sae.d_model * sae.d_sae for sae in self.config.subject.saes)
        n_shards = max(1, self.n_states // self.config.patch.states_per_shard)
        is_half = model.dtype != "float32"
        return Cost(
            flops=0.0 if is_half else flops,
            half_flops=flops if is_half else 0.0,
            bytes_moved=weights * self.n_states * (1 + edits / 1024),
            overhead_s=self.n_states * (2e-2 + 3e-5 * edits),
            memory_bytes=weights + saes + 1024 * 30.0 * shape.vocab_size + 0.5e9,
            disk_bytes=self.n_states * edits * 16.0 + 1e6,
            parallel=n_shards,
            note=note,
        )


class ScreenStep(_ScreeningStep):
    """All selected latents, set to both population means, in states of discovery games."""

    name = SCREEN
    inputs = (PLAY, RECORD, CONTRAST)
    is_discovery = True

    def cost(self) -> Cost:
        n = sum(min(self.config.contrast.top, sae.d_sae) for sae in self.config.subject.saes)
        return self.screening_cost(2.0 * n, f"{n:,} latents, exact")

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        saes, selected = self.saes(run, context.device), self.latents(run)
        rows = []
        for number, screen in enumerate(self.screens(run, shard, context)):
            rows.append(_screened(screen, saes, selected))
            context.sink.progress(number + 1, shard.params["to"] - shard.params["from"], "states")
        tensors = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        write_tensors(context.folder / EFFECTS, tensors)

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        selected, states = self.latents(run), self.states(run)
        found = _gathered(folder, self.shards(run))
        if not found:
            write_parquet(folder / SCREENED, selected)
            write_parquet(folder / STATES, states)
            return
        baseline = stop_share(found["baseline"])[:, None]
        changes = [(stop_share(found[name]) - baseline).numpy() for name in ("safe", "bankrupt")]
        cluster = states["repetition"].to_numpy()
        table = screened_table(Screened(changes[0], changes[1], cluster))
        other = 1 - torch.stack([found["safe"], found["bankrupt"]]).sum(dim=-1)
        illegible = (other - (1 - found["baseline"].sum(dim=-1))[None, :, None]).mean(dim=(0, 1))
        table = table.with_columns(pl.Series("illegible", illegible.numpy()))
        write_parquet(folder / SCREENED, pl.concat([selected, table], how="horizontal"))
        rebuilt = stop_share(found["reconstruction"]) - baseline
        columns = [
            pl.Series("p_stop", found["baseline"][:, 0].numpy()),
            pl.Series("p_bet", found["baseline"][:, 1].numpy()),
            *(
                pl.Series(f"reconstruction {point}", rebuilt[:, i].numpy())
                for i, point in enumerate(self.config.hook_points)
            ),
        ]
        write_parquet(folder / STATES, states.with_columns(columns))


def _screened(
    screen: DecisionScreen, saes: dict[str, SparseAutoencoder], selected: pl.DataFrame
) -> dict[str, Tensor]:
    """Probabilities of stop and bet: baseline [2], safe and bankrupt [latents, 2], and with each
    SAE's reconstruction [points, 2].
    """
    found: dict[str, list[Tensor]] = {"safe": [], "bankrupt": [], "reconstruction": []}
    for name, sae in saes.items():
        point, mine = HookPoint(name), selected.filter(pl.col("hook_point") == name)
        found["reconstruction"].append(screen.decisions(reconstruction(sae, point)))
        if not len(mine):
            continue
        device = sae.W_dec.device
        latents = torch.tensor(mine["latent"].to_list() * 2, device=device)
        values = torch.tensor(mine["mean_out"].to_list() + mine["mean_in"].to_list(), device=device)
        both = screen.decisions(set_to(sae, point, latents, values)).cpu()
        found["safe"].append(both[: len(mine)])
        found["bankrupt"].append(both[len(mine) :])
    joined = {name: torch.cat([part.cpu() for part in parts]) for name, parts in found.items()}
    return {"baseline": screen.baseline().cpu(), **joined}


class DosesStep(_ScreeningStep):
    """The shortlist at five doses with all its controls, in states of held-out games."""

    name = DOSES
    inputs = (PLAY, RECORD, LATENTS, CONTRAST, SCREEN, SEED_RULE)
    is_discovery = False

    def cost(self) -> Cost:
        patch = self.config.patch
        return self.screening_cost(
            patch.shortlist * N_DOSES * (1 + 2 * patch.controls), "with controls, exact"
        )

    def latents(self, run: Run) -> pl.DataFrame:
        """The largest effects, in the order of their hook points."""

        def choose() -> pl.DataFrame:
            table = read_screened(run)
            if "effect" not in table.columns:
                return table.head(0)
            n = self.config.patch.shortlist
            best = table.sort(pl.col("effect").abs(), "latent", descending=[True, False]).head(n)
            order = {point: i for i, point in enumerate(self.config.hook_points)}
            place = pl.col("hook_point").replace_strict(order, return_dtype=pl.Int64)
            return best.sort(place, pl.col("effect").abs(), descending=[False, True])

        return run.cached((DOSES, "shortlist"), choose)

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        saes, shortlist = self.saes(run, context.device), self.latents(run)
        others = self._others(run, saes)
        rows = []
        for number, screen in enumerate(self.screens(run, shard, context)):
            rows.append(_dosed(screen, saes, shortlist, others))
            context.sink.progress(number + 1, shard.params["to"] - shard.params["from"], "states")
        tensors = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        write_tensors(context.folder / EFFECTS, tensors)

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        shortlist, found = self.latents(run), _gathered(folder, self.shards(run))
        if not found:
            write_parquet(folder / CAUSAL, shortlist)
            return
        baseline = stop_share(found["baseline"])
        changes = [
            (stop_share(found[name]) - baseline.view(-1, *[1] * (found[name].ndim - 2))).numpy()
            for name in _MEASURED
        ]
        doses = Doses(changes[0], changes[1], changes[2], self.states(run)["repetition"].to_numpy())
        legible = float(found["baseline"].sum(dim=-1).mean())
        is_legible = legible >= self.config.patch.min_legible
        table = verdicts(shortlist, doses, self.config.patch, is_legible=is_legible)
        if self.config.patch.criterion == "seed":
            table = _by_the_seed(table, read_seed_verdicts(run))
        write_parquet(folder / CAUSAL, table)
        write_parquet(folder / CONTROLS, control_verdicts(doses, self.config.patch))
        write_parquet(folder / CURVES, _curves(shortlist, doses))
        write_parquet(folder / AMOUNTS, _amounts(shortlist, found))
        if not is_legible:
            sink.message(
                f"The model puts {legible:.2%} on stop and bet together, so that effects on its "
                "decisions mean nothing: no latent is called causal."
            )

    def _others(self, run: Run, saes: dict[str, SparseAutoencoder]) -> dict[str, Tensor]:
        """Directions of the controls of each latent: [latents, controls, d_model]."""
        shortlist, n = self.latents(run), self.config.patch.controls
        found: dict[str, list[Tensor]] = {"random_latents": [], "random_directions": []}
        densities: dict[str, Tensor] = {}
        for row in shortlist.iter_rows(named=True):
            point = row["hook_point"]
            if point not in densities:
                densities[point] = density_of(
                    read_latents(run, self.config, point), saes[point].d_sae
                )
            both = control_directions(
                saes[point], row["latent"], n, self.config.seed, densities[point]
            )
            for name, directions in zip(found, both, strict=True):
                found[name].append(directions)
        return {name: torch.stack(parts) for name, parts in found.items()}


def _dosed(
    screen: DecisionScreen,
    saes: dict[str, SparseAutoencoder],
    shortlist: pl.DataFrame,
    others: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Probabilities of stop and bet: of the shortlist [latents, doses, 2] and of its controls
    [latents, controls, doses, 2]; and dollars and their probability [latents, 2, 2].
    """
    found: dict[str, list[Tensor]] = {name: [] for name in (*_MEASURED, "bets")}
    start = 0
    for name, mine in _by_point(shortlist):
        sae, point = saes[name], HookPoint(name)
        device = sae.W_dec.device
        latents = torch.tensor(mine["latent"].to_list(), device=device)
        doses = dose_values(mine).to(device)
        many = latents.repeat_interleave(N_DOSES)
        own = screen.decisions(set_to(sae, point, many, doses.flatten()))
        found["latents"].append(own.view(len(mine), N_DOSES, 2).cpu())
        for kind in ("random_latents", "random_directions"):
            directions = others[kind][start : start + len(mine)].to(device)
            n = directions.shape[1]
            block = along_others(
                sae,
                point,
                latents.repeat_interleave(n * N_DOSES),
                doses[:, None].expand(-1, n, -1).flatten(),
                directions[:, :, None].expand(-1, -1, N_DOSES, -1).flatten(0, 2),
            )
            measured = screen.decisions(block).view(len(mine), n, N_DOSES, 2)
            found[kind].append(measured.cpu())
        ends = set_to(sae, point, latents.repeat_interleave(2), doses[:, [0, -1]].flatten())
        found["bets"].append(_bets(screen, ends).view(len(mine), 2, 2))
        start += len(mine)
    joined = {name: torch.cat(parts) for name, parts in found.items()}
    return {"baseline": screen.baseline().cpu(), "baseline_bets": _bets(screen, [{}])[0], **joined}


def _by_the_seed(table: pl.DataFrame, rule: pl.DataFrame) -> pl.DataFrame:
    """With the original's verdict in the place of ours."""
    if not len(rule):
        return table.with_columns(pl.lit(value=False).alias("is_causal"))
    joined = table.join(rule, on=["hook_point", "latent"], how="left", maintain_order="left")
    either = (pl.col("seed_safe") | pl.col("seed_risky")).fill_null(value=False)
    return joined.with_columns(either.alias("is_causal"))


def _bets(screen: DecisionScreen, edits: Edits) -> Tensor:
    if not screen.situation.amounts:
        return torch.full((len(edits), 2), torch.nan, dtype=torch.float64)
    return screen.bets(edits).cpu()


def dose_values(latents: pl.DataFrame) -> Tensor:
    """From the mean of safe games to that of bankrupt ones: [latents, doses]."""
    ways = torch.linspace(0, 1, N_DOSES)
    low = torch.tensor(latents["mean_out"].to_list())
    high = torch.tensor(latents["mean_in"].to_list())
    return low[:, None] + (high - low)[:, None] * ways


def _by_point(latents: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    return [
        (str(key[0]), part) for key, part in latents.group_by("hook_point", maintain_order=True)
    ]


def _gathered(folder: Path, shards: Sequence[Shard]) -> dict[str, Tensor]:
    parts = [read_tensors(folder / "shards" / shard.key / EFFECTS) for shard in shards]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _curves(shortlist: pl.DataFrame, doses: Doses) -> pl.DataFrame:
    """hook_point, latent, dose (0 to 4), value, mean effect with its interval, and the 95 % band
    of controls.
    """
    values = dose_values(shortlist).numpy()
    rows = []
    for i, row in enumerate(shortlist.iter_rows(named=True)):
        mean, low, high, _ = mean_test(doses.latents[:, i], doses.cluster)
        control = np.quantile(np.abs(doses.random_latents[:, i].mean(axis=0)), 0.95, axis=0)
        for dose in range(N_DOSES):
            about = (row["hook_point"], row["latent"], dose, float(values[i, dose]))
            rows.append((*about, mean[dose], low[dose], high[dose], control[dose]))
    schema = [
        "hook_point", "latent", "dose", "value",
        "effect", "effect_low", "effect_high", "control_95",
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def _amounts(shortlist: pl.DataFrame, found: dict[str, Tensor]) -> pl.DataFrame:
    """Dollars that are bet on average, given a bet, at both means and without an edit."""
    baseline = found["baseline_bets"][:, 0]
    bets = found["bets"][..., 0] - baseline[:, None, None]
    # A fixed bet is what it is, and says nothing.
    varies = bets.abs().amax(dim=(1, 2)) > 1e-9
    means = bets[varies].nanmean(dim=0) if bool(varies.any()) else torch.zeros(bets.shape[1:])
    return shortlist.select("hook_point", "latent").with_columns(
        pl.Series("states", [int(varies.sum())] * len(shortlist), dtype=pl.Int64),
        pl.Series("baseline_bet", [float(baseline[varies].nanmean())] * len(shortlist)),
        pl.Series("safe_bet_change", means[:, 0].numpy()),
        pl.Series("bankrupt_bet_change", means[:, 1].numpy()),
    )


def read_screened(run: Run) -> pl.DataFrame:
    return pl.read_parquet(run.step_folder(SCREEN) / SCREENED)


def leading(run: Run, n: int) -> pl.DataFrame:
    """The `n` most effective causal latents; of the shortlist, where none is causal."""
    table = read_causal(run)
    if "is_causal" not in table.columns or not len(table):
        return table.head(0)
    causal = table.filter("is_causal")
    best = causal if len(causal) else table
    return best.sort(pl.col("effect").abs(), "latent", descending=[True, False]).head(n)


def read_causal(run: Run) -> pl.DataFrame:
    return pl.read_parquet(run.step_folder(DOSES) / CAUSAL)
