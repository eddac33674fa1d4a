"""What is known of the organism, and candidates for it: anything that may be one of its variables.

A `Candidate` is how something is read from a layer's stream and what writing it adds: a set of an
SAE's latents, a probe's direction, the planted direction itself. `trials.py` judges it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.organism.decisions import decision_streams
from fluoroscope.organism.matching import linear_reading
from fluoroscope.organism.network import D_MODEL, N_LAYERS, PLANTED_LAYER
from fluoroscope.organism.prompts import VARIABLES, Prompt, Variable
from fluoroscope.organism.readout import Readout
from fluoroscope.organism.world import World
from fluoroscope.sae.base import SparseAutoencoder


@dataclass(frozen=True)
class Candidate:
    """Something that may be a variable, in the `resid_post` of a layer."""

    name: str
    variable: Variable
    layer: int
    read: Callable[[Float[Tensor, "n d_model"]], Float[Tensor, "n k"]]
    write: Float[Tensor, "k d_model"]
    """What the stream gains where a reading grows by one."""

    def __post_init__(self) -> None:
        if self.variable not in VARIABLES:
            names = ", ".join(VARIABLES)
            raise ConfigError(f"A variable is one of {names}, got {self.variable!r}.")
        if not 0 <= self.layer < N_LAYERS:
            raise ConfigError(f"A layer is 0 to {N_LAYERS - 1}, got {self.layer}.")
        if self.write.ndim != 2 or self.write.shape[1] != D_MODEL or not len(self.write):
            raise ConfigError(
                f"What is written must be [k, {D_MODEL}] with k at least 1, got "
                f"{list(self.write.shape)}."
            )
        if not self.write.isfinite().all() or not self.write.any():
            raise ConfigError("What is written holds no direction: it is zero, or not finite.")

    def exchanged(
        self, base: Float[Tensor, "n d_model"], source: Float[Tensor, "n d_model"]
    ) -> Float[Tensor, "n d_model"]:
        """The base's stream with the source's reading written into it."""
        return base + (self.read(source) - self.read(base)) @ self.write


def direction(name: str, variable: Variable, layer: int, vector: Tensor) -> Candidate:
    """A direction, read and written as the component along it."""
    unit = (vector / vector.norm()).float()[None]
    return Candidate(name, variable, layer, lambda stream: stream @ unit.T, unit)


def latents(
    name: str, variable: Variable, layer: int, sae: SparseAutoencoder, chosen: Sequence[int]
) -> Candidate:
    """A set of latents, read by the encoder and written by the decoder."""
    if not chosen or not all(0 <= latent < sae.d_sae for latent in chosen):
        raise ConfigError(f"Latents are some of 0 to {sae.d_sae - 1}, got {list(chosen)}.")
    which = torch.tensor(list(chosen))
    write = sae.W_dec.detach()[which].float()
    return Candidate(name, variable, layer, lambda stream: sae.encode_latents(stream, which), write)


@dataclass(frozen=True)
class Truth:
    """An organism with what is known of its inside."""

    world: World
    readout: Readout
    directions: Float[Tensor, "v d_model"]
    """Those planted, one a row, in the order of `VARIABLES`."""

    def planted(self, variable: Variable) -> Candidate:
        vector = self.directions[VARIABLES.index(variable)]
        return direction("planted", variable, PLANTED_LAYER, vector)

    def probes(self, variable: Variable, prompts: Sequence[Prompt]) -> list[Candidate]:
        """A supervised linear probe of each layer: what a label for every prompt can find."""
        values = np.array([prompt.value for prompt in prompts])
        found: list[Candidate] = []
        for layer, stream in enumerate(decision_streams(self.readout, prompts)):
            weights = linear_reading(variable, stream.double().numpy(), values)
            found.append(direction("probe", variable, layer, torch.from_numpy(weights)))
        return found

    def random(self, variable: Variable, layer: int, n: int) -> list[Candidate]:
        """Directions that mean nothing: the control."""
        luck = torch_stream(self.world.seed, "organism", "random directions", variable, layer)
        vectors = torch.randn(n, self.directions.shape[1], generator=luck)
        return [direction("random", variable, layer, vector) for vector in vectors]
