"""What the connections of a network look like, in numbers.

All but the one that is named so leave the diagonal out: a slot does not hear itself, and counting
its zero as a pair adds 1/n to every sparsity. Measures with a threshold depend on the unit of the
strengths; `hoyer`, `share_that_holds` and `entropy` do not. A graph without a single connection,
or a single slot, is as sparse as can be and has no entropy; nothing is NaN.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.studies.connection.network.connections.base import Connection
from fluoroscope.studies.connection.network.connections.bilinear import Bilinear
from fluoroscope.studies.connection.network.connections.pair_maps import (
    SourceMaps,
    TargetMaps,
    pair_grams,
)
from fluoroscope.studies.connection.network.connections.penalties import (
    MOST_EXACT_VECTORS,
    orthogonality_error,
    sampled_orthogonality_error,
)
from fluoroscope.studies.connection.network.connections.scalar import Scalar

THRESHOLD = 0.01
"""Below it a connection counts as none, in the plan and in the authors' code."""

HELD = 0.9
_N_SAMPLES = 100_000

Strengths = Float[Tensor, "n n"]
Graph = Float[Tensor, "n n"]


@dataclass(frozen=True)
class GraphMetrics:
    """Of one connection; each field is the function of its name."""

    connection_sparsity: float
    sparsity_with_diagonal: float
    active_ratio: float
    hoyer: float
    share_that_holds: float
    """Of 90 % of all strength."""

    entropy: float
    """In nats."""

    n_positive: int | None
    """None where connections have no sign."""

    n_negative: int | None

    effective_rank: float | None
    """Mean over pairs; None where pairs have no maps of their own (all but `bilinear`)."""

    orthogonality_quality: float | None
    """Of the vectors of both sides; None where pairs have none (all but `scalar`)."""


def graph_metrics(connection: Connection) -> GraphMetrics:
    """Of a connection as it is now."""
    with torch.no_grad():
        strengths, graph = connection.strengths(), connection.graph()
    n_positive, n_negative = (None, None) if graph is None else sign_counts(graph)
    return GraphMetrics(
        connection_sparsity=connection_sparsity(strengths),
        sparsity_with_diagonal=sparsity_with_diagonal(strengths),
        active_ratio=active_ratio(strengths),
        hoyer=hoyer(strengths),
        share_that_holds=share_that_holds(strengths),
        entropy=entropy(strengths),
        n_positive=n_positive,
        n_negative=n_negative,
        effective_rank=_mean_effective_rank(connection),
        orthogonality_quality=_orthogonality_quality(connection),
    )


def connection_sparsity(strengths: Strengths, threshold: float = THRESHOLD) -> float:
    """Share of pairs i != j with a strength below `threshold`."""
    pairs = _of_pairs(strengths)
    return (pairs < threshold).double().mean().item() if len(pairs) else 1.0


def sparsity_with_diagonal(strengths: Strengths, threshold: float = THRESHOLD) -> float:
    """As the authors' code has it: share of all n^2 entries, the diagonal's zeros among them."""
    return (strengths.double() < threshold).double().mean().item()


def active_ratio(strengths: Strengths, threshold: float = THRESHOLD) -> float:
    """Share of pairs i != j with a strength above `threshold`: `(s > t) / (n (n - 1))`."""
    pairs = _of_pairs(strengths)
    return (pairs > threshold).double().mean().item() if len(pairs) else 0.0


def sign_counts(graph: Graph, threshold: float = THRESHOLD) -> tuple[int, int]:
    """Pairs i != j that are active and positive, and those that are negative."""
    pairs = _of_pairs(graph)
    return int((pairs > threshold).sum()), int((pairs < -threshold).sum())


def hoyer(strengths: Strengths) -> float:
    """`(sqrt(m) - ||s||_1 / ||s||_2) / (sqrt(m) - 1)` of the m pairs (Hoyer 2004): 0 where all are
    equally strong, 1 where one is alone or none is left.
    """
    pairs = _of_pairs(strengths)
    if not pairs.any():
        return 1.0
    # In units of the largest, so that no square under- or overflows.
    pairs = pairs / pairs.max()
    root = len(pairs) ** 0.5
    return ((root - pairs.sum() / pairs.norm()) / (root - 1)).item()


def share_that_holds(strengths: Strengths, held: float = HELD) -> float:
    """Smallest share of pairs whose strengths add up to `held` of the sum of all; 0 of none."""
    pairs = _of_pairs(strengths)
    if not pairs.any():
        return 0.0
    sums = pairs.sort(descending=True).values.cumsum(0)
    # Rounding may leave 0.9 of the sum a bit above what nine of ten equal ones add up to.
    n_fewer = int((sums < held * sums[-1] * (1 - 1e-12)).sum())
    return (n_fewer + 1) / len(pairs)


def entropy(strengths: Strengths) -> float:
    """Of `s / sum s` over the pairs, in nats: from 0 (one pair) to log(n (n - 1)) (all alike)."""
    pairs = _of_pairs(strengths)
    shares = pairs / pairs.sum().clamp(min=torch.finfo(pairs.dtype).tiny)
    return torch.special.entr(shares).sum().item()


def orthogonality_quality(error: float) -> float:
    """`1 / (1 + error)`, as the authors' code has it, of `penalties.orthogonality_error`."""
    return 1 / (1 + error)


def effective_rank(singular_values: Float[Tensor, "*n r"]) -> Float[Tensor, "*n"]:
    """Participation ratio `(sum s)^2 / sum s^2`: r of r equal ones, 1 of one alone, 0 of none."""
    squares = singular_values.square().sum(-1)
    return torch.where(squares > 0, singular_values.sum(-1).square() / squares, 0)


@torch.no_grad()
def pair_singular_values(
    source_maps: SourceMaps, target_maps: TargetMaps
) -> Float[Tensor, "n n r"]:
    """Of `W_s[i, j] W_t[i, j]` for all pairs, from r x r products; of i = j too, the largest last.

    With `G = W_s^T W_s` and `H = W_t W_t^T` these are the roots of the eigenvalues of `R H R^T`,
    where `R^T R = G`. In float64, as each is a root of what rounding adds to.
    """
    found = []
    for into, out_of in pair_grams(source_maps, target_maps, torch.float64):
        values, vectors = torch.linalg.eigh(into)
        root = vectors * values.clamp(min=0).sqrt()[..., None, :]
        found.append(torch.linalg.eigvalsh(root.mT @ out_of @ root).clamp(min=0).sqrt())
    return torch.stack(found)


def _mean_effective_rank(connection: Connection) -> float | None:
    """Seconds for 128 slots of rank 32, on a CPU."""
    if not isinstance(connection, Bilinear):
        return None
    ranks = _of_pairs(effective_rank(pair_singular_values(connection.W_s, connection.W_t)))
    return ranks.mean().item() if len(ranks) else 0.0


@torch.no_grad()
def _orthogonality_quality(connection: Connection) -> float | None:
    if not isinstance(connection, Scalar):
        return None
    errors = []
    for vectors in (connection.W_s, connection.W_t):
        if len(vectors) * (len(vectors) - 1) <= MOST_EXACT_VECTORS:
            errors.append(orthogonality_error(vectors))
        else:
            # The same pairs each time, so that the same network has the same number.
            draws = torch.Generator().manual_seed(0)
            errors.append(sampled_orthogonality_error(vectors, _N_SAMPLES, draws))
    return orthogonality_quality(torch.stack(errors).mean().item())


def _of_pairs(values: Float[Tensor, "n n"]) -> Float[Tensor, " pairs"]:
    """Entries i != j, row by row."""
    pairs = ~torch.eye(len(values), dtype=torch.bool, device=values.device)
    return values.detach().double()[pairs]
