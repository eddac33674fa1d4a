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

from fluoroscope.core.seeding import torch_stream
from fluoroscope.organism.decisions import decision_streams
from fluoroscope.organism.matching import linear_reading
from fluoroscope.organism.network import PLANTED_LAYER
from fluoroscope.organism.prompts import VARIABLES, Variable
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

    def exchanged(
        self, base: Float[Tensor, "n d_model"], source: Float[Tensor, "n d_model"]
    ) -> Float[Tensor, "n d_model"]:
        """The base's stream with the source's reading written into it."""
        return base + (self.read(source) - self.read(base)) @ self.write


def direction(name: str, variable: Variable, layer: int, vector: Tensor) -> Candidate:
    """A direction, read and written as the component along it."""
    unit = (vector / vector.norm())[None]
    return Candidate(name, variable, layer, lambda stream: stream @ unit.T, unit)


def latents(
    name: str, variable: Variable, layer: int, sae: SparseAutoencoder, chosen: Sequence[int]
) -> Candidate:
    """A set of latents, read by the encoder and written by the decoder."""
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

    def probes(self, variable: Variable, n: int = 1024) -> list[Candidate]:
        """A supervised linear probe of each layer: what a label for every prompt can find."""
        prompts = [self.world.prompt(variable, "probe", i) for i in range(n)]
        values = np.array([prompt.value for prompt in prompts])
        return [
            direction(
                "probe",
                variable,
                layer,
                torch.from_numpy(linear_reading(variable, stream.double().numpy(), values)).float(),
            )
            for layer, stream in enumerate(decision_streams(self.readout, prompts))
        ]

    def random(self, variable: Variable, layer: int) -> Candidate:
        """A direction that means nothing: the control."""
        luck = torch_stream(self.world.seed, "organism", "random direction", variable, layer)
        vector = torch.randn(self.directions.shape[1], generator=luck)
        return direction("random", variable, layer, vector)
