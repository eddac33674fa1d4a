"""MoveLatent: brings latents towards values, the error term kept."""

from collections.abc import Hashable, Sequence

from fluoroscope.interventions.edits import check_number
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.latent_edits import LatentEdit, latent_numbers, latents_of


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
