"""Edits of latents of an SAE, and their controls.

A patch keeps the error term: setting latent j to v adds `(v - f_j(x)) * W_dec[j]` to the
activation and nothing else, so a latent that is set to the value it has changes nothing. Where
a latent depends on no other (ReLU, JumpReLU, BatchTopK at inference) only the latents that are
edited are computed; in a TopK SAE all are.

Controls: `ReconstructionOnly` (what the SAE alone does to the activation), `SetRandomLatent`
(as much change along another latent's direction), `RandomDirection` of `interventions.edits`.
"""

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.core.errors import InterventionError, MismatchError
from fluoroscope.core.seeding import stream
from fluoroscope.interventions.edits import WHOLE, Edit, Term, check_direction, check_number
from fluoroscope.interventions.term_block import TermBlock
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.thresholded import ThresholdedSAE

N_CANDIDATES = 20
"""Latents of the most similar density among which a random one is drawn."""


class _Touched(NamedTuple):
    """A latent that no two edits of one place may both change; other SAEs have others."""

    latent: int
    sae: int
    name: str

    def __str__(self) -> str:
        return f"latent {self.latent} of {self.name}"


class LatentEdit(Edit):
    """Adds `sum_j (alpha_j + beta_j f_j(x)) * write_j` for some latents j."""

    sae: SparseAutoencoder
    latents: tuple[int, ...]

    @abstractmethod
    def amounts(self) -> tuple[Sequence[float], Sequence[float]]:
        """The alpha and beta of each latent."""

    @property
    def width(self) -> int:
        return self.sae.d_model

    @property
    def home(self) -> HookPoint | None:
        return self.sae.hook_point

    @property
    def touches(self) -> frozenset[Hashable]:
        return _touched(self.sae, self.latents)

    def written(self) -> list[tuple[Tensor, Hashable]]:
        """The direction that each latent's amount is added along."""
        return [(self.sae.W_dec[j].detach(), (id(self.sae), j)) for j in self.latents]

    def terms(self) -> Sequence[Term]:
        if not isinstance(self.sae, ThresholdedSAE):
            return ()
        terms = []
        for j, alpha, beta, (write, key) in zip(
            self.latents, *self.amounts(), self.written(), strict=True
        ):
            read = self.sae.W_enc_T[j].detach()
            shift = self.sae.b_dec.detach().double() @ read.double()
            terms.append(
                Term(
                    write=write,
                    write_key=key,
                    read=read,
                    read_key=(id(self.sae), j),
                    bias=float(self.sae.b_enc.detach()[j]) - float(shift),
                    threshold=float(self.sae.threshold.detach()[j]),
                    alpha=alpha,
                    beta=beta,
                )
            )
        return terms

    def change(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        own = x.to(self.sae.W_dec.dtype)
        latents = self.sae.encode_latents(own, torch.tensor(self.latents, device=x.device))
        alpha, beta = (latents.new_tensor(list(numbers)) for numbers in self.amounts())
        write = torch.stack([direction for direction, _ in self.written()]).to(own)
        return ((alpha + beta * latents) @ write).to(x.dtype)


class SetLatent(LatentEdit):
    """Sets one latent, or several, to a value each."""

    def __init__(
        self,
        sae: SparseAutoencoder,
        latent: int | Sequence[int],
        value: float | Sequence[float],
    ) -> None:
        self.sae, self.latents = sae, latents_of(sae, latent)
        self.values = latent_numbers(value, self.latents, "values")

    def amounts(self) -> tuple[Sequence[float], Sequence[float]]:
        return self.values, [-1.0] * len(self.values)

    @property
    def key(self) -> Hashable:
        return ("set", id(self.sae), self.latents, self.values)


class ScaleLatent(LatentEdit):
    """Multiplies one latent, or several, by a factor each; 0 removes it, 1 changes nothing."""

    def __init__(
        self,
        sae: SparseAutoencoder,
        latent: int | Sequence[int],
        factor: float | Sequence[float],
    ) -> None:
        self.sae, self.latents = sae, latents_of(sae, latent)
        self.factors = latent_numbers(factor, self.latents, "factors")

    def amounts(self) -> tuple[Sequence[float], Sequence[float]]:
        return [0.0] * len(self.factors), [factor - 1 for factor in self.factors]

    @property
    def key(self) -> Hashable:
        return ("scale", id(self.sae), self.latents, self.factors)


class SetRandomLatent(LatentEdit):
    """The control of a `SetLatent` or `ScaleLatent`: the same amount, along the decoder of another
    latent.

    At every position each latent's share has exactly the norm that it has in the original. The
    other latent is drawn from those of the most similar density, if densities are given, or from
    all.
    """

    def __init__(
        self, of: SetLatent | ScaleLatent, seed: int, density: Float[Tensor, " s"] | None = None
    ) -> None:
        self.sae, self.latents, self.of, self.seed = of.sae, of.latents, of, seed
        self.others = _others(of, seed, density)

    def amounts(self) -> tuple[Sequence[float], Sequence[float]]:
        return self.of.amounts()

    def written(self) -> list[tuple[Tensor, Hashable]]:
        found = []
        for j, other in zip(self.latents, self.others, strict=True):
            own, theirs = self.sae.W_dec[j].detach(), self.sae.W_dec[other].detach()
            found.append((theirs / theirs.norm() * own.norm(), ("as", id(self.sae), j, other)))
        return found

    @property
    def touches(self) -> frozenset[Hashable]:
        return _touched(self.sae, self.others)

    @property
    def key(self) -> Hashable:
        return ("random", self.of.key, self.others)


class SetLatentAlong(LatentEdit):
    """The control of a `SetLatent` of one latent: the same amount along a direction that is given,
    whose length does not matter.
    """

    def __init__(self, of: SetLatent, direction: Float[Tensor, " d_model"]) -> None:
        if len(of.latents) != 1:
            raise InterventionError(f"One latent is set along a direction, not {len(of.latents)}.")
        self.sae, self.latents, self.of = of.sae, of.latents, of
        self.direction = unit_direction(of.sae, direction, type(self).__name__)

    def amounts(self) -> tuple[Sequence[float], Sequence[float]]:
        return self.of.amounts()

    def written(self) -> list[tuple[Tensor, Hashable]]:
        own = self.sae.W_dec[self.latents[0]].detach()
        return [(self.direction.to(own) * own.norm(), self.key)]

    @property
    def touches(self) -> frozenset[Hashable]:
        return frozenset()

    @property
    def key(self) -> Hashable:
        return ("along", self.of.key, self.direction.numpy().tobytes())


@dataclass(frozen=True, eq=False)
class ReconstructionOnly(Edit):
    """Puts the SAE's reconstruction in the place of the activation and edits no latent: what
    a patch would do by the error of the SAE alone if it did not keep it.
    """

    sae: SparseAutoencoder

    @property
    def width(self) -> int:
        return self.sae.d_model

    @property
    def home(self) -> HookPoint | None:
        return self.sae.hook_point

    @property
    def touches(self) -> frozenset[Hashable]:
        return frozenset({WHOLE})

    @property
    def key(self) -> Hashable:
        return ("reconstruction", id(self.sae))

    def change(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        return self.sae(x.to(self.sae.W_dec.dtype)).to(x.dtype) - x


def latent_block(
    sae: SparseAutoencoder,
    point: HookPoint,
    latents: Int[Tensor, " edits"],
    values: Float[Tensor, " edits"],
) -> TermBlock:
    """`SetLatent(sae, latents[i], values[i])` for every i, as tensors."""
    if not isinstance(sae, ThresholdedSAE):
        raise InterventionError(
            f"In {_name(sae)} latents depend on each other, so they cannot be set by one product "
            "each. Give a list of {point: SetLatent(...)} instead."
        )
    if sae.hook_point not in (None, point):
        raise MismatchError(f"{_name(sae)} was to be used at {point}.")
    if len(values) != len(latents):
        raise InterventionError(f"There are {len(latents)} latents and {len(values)} values.")
    for latent in latents.aminmax() if len(latents) else ():
        check_latent(sae, int(latent))
    if not bool(values.isfinite().all()):
        raise InterventionError("Values of latents must be finite numbers.")
    read, threshold = sae.W_enc_T.detach()[latents], sae.threshold.detach()[latents]
    # In float64, whatever the weights are in: the block is brought to the precision of its use.
    bias = sae.b_enc.detach()[latents].double() - read.double() @ sae.b_dec.detach().double()
    return TermBlock(
        point=point,
        read=read,
        write=sae.W_dec.detach()[latents],
        bias=bias,
        threshold=threshold,
        alpha=values.to(bias),
        beta=torch.full_like(bias, -1.0),
    )


def check_latent(sae: SparseAutoencoder, latent: int) -> None:
    """Raises `InterventionError` unless the SAE has this latent."""
    if not 0 <= latent < sae.d_sae:
        raise InterventionError(
            f"There is no latent {latent}: {_name(sae)} has latents 0 to {sae.d_sae - 1}."
        )


def unit_direction(
    sae: SparseAutoencoder, direction: Float[Tensor, " d_model"], name: str
) -> Float[Tensor, " d_model"]:
    """In float64 at norm 1; raises `InterventionError` unless it is one of the SAE's width."""
    check_direction(direction, name)
    if len(direction) != sae.d_model:
        raise InterventionError(
            f"{_name(sae)} is {sae.d_model} wide, the direction {len(direction)}."
        )
    # Twice, because the square of a huge number, or of a tiny one, is no number.
    exact = direction.detach().cpu().double()
    exact = exact / exact.abs().max()
    return exact / exact.norm()


def latents_of(sae: SparseAutoencoder, latent: int | Sequence[int]) -> tuple[int, ...]:
    found = (latent,) if isinstance(latent, int) else tuple(int(j) for j in latent)
    if not found:
        raise InterventionError("No latent was given; name at least one.")
    for j in found:
        check_latent(sae, j)
    if len(set(found)) < len(found):
        raise InterventionError(f"A latent is named twice in {list(found)}.")
    return found


def latent_numbers(
    given: float | Sequence[float], latents: tuple[int, ...], name: str
) -> tuple[float, ...]:
    found = (float(given),) * len(latents) if isinstance(given, int | float) else tuple(given)
    if len(found) != len(latents):
        raise InterventionError(
            f"There are {len(latents)} latents and {len(found)} {name}; give one for each."
        )
    for number in found:
        check_number(number, f"One of the {name}")
    return tuple(float(number) for number in found)


def _others(
    of: SetLatent | ScaleLatent, seed: int, density: Float[Tensor, " s"] | None
) -> tuple[int, ...]:
    d_sae = of.sae.d_sae
    if density is not None and density.shape != (d_sae,):
        raise InterventionError(
            f"density must have one number a latent, [{d_sae}]; got {tuple(density.shape)}."
        )
    taken = set(of.latents)
    chosen: list[int] = []
    for j in of.latents:
        free = torch.tensor([k for k in range(d_sae) if k not in taken])
        if len(free) == 0:
            raise InterventionError(
                f"{_name(of.sae)} has {d_sae} latents, too few for a random one beside "
                f"{len(of.latents)} that are set."
            )
        candidates = free if density is None else _similar(free, density.double().cpu(), j)
        draw = stream(seed, "random latent", j).integers(len(candidates))
        chosen.append(int(candidates[draw]))
        taken.add(chosen[-1])
    return tuple(chosen)


def _similar(
    free: Int[Tensor, " some"], density: Float[Tensor, " s"], latent: int
) -> Int[Tensor, " few"]:
    # On a logarithmic scale, where dead latents (density 0) are far from all that live.
    logs = density.clamp(min=1e-12).log()
    distance = (logs[free] - logs[latent]).abs()
    n_few = min(N_CANDIDATES, len(free))
    # All that are as near as the last of them: which of equals comes first means nothing.
    return free[distance <= distance.sort().values[n_few - 1]]


def _touched(sae: SparseAutoencoder, latents: tuple[int, ...]) -> frozenset[Hashable]:
    return frozenset(_Touched(j, id(sae), _name(sae)) for j in latents)


def _name(sae: SparseAutoencoder) -> str:
    where = f" of {sae.hook_point}" if sae.hook_point is not None else ""
    return f"the {sae.architecture} SAE{where}"
