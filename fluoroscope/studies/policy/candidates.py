"""Candidates: the few latents among which a policy chooses at every token, and doing nothing.

A dictionary has tens of thousands of latents, and a policy over all of them learns nothing
(its gradient is spread over actions that were never tried). So the choice is among at most 64
that correlate with the outcome, each at one to five multiples of its coefficient. Action 0 is
no-op; action `1 + k * n_multiples + m` adds `multiples[m] * coefficients[k] * directions[k]` at
`points[k]`.

Axes: K candidates, A = 1 + K * multiples actions, n positions, d_model.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluoroscope.core.errors import InterventionError, MismatchError
from fluoroscope.interventions.edits import AddDirection
from fluoroscope.interventions.row_edits import EditSet
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.latent_edits import check_latent

MAX_CANDIDATES, MAX_MULTIPLES = 64, 5
NO_OP = 0

Reader = Callable[[Float[Tensor, "n d_model"]], Float[Tensor, "n some"]]
"""Activations of the candidates of one hook point, in their order; above 0 is active."""


class ActionName(NamedTuple):
    """What an action adds; of no-op nothing is said but the coefficient 0."""

    point: HookPoint | None
    latent: int | None
    coefficient: float


@dataclass(frozen=True, eq=False)
class Candidates:
    """What may be added at a token. The choice is made at the first of the hook points, and
    directions of later ones are added when the same pass comes to them.
    """

    points: tuple[HookPoint, ...]
    latents: tuple[int | None, ...]
    """None for a direction that is no latent's."""

    coefficients: tuple[float, ...]
    directions: Float[Tensor, "K d_model"]
    multiples: tuple[float, ...] = (1.0,)
    readers: Mapping[HookPoint, Reader] = field(default_factory=dict)
    """Empty where nothing is known of when the candidates are active."""

    def __post_init__(self) -> None:
        lengths = {len(self.points), len(self.latents), len(self.coefficients)}
        lengths.add(len(self.directions))
        if len(lengths) > 1 or not 1 <= len(self.points) <= MAX_CANDIDATES:
            raise InterventionError(
                f"A policy has 1 to {MAX_CANDIDATES} candidates with a hook point, a latent, a "
                f"coefficient and a direction each; got {len(self.points)}, {len(self.latents)}, "
                f"{len(self.coefficients)} and {len(self.directions)}."
            )
        if not 1 <= len(self.multiples) <= MAX_MULTIPLES or len(set(self.multiples)) < len(
            self.multiples
        ):
            raise InterventionError(
                f"A policy has 1 to {MAX_MULTIPLES} different multiples, got {self.multiples}."
            )
        for number in (*self.coefficients, *self.multiples):
            if not math.isfinite(number) or number == 0:
                raise InterventionError(
                    f"A coefficient of {number} cannot be acted with; no-op is always there. "
                    "Leave the candidate out."
                )
        if not bool(self.directions.isfinite().all()):
            raise InterventionError("A direction of the candidates is NaN or infinite.")
        missing = set(self.points) - set(self.readers)
        if self.readers and missing:
            raise InterventionError(
                f"The candidates at {', '.join(map(str, sorted(missing)))} have no reader. Give "
                "one for every hook point, or none."
            )

    @classmethod
    def of_latents(
        cls,
        saes: Mapping[HookPoint, SparseAutoencoder],
        chosen: Sequence[tuple[HookPoint, int, float]],
        multiples: Sequence[float] = (1.0,),
    ) -> "Candidates":
        """Decoder rows of latents, given as hook point, latent and coefficient."""
        for point, latent, _ in chosen:
            if point not in saes:
                known = ", ".join(map(str, sorted(saes)))
                raise MismatchError(
                    f"There is no SAE at {point} for the candidate {latent}, only at {known}."
                )
            check_latent(saes[point], latent)
        points = tuple(point for point, _, _ in chosen)
        readers = {
            point: partial(_active, saes[point], [j for at, j, _ in chosen if at == point])
            for point in sorted(set(points))
        }
        rows = [saes[point].W_dec.detach()[latent].cpu() for point, latent, _ in chosen]
        return cls(
            points,
            tuple(latent for _, latent, _ in chosen),
            tuple(float(coefficient) for _, _, coefficient in chosen),
            torch.stack(rows) if rows else torch.empty(0, 0),
            tuple(float(multiple) for multiple in multiples),
            readers,
        )

    @property
    def n_candidates(self) -> int:
        return len(self.points)

    @property
    def n_actions(self) -> int:
        return 1 + self.n_candidates * len(self.multiples)

    @property
    def d_model(self) -> int:
        return self.directions.shape[1]

    @property
    def acting_point(self) -> HookPoint:
        """Where the policy reads and decides."""
        return min(self.points)

    @cached_property
    def all_points(self) -> tuple[HookPoint, ...]:
        return tuple(sorted(set(self.points)))

    def members(self, point: HookPoint) -> list[int]:
        """The candidates of one hook point."""
        return [k for k, at in enumerate(self.points) if at == point]

    def name(self, action: int) -> ActionName:
        if action == NO_OP:
            return ActionName(None, None, 0.0)
        k, m = divmod(action - 1, len(self.multiples))
        return ActionName(self.points[k], self.latents[k], self.coefficients[k] * self.multiples[m])

    def edit(self, action: int) -> EditSet:
        """An action as an edit of the intervention engine."""
        name = self.name(action)
        if name.point is None:
            return {}
        k = (action - 1) // len(self.multiples)
        return {name.point: AddDirection(self.directions[k], name.coefficient)}

    def steps(
        self, point: HookPoint, device: torch.device, dtype: torch.dtype
    ) -> tuple[Int[Tensor, " actions"], Float[Tensor, "rows d_model"]]:
        """Action -> row of a table of what it adds at one hook point; row 0 is nothing."""
        rows = torch.zeros(self.n_actions, dtype=torch.int64)
        table = [torch.zeros(self.d_model, dtype=torch.float64)]
        for action in range(1, self.n_actions):
            name = self.name(action)
            if name.point == point:
                rows[action] = len(table)
                k = (action - 1) // len(self.multiples)
                table.append(name.coefficient * self.directions[k].double().cpu())
        return rows.to(device), torch.stack(table).to(device, dtype)

    def active(self, point: HookPoint, x: Float[Tensor, "n d_model"]) -> Bool[Tensor, "n members"]:
        """Which candidates of a hook point are active."""
        if point not in self.readers:
            raise InterventionError(
                f"Masking needs to know when the candidates at {point} are active, and they were "
                "given without readers. Make them by Candidates.of_latents."
            )
        return self.readers[point](x) > 0

    def allowed(self, active: Bool[Tensor, "n K"]) -> Bool[Tensor, "n actions"]:
        """Active-or-no-op: all multiples of the candidates that are active, and action 0."""
        several = active.repeat_interleave(len(self.multiples), dim=-1)
        return torch.cat([torch.ones_like(several[:, :1]), several], dim=-1)

    def check_fits(self, model: LanguageModel) -> None:
        """Raises `MismatchError` unless the directions have the width of the model's streams."""
        for point in self.all_points:
            width = model.width(point)
            if width != self.d_model:
                raise MismatchError(
                    f"The candidates have width {self.d_model}, and {point} of {model.name} has "
                    f"width {width}. They were made for another model or stream."
                )


def _active(
    sae: SparseAutoencoder, latents: list[int], x: Float[Tensor, "n d_model"]
) -> Float[Tensor, "n some"]:
    wanted = torch.tensor(latents, device=sae.W_dec.device)
    return sae.encode_latents(x.to(sae.W_dec.dtype), wanted)
