"""`semantic_clusters.json` and `.npz`: latents of several layers that point the same way.

    {"min_cosine", "cosine_of_random_pairs_99", "n_clusters",
     "clusters": [{"id", "first_layer", "last_layer", "members": [[layer, feature], ...],
                   "mean_cosine", "n_points", "tokens": [...]}]}

A cluster is a family of `tracking/families.py`, with directions carried from layer to layer by the
same maps as in tracking. `n_points` is how often its members are points of tracks, in all texts;
`tokens` are those that its last member makes likelier by itself, null where the model was not
there to ask. The arrays of the `.npz` hold no objects: `layers`, `features`, `clusters` of each
member, and `sources`, `targets`, `cosines` of each edge between members.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import UserError
from fluoroscope.core.storage import atomic_path
from fluoroscope.features.examples import logit_effects
from fluoroscope.features.matching import random_cosines
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.runs.run import Run
from fluoroscope.steps.models import load_model
from fluoroscope.steps.subject import load_layers
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.seed_files.writing import (
    CLUSTER_ARRAYS,
    CLUSTERS,
    write_plain,
)
from fluoroscope.studies.hallucination.steps.read import read_shards
from fluoroscope.studies.hallucination.steps.track import TRACK, TRACKS
from fluoroscope.studies.hallucination.tracking.families import (
    MIN_COSINE,
    Families,
    feature_families,
)
from fluoroscope.studies.hallucination.tracking.transport import neighbour_graph, transport

N_TOKENS = 5
_BLOCK = 256
_RANDOM_PAIRS = 20_000


def write_clusters(
    run: Run, config: HallucinationConfig, out: Path, min_cosine: float = MIN_COSINE
) -> list[Path]:
    """Computed anew from decoders; takes the memory of all SAEs."""
    saes = load_layers(run, config, run.device)
    decoders = [saes[str(point)].W_dec.detach().float() for point in config.points]
    maps = [
        transport(config.tracking.transport, here, there).to(run.device)
        for here, there in pairwise(_states(run, point) for point in config.points)
    ]
    gap = min(config.tracking.max_gap, len(decoders) - 1)
    graph = neighbour_graph(decoders, maps, gap, config.tracking.neighbours)
    found = feature_families(graph, config.widths, min_cosine)
    chance = np.concatenate(
        [
            random_cosines(one @ step, other, _RANDOM_PAIRS // len(maps), config.seed)
            for one, step, other in zip(decoders[:-1], maps, decoders[1:], strict=True)
        ]
    )
    about = {
        "min_cosine": min_cosine,
        "cosine_of_random_pairs_99": float(np.quantile(chance, 0.99)),
        "n_clusters": len(found),
    }
    blocks = [point.layer for point in config.points]
    uses = _uses(run, config.widths)
    tokens = _tokens(run, config, found, decoders)
    clusters = clusters_json(found, blocks, uses, tokens)
    arrays = out / CLUSTER_ARRAYS
    with atomic_path(arrays) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            layers=np.array(blocks, np.int32)[found.layers],
            features=found.latents,
            clusters=found.families,
            sources=found.sources,
            targets=found.targets,
            cosines=found.cosines,
        )
    return [write_plain(out / CLUSTERS, about | {"clusters": clusters}), arrays]


def clusters_json(
    found: Families,
    blocks: Sequence[int],
    uses: Sequence[np.ndarray],
    tokens: Sequence[list[str]] | None,
) -> list[dict[str, Any]]:
    """`uses[l][s]` is how often latent s of layer l is a point; `tokens` are of each family."""
    n = len(found)
    cosines = np.bincount(found.families[found.sources], found.cosines, minlength=n)
    n_edges = np.bincount(found.families[found.sources], minlength=n)
    bounds = np.searchsorted(found.families, np.arange(n + 1))
    clusters = []
    for number, (start, stop) in enumerate(pairwise(bounds.tolist())):
        layers, latents = found.layers[start:stop].tolist(), found.latents[start:stop].tolist()
        members = list(zip(layers, latents, strict=True))
        clusters.append(
            {
                "id": number,
                "first_layer": blocks[layers[0]],
                "last_layer": blocks[layers[-1]],
                "members": [[blocks[layer], latent] for layer, latent in members],
                "mean_cosine": float(cosines[number] / n_edges[number]),
                "n_points": sum(int(uses[layer][latent]) for layer, latent in members),
                "tokens": None if tokens is None else tokens[number],
            }
        )
    return clusters


def _states(run: Run, point: HookPoint) -> Float[Tensor, "n d"]:
    """What the maps of tracking were fitted on: of the last token and of the answer's own."""
    return torch.cat(
        [readings.states[point][:, :2].flatten(0, 1) for _, readings in read_shards(run)]
    )


def _uses(run: Run, widths: Sequence[int]) -> list[np.ndarray]:
    found = [np.zeros(width, np.int64) for width in widths]
    for place in sorted((run.step_folder(TRACK) / "shards").iterdir()):
        points = pl.read_parquet(place / TRACKS, columns=["layer", "latent"])
        for (layer,), part in points.group_by("layer"):
            counts = np.bincount(part["latent"].to_numpy(), minlength=widths[int(str(layer))])
            found[int(str(layer))] += counts
    return found


def _tokens(
    run: Run, config: HallucinationConfig, found: Families, decoders: Sequence[Tensor]
) -> list[list[str]] | None:
    try:
        model = load_model(run, config.model, run.device)
        model.check_has_head()
    except UserError:
        # The run may have come from a machine that has the model; clusters are there without it.
        return None
    last = np.searchsorted(found.families, np.arange(len(found)), side="right") - 1
    members = list(zip(found.layers[last].tolist(), found.latents[last].tolist(), strict=True))
    spell = _speller(model)
    tokens = []
    for start in range(0, len(members), _BLOCK):
        some = members[start : start + _BLOCK]
        directions = torch.stack([decoders[layer][latent] for layer, latent in some])
        for effects in logit_effects(model, directions, N_TOKENS):
            tokens.append([spell(token) for token, _ in effects.promoted])
    return tokens


def _speller(model: LanguageModel) -> Callable[[int], str]:
    return lambda token: str(model.tokenizer.decode([token]))
