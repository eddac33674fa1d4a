"""MoveLatent: brings latents towards values, the error term kept; and its control.

Axes: d_model.
"""

from collections.abc import Hashable, Sequence

from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import InterventionError
from fluoroscope.interventions.edits import check_number
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.latent_edits import LatentEdit, latent_numbers, latents_of, unit_direction


class MoveLatent(LatentEdit):
    """Adds `share * (target_j - f_j(x)) * W_dec[j]`: share 1 sets latents, 0 changes nothing, and
    1.5 goes half as far beyond.
    """

    def __init__(
        self,
        sae: SparseAutoencoder,
        latent: int | Sequence[int],
        target: float | Sequence[float],
        share: float = 1.0,
    ) -> None:
        check_number(share, "The share of MoveLatent")
        self.sae, self.latents = sae, latents_of(sae, latent)
        self.targets, self.share = latent_numbers(target, self.latents, "targets"), share

    def amounts(self) -> tuple[Sequence[float], Sequence[float]]:
        return [self.share * target for target in self.targets], [-self.share] * len(self.targets)

    @property
    def key(self) -> Hashable:
        return ("move", id(self.sae), self.latents, self.targets, self.share)


class MoveLatentAlong(LatentEdit):
    """The control of a `MoveLatent`: reads the same latents, and writes the amount of each along
    the direction that is given for it, whose length does not matter.

    At every position each latent's share has exactly the norm that it has in the original.
    """

    def __init__(
        self,
        sae: SparseAutoencoder,
        latent: int | Sequence[int],
        target: float | Sequence[float],
        share: float,
        directions: Sequence[Float[Tensor, " d_model"]],
    ) -> None:
        self.of = MoveLatent(sae, latent, target, share)
        self.sae, self.latents = sae, self.of.latents
        if len(directions) != len(self.latents):
            raise InterventionError(
                f"There are {len(self.latents)} latents and {len(directions)} directions; give "
                "one for each."
            )
        name = type(self).__name__
        self.directions = tuple(unit_direction(sae, one, name) for one in directions)

    def amounts(self) -> tuple[Sequence[float], Sequence[float]]:
        return self.of.amounts()

    def written(self) -> list[tuple[Tensor, Hashable]]:
        found = []
        for j, direction, key in zip(self.latents, self.directions, self._bytes, strict=True):
            own = self.sae.W_dec[j].detach()
            found.append((direction.to(own) * own.norm(), ("along", id(self.sae), j, key)))
        return found

    @property
    def touches(self) -> frozenset[Hashable]:
        return frozenset()

    @property
    def key(self) -> Hashable:
        return ("move along", self.of.key, self._bytes)

    @property
    def _bytes(self) -> tuple[bytes, ...]:
        return tuple(direction.numpy().tobytes() for direction in self.directions)
