"""What latents behind an edited one become, exactly, in one pass over all edits of a state.

Nothing is sampled: an edit of the last position of a prompt changes that position alone, so the
later layers are read where the decision is (see `interventions/screening.py`).

Axes: `edits`, `m` latents of all hook points, `c` controls.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.studies.gambling.decision_screen import (
    DecisionScreen,
    Edits,
    along_others,
    control_directions,
    set_to,
    stop_share,
)


class Place(NamedTuple):
    """The chosen latents of one hook point."""

    point: HookPoint
    sae: SparseAutoencoder
    latents: Int[Tensor, " k"]
    first: int
    """Number of its first latent among those of all hook points."""

    bet_mean: Float[Tensor, " k"]
    stop_mean: Float[Tensor, " k"]

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + len(self.latents))


def places(chosen: pl.DataFrame, saes: Mapping[str, SparseAutoencoder]) -> list[Place]:
    """The hook points of `chosen` (rows in their order), each with its latents."""
    found: list[Place] = []
    first = 0
    for (name,), part in chosen.group_by("hook_point", maintain_order=True):
        sae = saes[str(name)]
        numbers = partial(torch.tensor, device=sae.W_dec.device)
        found.append(
            Place(
                HookPoint(str(name)),
                sae,
                numbers(part["latent"].to_list()),
                first,
                numbers(part["bet_mean"].to_list()),
                numbers(part["stop_mean"].to_list()),
            )
        )
        first += len(part)
    return found


def random_directions(
    place: Place, n: int, seed: int, density: Float[Tensor, " s"]
) -> Float[Tensor, "k c d_model"]:
    """Decoders of `n` latents that are as often active, for each latent of a place; fewer where
    the SAE has fewer.
    """
    found = [
        control_directions(place.sae, int(latent), n, seed, density)[0] for latent in place.latents
    ]
    least = min(len(directions) for directions in found)
    return torch.stack([directions[:least] for directions in found])


def read_behind(
    screen: DecisionScreen, edits: Edits, behind: list[Place]
) -> tuple[Float[Tensor, "edits 2"], Float[Tensor, "edits m"]]:
    """Probabilities of stop and bet under each edit, and the latents of the places behind it."""
    seen: dict[HookPoint, list[Tensor]] = {place.point: [] for place in behind}
    hooks = {place.point: partial(_keep, place, seen[place.point]) for place in behind}
    with screen.screen.model.hooked(hooks):
        decided = screen.decisions(edits)
    if any(sum(map(len, rows)) != len(edits) for rows in seen.values()):
        # Whole openings were read, token by token; what counts is the prompt's last position.
        for rows in seen.values():
            rows.clear()
        with screen.screen.model.hooked(hooks):
            screen.screen.decisions(edits, {"any": [0]})
    parts = [torch.cat(rows) for rows in seen.values()]
    nothing = decided.new_zeros(len(edits), 0)
    return decided.cpu(), torch.cat([nothing.cpu(), *(part.cpu().double() for part in parts)], -1)


@torch.no_grad()
def moved(
    screen: DecisionScreen, found: list[Place], others: Mapping[HookPoint, Tensor]
) -> dict[str, Tensor]:
    """Of one state: what becomes of later latents [m, m] and of the share of stopping [m] between
    a latent's mean of bets and its mean of stops; `control_...` the same along `others`
    (directions [k, c, d_model] by hook point) [m, c, m] and [m, c].
    """
    m = sum(len(place.latents) for place in found)
    c = min((len(directions[0]) for directions in others.values()), default=0)
    result = {
        "latents": torch.zeros(m, m, dtype=torch.float64),
        "stop": torch.zeros(m, dtype=torch.float64),
        "control_latents": torch.zeros(m, c, m, dtype=torch.float64),
        "control_stop": torch.zeros(m, c, dtype=torch.float64),
    }
    for place in found:
        behind = [other for other in found if place.point < other.point]
        later = torch.cat([torch.arange(m)[other.rows] for other in behind] or [torch.arange(0)])
        k = len(place.latents)
        values = torch.stack([place.bet_mean, place.stop_mean], dim=1)
        twice = place.latents.repeat_interleave(2)
        own = set_to(place.sae, place.point, twice, values.flatten())
        share, change = _difference(*read_behind(screen, own, behind))
        result["stop"][place.rows] = share
        result["latents"][place.rows.start : place.rows.stop, later] = change
        directions = others[place.point][:, :c]
        if c == 0:
            continue
        control = along_others(
            place.sae,
            place.point,
            twice.repeat_interleave(c),
            # For each latent, its two values for each control in turn.
            values[:, None].expand(-1, c, -1).flatten(),
            directions.to(values.device)[:, :, None].expand(-1, -1, 2, -1).flatten(0, 2),
        )
        share, change = _difference(*read_behind(screen, control, behind))
        result["control_stop"][place.rows] = share.view(k, c)
        rows = torch.arange(m)[place.rows]
        result["control_latents"][rows[:, None], :, later] = change.view(k, c, -1).transpose(1, 2)
    return {**result, "baseline": screen.baseline().cpu()}


def _keep(place: Place, rows: list[Tensor], value: Float[Tensor, "edits pos d_model"]) -> None:
    last = value[:, -1].to(place.sae.W_dec)
    rows.append(place.sae.encode_latents(last, place.latents))


def _difference(
    decided: Float[Tensor, "edits 2"], latents: Float[Tensor, "edits m"]
) -> tuple[Float[Tensor, " half"], Float[Tensor, "half m"]]:
    """Of every second edit from the one before it."""
    share = stop_share(decided)
    return share[1::2] - share[0::2], latents[1::2] - latents[0::2]
