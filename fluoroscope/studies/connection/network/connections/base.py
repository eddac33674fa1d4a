"""Connection: what each slot hears of the others in one step of thought.

A form is one file and one line in `CONNECTIONS`. Its operator is I_t of the plan, before the ReLU:
`I[b, j] = sum over i of (what slot j hears of S[b, i])`, from source i to target j everywhere.
Forms draw their weights from torch's default generator, which the caller seeds. Where the plan
leaves the scale open, slots whose entries have variance 1, as behind a norm, hear something of
variance 1, so that a step changes a state without drowning it.

Axes: b texts, n slots (i sources, j targets), d width, r rank, m bases, h heads.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.registry import Registry
from fluoroscope.studies.connection.network.network_config import ConnectionConfig

Slots = Float[Tensor, "b n d"]
Operator = Callable[[Slots], Slots]

_HERE = "fluoroscope.studies.connection.network.connections"


class Connection(nn.Module, ABC):
    """Made of the width of slots, their number, and what `config` says of the form."""

    is_blind_to_itself: ClassVar[bool] = True
    """Whether what slot j hears does not depend on slot j at all, to the last bit."""

    is_linear: ClassVar[bool] = True
    """Whether the operator is a linear map of the slots."""

    is_bounded: ClassVar[bool] = False
    """Whether the form has a matrix that `config.largest` bounds."""

    def __init__(self, d_model: int, n_slots: int, config: ConnectionConfig) -> None:
        super().__init__()
        if config.largest is not None and not self.is_bounded:
            raise ConfigError(
                f"Connection form {config.name!r} has no matrix that largest={config.largest} "
                f"could bound; leave it null."
            )
        self.d_model, self.n_slots, self.config = d_model, n_slots, config

    @abstractmethod
    def operator(self) -> Operator:
        """What makes I of S, for all steps of a pass: what is the same in each is computed here,
        once, with the gradients and the autocast of now. Evaluation and training are the same.
        """

    @abstractmethod
    def strengths(self) -> Float[Tensor, "n n"]:
        """How strongly i reaches j, not negative and exactly 0 for i = j, with gradients.

        The Frobenius norm of the map of the pair, or |c_ij| where the map is c_ij times the
        identity: of the plan's forms each in its own unit. What depends on the input is not in it.
        """

    def graphs(self) -> Float[Tensor, "h n n"] | None:
        """The signed c_ij as the operator uses them, of each part of the width that has its own;
        None unless the (static) operator is these graphs and nothing else. With gradients.
        """
        return None

    def graph(self) -> Float[Tensor, "n n"] | None:
        """The signed c_ij; None where there is none, or more than one."""
        graphs = self.graphs()
        return graphs[0] if graphs is not None and len(graphs) == 1 else None


CONNECTIONS: Registry[type[Connection]] = Registry(
    "Connection form",
    {
        "none": f"{_HERE}.none:NoConnection",
        "linear_feature": f"{_HERE}.linear_feature:LinearFeature",
        "linear_slot": f"{_HERE}.linear_slot:LinearSlot",
        "bilinear": f"{_HERE}.bilinear:Bilinear",
        "scalar": f"{_HERE}.scalar:Scalar",
        "shared_basis": f"{_HERE}.shared_basis:SharedBasis",
        "node_factor": f"{_HERE}.node_factor:NodeFactor",
        "top_k": f"{_HERE}.top_k:TopK",
        "gated": f"{_HERE}.gated:Gated",
    },
)


def make_connection(d_model: int, n_slots: int, config: ConnectionConfig) -> Connection:
    """The form that `config` names."""
    return CONNECTIONS.load(config.name)(d_model, n_slots, config)


def is_pair(n_slots: int, like: Tensor) -> Bool[Tensor, "n n"]:
    """True for i other than j, where `like` is."""
    return ~torch.eye(n_slots, dtype=torch.bool, device=like.device)


def mix(graph: Float[Tensor, "*h n n"], slots: Float[Tensor, "*batch n d"]) -> Tensor:
    """`sum over i of graph[i, j] slots[i]`, for all j."""
    return graph.transpose(-1, -2) @ slots


def full_precision(like: Tensor) -> torch.autocast:
    """No half precision within: squares and norms need float32, whatever runs around them."""
    return torch.autocast(like.device.type, enabled=False)


def at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def safe_sqrt(squares: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """The root, with gradient 0 at and below 0, where rounding may leave a square."""
    positive = squares > 0
    return torch.where(positive, squares, 1).sqrt() * positive
