"""MoveAlong: brings the component along a direction towards a value, from one side."""

from collections.abc import Hashable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import InterventionError
from fluoroscope.interventions.edits import Edit, Term, check_direction, check_number


@dataclass(frozen=True, eq=False)
class MoveAlong(Edit):
    """Adds `share * relu(target - x . u) * u`, with u the direction at norm 1 (side 1), or the same
    downwards (side -1): what is beyond the target already stays as it is.
    """

    direction: Float[Tensor, " d_model"]
    target: float
    """Component along u."""

    share: float = 1.0
    """1 goes all the way, 1.5 half as far beyond."""

    side: int = 1

    def __post_init__(self) -> None:
        check_direction(self.direction, "MoveAlong")
        check_number(self.target, "The target of MoveAlong")
        check_number(self.share, "The share of MoveAlong")
        if self.side not in (1, -1):
            raise InterventionError(f"The side of MoveAlong is 1 (up) or -1, got {self.side}.")

    @property
    def width(self) -> int:
        return self.direction.shape[0]

    def terms(self) -> list[Term]:
        # Upwards by relu(target - x.u); downwards the same of -u.
        towards = self.side * self.direction.float() / self.direction.float().norm()
        key = id(self.direction)
        return [
            Term(
                write=towards,
                write_key=("towards", key, self.side),
                read=-towards,
                read_key=("short of", key, self.side),
                bias=self.side * self.target,
                threshold=0.0,
                beta=self.share,
            )
        ]

    @property
    def key(self) -> Hashable:
        return ("move", id(self.direction), self.target, self.share, self.side)
