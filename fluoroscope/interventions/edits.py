"""What can be done to an activation, as pure functions of it.

Every edit adds something to the activation x, so edits of one place add up in any order. Most
add one or a few directions, by an amount that one product with x decides:

    x + [alpha + beta * act(x . read + bias) + gamma * |x|] * write - kappa * x

where act passes what exceeds `threshold` and is 0 elsewhere. Such an edit states its `Term`s,
and thousands of different ones are applied to the rows of one batch by a gather and an add
(`row_edits`). Other edits are called with the rows that they belong to.

Axes: *n any leading axes, d_model.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import InterventionError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.models.hook_points import HookPoint

WHOLE = "the whole activation"
"""What an edit touches that leaves nothing of the activation as it is."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Term:
    """One direction, and how much of it is added."""

    write: Float[Tensor, " d_model"]
    write_key: Hashable
    """Terms with the same key share one copy of `write`."""

    read: Float[Tensor, " d_model"] | None = None
    read_key: Hashable = None
    bias: float = 0.0
    threshold: float = -math.inf
    alpha: float = 0.0
    beta: float = 0.0
    gamma: float = 0.0
    kappa: float = 0.0

    def change(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        """What this term adds to `x`, which is in float32 or better."""
        amount = torch.full_like(x[..., :1], self.alpha)
        if self.read is not None:
            pre = (x @ self.read.to(x) + self.bias).unsqueeze(-1)
            amount = amount + self.beta * torch.where(pre > self.threshold, pre, 0)
        if self.gamma:
            amount = amount + self.gamma * x.norm(dim=-1, keepdim=True)
        return amount * self.write.to(x) - (self.kappa * x if self.kappa else 0)


class Edit(ABC):
    """A pure function of an activation: a sum of terms, or a `change` of its own."""

    @property
    @abstractmethod
    def width(self) -> int:
        """`d_model` of the activations that it edits."""

    def terms(self) -> Sequence[Term]:
        """What is added, as terms; empty where `change` says it."""
        return ()

    def change(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        """What is added to `x`, which is in float32 or better."""
        total = torch.zeros_like(x)
        for term in self.terms():
            total = total + term.change(x)
        return total

    def __call__(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        exact = x.to(_precision(x))
        return (exact + self.change(exact)).to(x.dtype)

    @property
    def home(self) -> HookPoint | None:
        """The only hook point where it makes sense, if there is one."""
        return None

    @property
    def touches(self) -> frozenset[Hashable]:
        """What no other edit of the same place may touch; `WHOLE` allows no other at all."""
        return frozenset()

    @property
    def key(self) -> Hashable:
        """Edits with one key do the same; what they do is computed once where that is possible."""
        return id(self)


@dataclass(frozen=True, eq=False)
class AddDirection(Edit):
    """Adds `coefficient * direction`."""

    direction: Float[Tensor, " d_model"]
    coefficient: float = 1.0
    is_relative: bool = False
    """Whether the coefficient is in units of the activation's norm, along the direction scaled to
    norm 1; then the same number means the same in every layer and model."""

    def __post_init__(self) -> None:
        check_direction(self.direction, "AddDirection", allow_zero=not self.is_relative)
        check_number(self.coefficient, "The coefficient of AddDirection")

    @property
    def width(self) -> int:
        return self.direction.shape[0]

    def terms(self) -> list[Term]:
        if self.is_relative:
            key = ("unit", id(self.direction))
            return [Term(write=_unit(self.direction), write_key=key, gamma=self.coefficient)]
        return [Term(write=self.direction, write_key=id(self.direction), alpha=self.coefficient)]

    @property
    def key(self) -> Hashable:
        return ("add", id(self.direction), self.coefficient, self.is_relative)


@dataclass(frozen=True, eq=False)
class AblateDirection(Edit):
    """Removes the component along a direction (of any norm), or along all of several: the
    activation's projection on their span.
    """

    directions: Float[Tensor, "d_model"] | Float[Tensor, "m d_model"]

    def __post_init__(self) -> None:
        rows = self.directions.reshape(-1, self.directions.shape[-1])
        if len(rows) == 0:
            raise InterventionError("AblateDirection got no direction; give at least one.")
        for row in rows:
            check_direction(row, "AblateDirection")
        if torch.linalg.matrix_rank(rows.double()) < len(rows):
            raise InterventionError(
                f"AblateDirection got {len(rows)} directions that depend on each other. Leave "
                "out those that are sums of others."
            )

    @property
    def width(self) -> int:
        return self.directions.shape[-1]

    def terms(self) -> list[Term]:
        rows = self.directions.reshape(-1, self.directions.shape[-1])
        # Orthonormal directions of the same span are removed one by one.
        basis = torch.linalg.qr(rows.double().T).Q.T.to(_precision(rows))
        keys = [("basis", id(self.directions), i) for i in range(len(basis))]
        return [
            Term(write=unit, write_key=key, read=unit, read_key=key, beta=-1.0)
            for unit, key in zip(basis, keys, strict=True)
        ]

    @property
    def touches(self) -> frozenset[Hashable]:
        # Two ablations of directions that are not orthogonal do not add up.
        return frozenset({"ablated directions; give them to one AblateDirection"})

    @property
    def key(self) -> Hashable:
        return ("ablate", id(self.directions))


@dataclass(frozen=True, eq=False)
class Replace(Edit):
    """Puts `value` in the place of the activation."""

    value: Float[Tensor, " d_model"]

    def __post_init__(self) -> None:
        check_direction(self.value, type(self).__name__, allow_zero=True)

    @property
    def width(self) -> int:
        return self.value.shape[0]

    def terms(self) -> list[Term]:
        return [Term(write=self.value, write_key=id(self.value), alpha=1.0, kappa=1.0)]

    @property
    def touches(self) -> frozenset[Hashable]:
        return frozenset({WHOLE})

    @property
    def key(self) -> Hashable:
        return ("replace", id(self.value))


class MeanAblate(Replace):
    """Puts the mean activation over some data in the place of the activation: what this place
    says of this input is gone, what it always says is kept.
    """


@dataclass(frozen=True, eq=False)
class RandomDirection(Edit):
    """The control of an `AddDirection`: another direction of the same norm, by the same amount.

    Uniform on the sphere; `seed` says which.
    """

    of: AddDirection
    seed: int

    @property
    def width(self) -> int:
        return self.of.width

    def terms(self) -> list[Term]:
        original = self.of.direction
        noise = torch.randn(original.shape, generator=torch_stream(self.seed, "random direction"))
        exact = original.to(_precision(original))
        noise = _unit(noise.to(exact)) * exact.norm()
        (term,) = AddDirection(noise, self.of.coefficient, self.of.is_relative).terms()
        key = ("random direction", id(original), self.seed, self.of.is_relative)
        return [Term(write=term.write, write_key=key, alpha=term.alpha, gamma=term.gamma)]

    @property
    def key(self) -> Hashable:
        return ("random", self.of.key, self.seed)


def check_conflicts(edits: list[Edit], place: str) -> None:
    """Raises `InterventionError` where two edits of one place cannot both hold."""
    touched: set[Hashable] = set()
    for edit in edits:
        if len(edits) > 1 and WHOLE in edit.touches:
            raise InterventionError(
                f"{type(edit).__name__} at {place} leaves nothing for another edit of the same "
                f"place to act on, and there are {len(edits)} edits. Keep one of them."
            )
        both = touched & edit.touches
        if both:
            raise InterventionError(
                f"Two edits at {place} contradict each other: both touch "
                f"{next(iter(both))}. Keep one of them."
            )
        touched |= edit.touches


def check_direction(
    direction: Float[Tensor, " d_model"], name: str, allow_zero: bool = False
) -> None:
    """Raises `InterventionError` unless it is a finite vector, and not 0."""
    if direction.ndim != 1 or not direction.is_floating_point():
        raise InterventionError(
            f"{name} needs a vector [d_model] of floats, got {tuple(direction.shape)} of "
            f"{direction.dtype}."
        )
    if not bool(direction.isfinite().all()):
        raise InterventionError(f"{name} got a vector with NaN or infinite entries.")
    if not allow_zero and not bool(direction.any()):
        raise InterventionError(f"{name} got a vector of zeros, which has no direction.")


def _unit(direction: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
    # In float32 or better: half precision changes the length of a unit vector by half a percent.
    exact = direction.to(_precision(direction))
    return exact / exact.norm()


def _precision(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)


def check_number(value: float, name: str) -> None:
    """Raises `InterventionError` for NaN and infinities."""
    if not math.isfinite(value):
        raise InterventionError(f"{name} must be a finite number, got {value}.")
