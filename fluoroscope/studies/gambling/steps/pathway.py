"""Whole games -> how the decision forms from layer to layer (`pathway/`): experiment 1 of the seed.

pathway/probes.parquet         what a probe of each layer tells of the coming decision
pathway/lens.parquet           P(stop) and P(bet) by layer
pathway/correlations.parquet   latents of different layers that go together; not causal
pathway/shuffled.parquet       how many would under shuffling
pathway/edges.parquet          what setting a latent does to later ones: causal where it says so
pathway/latents.parquet        the latents, and what setting each does to the decision
pathway/paths.parquet          chains of causal edges
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.activations.last_positions import last_activations
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.interventions.positions import LAST
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.shape import BYTES
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.steps.sae_sources import load_saes
from fluoroscope.studies.gambling.config import GamblingConfig
from fluoroscope.studies.gambling.decision_screen import DecisionScreen
from fluoroscope.studies.gambling.pathway import (
    chosen_latents,
    exchange_strata,
    followed_decisions,
)
from fluoroscope.studies.gambling.pathway_edges import (
    EDGES,
    NODES,
    Moved,
    correlations,
    edge_table,
    node_table,
    path_table,
)
from fluoroscope.studies.gambling.pathway_lens import LENS, Lens, first_tokens, lens_table
from fluoroscope.studies.gambling.pathway_probes import PROBES, Decisions, probe_table
from fluoroscope.studies.gambling.pathway_reading import Place, moved, places, random_directions
from fluoroscope.studies.gambling.situations import situations
from fluoroscope.studies.gambling.states import codes, covariates, one_decision_a_game
from fluoroscope.studies.gambling.steps.latents import (
    CONTRAST,
    DECISION,
    LATENTS,
    density_of,
    discovery_states,
    read_latents,
    read_selected,
)
from fluoroscope.studies.gambling.steps.play import (
    DECISIONS_A_GAME,
    PLAY,
    model_player,
    read_attempts,
)
from fluoroscope.studies.gambling.steps.record import RECORD, read_activations, read_prompts
from fluoroscope.studies.gambling.steps.screen import SCREEN

PATHWAY = "pathway"
PROBES_FILE, LENS_FILE, CORRELATIONS_FILE, SHUFFLED_FILE, EDGES_FILE, NODES_FILE, PATHS_FILE = (
    "probes.parquet", "lens.parquet", "correlations.parquet", "shuffled.parquet",
    "edges.parquet", "latents.parquet", "paths.parquet",
)  # fmt: skip
_EFFECTS = "effects.safetensors"
_TOGETHER = 256
"""Prompts whose activations of all layers are held at once."""

_SUMMED = ("control_latents", "control_stop")


class PathwayStep(MapStep):
    """Shards: probes, lens, correlations, and some game states each for the edges."""

    name = PATHWAY
    inputs = (PLAY, RECORD, LATENTS, CONTRAST)

    def __init__(self, config: GamblingConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        config, shape, pathway = self.config, self.config.shape, self.config.pathway
        per_token = shape.forward_flops_per_token(config.table.prompt_tokens)
        head = 2.0 * shape.vocab_size * shape.d_model
        n = pathway.games * DECISIONS_A_GAME
        n_points = len(config.subject.saes)
        m = n_points * pathway.latents_per_layer
        edits = pathway.states * m * 2.0 * (1 + pathway.controls)
        lens = n * (config.table.prompt_tokens * per_token + shape.n_layers * head)
        edges = edits * (0.5 * per_token + head)
        fits = 5 * (1 + pathway.shuffles) * (1 + n_points)
        probes = fits * 100 * 4.0 * n * min(n, shape.d_model)
        weights = float(shape.n_params * BYTES[config.model.dtype])
        saes = sum(8.0 * sae.d_model * sae.d_sae for sae in config.subject.saes)
        held = 4.0 * _TOGETHER * shape.n_layers * shape.d_model
        is_half = config.model.dtype != "float32"
        return Cost(
            flops=probes + (0.0 if is_half else lens + edges),
            half_flops=lens + edges if is_half else 0.0,
            bytes_moved=weights * (pathway.states * (1 + edits / 1024 / pathway.states) + n / 64),
            overhead_s=8e-3 * fits + 1e-3 * edits * 0.05 + 0.1 * pathway.states + 0.2 * n_points,
            memory_bytes=weights + saes + held + 1024 * 30.0 * shape.vocab_size + 0.5e9,
            disk_bytes=pathway.states * 8.0 * m**2 + 8.0 * pathway.controls * m**2 + 3e2 * m**2,
            parallel=3 + max(1, pathway.states // config.patch.states_per_shard),
            note=f"{pathway.games} games, {m:,} latents",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        n, size = len(self._states(run)), self.config.patch.states_per_shard
        edges = [
            Shard(f"edges-{start:05d}", {"from": start, "to": min(start + size, n)})
            for start in range(0, n, size)
        ]
        return [Shard("probes"), Shard("lens"), Shard("correlations"), *edges]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        match shard.key:
            case "probes":
                write_parquet(context.folder / PROBES_FILE, self._probes(run))
            case "lens":
                write_parquet(context.folder / LENS_FILE, self._lens(run, context))
            case "correlations":
                table, null = self._correlations(run)
                write_parquet(context.folder / CORRELATIONS_FILE, table)
                write_parquet(context.folder / SHUFFLED_FILE, null)
            case _:
                write_tensors(context.folder / _EFFECTS, self._moved(run, shard, context))

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        for key, files in (
            ("probes", [PROBES_FILE]),
            ("lens", [LENS_FILE]),
            ("correlations", [CORRELATIONS_FILE, SHUFFLED_FILE]),
        ):
            for name in files:
                frame = pl.read_parquet(folder / "shards" / key / name)
                write_parquet(folder / name, frame)
        keys = [shard.key for shard in self.shards(run) if "from" in shard.params]
        parts = [read_tensors(folder / "shards" / key / _EFFECTS) for key in keys]
        edges, nodes = pl.DataFrame(schema=EDGES), pl.DataFrame(schema=NODES)
        if parts:
            found, legible = _gathered(parts)
            is_legible = legible >= self.config.patch.min_legible
            edges = edge_table(self._chosen(run), found)
            nodes = node_table(self._chosen(run), found, is_legible=is_legible)
            if not is_legible:
                sink.message(
                    f"The model puts {legible:.2%} on stop and bet together, so that effects on "
                    "its decisions mean nothing: no latent of the pathway is called causal."
                )
        write_parquet(folder / EDGES_FILE, edges)
        write_parquet(folder / NODES_FILE, nodes)
        write_parquet(folder / PATHS_FILE, path_table(edges, nodes))
        self._say_what_is_missing(run, folder, sink)

    def _say_what_is_missing(self, run: Run, folder: Path, sink: Sink) -> None:
        followed = self._followed(run)
        n_games = followed["game"].n_unique()
        if not n_games:
            sink.message("No decision of a held-out game could be read: there is no pathway.")
            return
        if self.config.record.decisions == "last":
            sink.message("Only last decisions were recorded, so the pathway is of these alone.")
        if n_games < self.config.pathway.games:
            sink.message(
                f"The pathway follows {n_games} games, all that latents were not chosen on, not "
                f"{self.config.pathway.games}."
            )
        if not len(pl.read_parquet(folder / PROBES_FILE)):
            sink.message("Too few games have decisions of both kinds to probe for them.")
        if not len(self._chosen(run)):
            sink.message("No latent was found that differs, so the pathway has no edges.")

    def _probes(self, run: Run) -> pl.DataFrame:
        followed = self._followed(run)
        if not len(followed):
            return pl.DataFrame(schema=PROBES)
        within, strata = exchange_strata(followed, self.config.table.factors())
        is_stop = (followed["action"] == "stop").to_numpy()
        lengths = np.array([len(prompt) for prompt in read_prompts(run)])
        rows = followed["row"].to_numpy().astype(np.int64)

        def read(point: str) -> Float[np.ndarray, "n d_model"]:
            return read_activations(run, point)[torch.from_numpy(rows)].double().numpy()

        return probe_table(
            covariates(followed, lengths, self.config.table.factors()),
            {point: partial(read, point) for point in self.config.hook_points},
            Decisions(is_stop, codes(followed["game"]), strata, within),
            shuffles=self.config.pathway.shuffles,
            seed=self.config.seed,
        )

    def _lens(self, run: Run, context: ShardContext) -> pl.DataFrame:
        """Of prompts with their cue, read anew: where the wording has none, these are what was
        recorded; and all layers are read, not only those with an SAE.
        """
        followed = self._followed(run)
        if not len(followed):
            return pl.DataFrame(schema=LENS)
        player = model_player(run, self.config, context.device)
        model = player.model
        found = situations(self.config, read_attempts(run), followed, player)
        openings = [first_tokens(model, one) for one in found]
        if not all(one.is_told_at_once for one in openings):
            context.sink.message(
                "Decisions to stop and to bet begin with the same token, so no lens can tell them "
                "apart."
            )
            return pl.DataFrame(schema=LENS)
        lens, points = Lens(model), [HookPoint(i, "resid_post") for i in range(model.n_layers)]
        sampling = Sampling(**self.config.play.sampling.model_dump())
        parts = []
        for start in range(0, len(found), _TOGETHER):
            some = slice(start, start + _TOGETHER)
            read = last_activations(
                model, [one.prompt for one in found[some]], points, self.config.record.tile_tokens
            )
            layers = [lens.decisions(read[point], openings[some], sampling) for point in points]
            parts.append(torch.stack(layers))
            context.sink.progress(min(start + _TOGETHER, len(found)), len(found), "decisions")
        is_stop = (followed["action"] == "stop").to_numpy()
        shares = torch.cat(parts, dim=1).numpy()
        return lens_table(shares, is_stop, codes(followed["game"]), self.config.seed)

    def _correlations(self, run: Run) -> tuple[pl.DataFrame, pl.DataFrame]:
        rows, chosen = self._one_a_game(run), self._chosen(run)
        parts = [
            np.asarray(read_latents(run, self.config, str(point))[rows["row"].to_numpy()].todense())
            [:, part["latent"].to_numpy()]
            for (point,), part in chosen.group_by("hook_point", maintain_order=True)
        ]  # fmt: skip
        latents = np.hstack([np.zeros((len(rows), 0)), *parts]).astype(np.float64)
        strata = exchange_strata(rows, self.config.table.factors())[1]
        settings = self.config.pathway
        return correlations(
            latents, chosen, strata, shuffles=settings.shuffles, seed=self.config.seed
        )

    def _moved(self, run: Run, shard: Shard, context: ShardContext) -> dict[str, Tensor]:
        player = model_player(run, self.config, context.device)
        states = self._states(run)[shard.params["from"] : shard.params["to"]]
        sampling = Sampling(**self.config.play.sampling.model_dump())
        found = places(self._chosen(run), self._saes(run, context.device))
        others = run.cached((PATHWAY, "others", context.device), lambda: self._others(run, found))
        rows: list[dict[str, Tensor]] = []
        for number, situation in enumerate(
            situations(self.config, read_attempts(run), states, player)
        ):
            screen = DecisionScreen(player.model, situation, sampling, LAST)
            rows.append(moved(screen, found, others))
            context.sink.progress(number + 1, len(states), "states")
        every = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        # Of controls only the mean over states is needed, and they are many.
        return every | {name: every[name].sum(dim=0) for name in _SUMMED}

    def _others(self, run: Run, found: Sequence[Place]) -> dict[HookPoint, Tensor]:
        """Directions of the controls of each place's latents."""
        n, seed = self.config.pathway.controls, self.config.seed
        densities = {
            place.point: density_of(
                read_latents(run, self.config, str(place.point)), place.sae.d_sae
            )
            for place in found
        }
        return {
            place.point: random_directions(place, n, seed, densities[place.point])
            for place in found
        }

    def _followed(self, run: Run) -> pl.DataFrame:
        return run.cached(
            (PATHWAY, "followed"),
            lambda: followed_decisions(
                discovery_states(run, self.config), self.config.pathway.games, self.config.seed
            ),
        )

    def _one_a_game(self, run: Run) -> pl.DataFrame:
        n, seed = self.config.pathway.games, self.config.seed
        return run.cached(
            (PATHWAY, "one a game"),
            lambda: one_decision_a_game(self._followed(run), n, seed, PATHWAY),
        )

    def _states(self, run: Run) -> pl.DataFrame:
        """The decisions that latents are set in, each of a game of its own."""
        n = self.config.pathway.states if len(self._chosen(run)) else 0
        return self._one_a_game(run).head(n)

    def _chosen(self, run: Run) -> pl.DataFrame:
        def choose() -> pl.DataFrame:
            settings, n = self.config.contrast, self.config.pathway.latents_per_layer
            file = run.step_folder(CONTRAST) / DECISION
            if settings.stop_contrast and file.exists():
                table = chosen_latents(pl.read_parquet(file), n, settings.by, is_decision=True)
                if len(table):
                    return table
            return chosen_latents(read_selected(run), n, settings.by, is_decision=False)

        return run.cached((PATHWAY, "latents"), choose)

    def _saes(self, run: Run, device: str) -> dict[str, SparseAutoencoder]:
        model, choices = model_player(run, self.config, device).model, self.config.subject.saes
        return run.cached(
            (SCREEN, "saes", device),
            lambda: load_saes(choices, device=device, model=model.identity),
        )


def _gathered(parts: Sequence[dict[str, Tensor]]) -> tuple[Moved, float]:
    """What all states say together, and the mean probability of stop and bet."""
    n = sum(len(part["stop"]) for part in parts)
    found = {
        name: torch.cat([part[name] for part in parts]).numpy() for name in ("latents", "stop")
    }
    means = {
        name: torch.stack([part[name] for part in parts]).sum(0).numpy() / n for name in _SUMMED
    }
    legible = torch.cat([part["baseline"] for part in parts]).sum(dim=-1).mean()
    return Moved(**found, **means), float(legible)


def read_pathway(run: Run, file: str) -> pl.DataFrame:
    return pl.read_parquet(run.step_folder(PATHWAY) / file)
