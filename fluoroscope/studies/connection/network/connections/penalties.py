"""What a loss may charge for the weights of a connection; functions of it, with gradients.

The regularisers of the authors are here as they are: the one of the scalar form asks for more unit
vectors at right angles than r dimensions hold, and so undoes the sparsity that it is reported with
(for r = 1 it pulls every |c_ij| to 1). The other penalties ask for one thing each.
"""

from itertools import chain

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.connection.network.connections.base import (
    Connection,
    Slots,
    at_least_float32,
    full_precision,
    is_pair,
)
from fluoroscope.studies.connection.network.connections.bilinear import Bilinear
from fluoroscope.studies.connection.network.connections.pair_maps import pair_grams
from fluoroscope.studies.connection.network.connections.scalar import Scalar
from fluoroscope.studies.connection.network.connections.spectral import (
    N_POWER_STEPS,
    spectral_norm,
    start,
)

Penalty = Float[Tensor, ""]
Vectors = Float[Tensor, "n n r"]

SCALAR_WEIGHT = 0.01
"""Of `scalar_regulariser` in the loss of the authors."""

ORTHOGONALITY_WEIGHT = 0.1
"""Of the angles beside the norms."""

MOST_EXACT_VECTORS = 1000
"""Vectors of which all pairs are looked at; of more a sample."""

N_SAMPLES = 500
ROWS_AT_ONCE = 200


def scalar_regulariser(connection: Connection, draws: torch.Generator) -> Penalty:
    """`mean (||w|| - 1)^2 + 0.1 O` over the vectors of i != j, the mean of W_s and W_t (G2).

    O is the mean squared product of two different vectors: of all for up to 1000, else of 500
    that are drawn from `draws`, a generator of the CPU. Not weighted by `SCALAR_WEIGHT`.
    """
    if not isinstance(connection, Scalar):
        raise ConfigError(f"Unit vectors are asked of the form 'scalar', {_got(connection)}.")
    n_vectors = connection.n_slots * (connection.n_slots - 1)
    with full_precision(connection.W_s):
        both = at_least_float32(connection.W_s), at_least_float32(connection.W_t)
        norms = torch.stack([unit_norm_error(vectors) for vectors in both]).mean()
        if n_vectors <= MOST_EXACT_VECTORS:
            angles = [orthogonality_error(vectors) for vectors in both]
        else:
            angles = [sampled_orthogonality_error(vectors, N_SAMPLES, draws) for vectors in both]
        return norms + ORTHOGONALITY_WEIGHT * torch.stack(angles).mean()


def unit_norm_error(vectors: Vectors) -> Penalty:
    """Mean of `(||w_ij|| - 1)^2` over i != j; 0 of one slot."""
    norms = torch.linalg.vector_norm(vectors, dim=-1)
    return _mean_over_pairs((norms - 1).square())


def orthogonality_error(vectors: Vectors) -> Penalty:
    """Mean of `<w, w'>^2` over all different vectors of i != j, in chunks of 200 rows."""
    numbers = torch.arange(_n_pairs(vectors), device=vectors.device)
    flat = _of_pairs(vectors, numbers)
    total = vectors.new_zeros(())
    for rows in numbers.split(ROWS_AT_ONCE):
        products = flat[rows] @ flat.T
        total = total + products.masked_fill(rows[:, None] == numbers, 0).square().sum()
    return total / max(1, len(flat) * (len(flat) - 1))


def sampled_orthogonality_error(
    vectors: Vectors, n_samples: int, draws: torch.Generator
) -> Penalty:
    """Estimate of `orthogonality_error` of `n_samples` pairs of different vectors, without bias."""
    n_vectors = _n_pairs(vectors)
    if n_vectors < 2:
        return vectors.new_zeros(())
    one = torch.randint(n_vectors, (n_samples,), generator=draws)
    further = torch.randint(1, n_vectors, (n_samples,), generator=draws)
    both = torch.stack([one, (one + further) % n_vectors]).to(vectors.device)
    left, right = _of_pairs(vectors, both)
    return torch.einsum("sr,sr->s", left, right).square().mean()


def pair_regulariser(connection: Connection) -> Penalty:
    """`||W_s^T W_s - 1||_F^2` and `||W_t W_t^T - 1||_F^2`, the mean of both and of i != j.

    What the authors had for maps of pairs before they went over to numbers (between G1 and G2).
    """
    if not isinstance(connection, Bilinear):
        raise ConfigError(f"Orthonormal maps are asked of the form 'bilinear', {_got(connection)}.")
    errors = []
    for grams in pair_grams(connection.W_s, connection.W_t):
        with full_precision(grams[0]):
            one = torch.eye(grams[0].shape[-1], dtype=grams[0].dtype, device=grams[0].device)
            errors.append(sum((gram - one).square().sum((-1, -2)) for gram in grams) / 2)
    return _mean_over_pairs(torch.stack(errors))


def l1_sparsity(connection: Connection) -> Penalty:
    """Mean strength of i != j: the L1 norm of a graph, and of maps that of their norms (a group
    lasso), which takes whole pairs out.
    """
    with full_precision(_like(connection)):
        return _mean_over_pairs(at_least_float32(connection.strengths()))


def l0_sparsity(connection: Connection, scale: float = 0.01) -> Penalty:
    """Share of pairs with a strength well above `scale`: the mean of `s^2 / (s^2 + scale^2)`.

    The smooth count of Geman and McClure (1985): 0 at 0, 1/2 at `scale`, which is the threshold of
    the reported sparsity, and 1 far above it, where it no longer pulls.
    """
    with full_precision(_like(connection)):
        squares = at_least_float32(connection.strengths()).square()
        return _mean_over_pairs(squares / (squares + scale**2))


def spectral_penalty(
    connection: Connection, largest: float = 1.0, n_steps: int = N_POWER_STEPS
) -> Penalty:
    """Square of what the operator's norm is above `largest`; of parts of the width their mean.

    Of a form that is its graphs, their norm; of maps that of the operator as a whole, by
    `n_steps` passes there and back. What depends on the input is not in it.
    """
    with full_precision(_like(connection)):
        graphs = connection.graphs()
        norms = operator_norm(connection, n_steps) if graphs is None else spectral_norm(graphs)
        return functional.relu(norms - largest).square().mean()


def operator_norm(connection: Connection, n_steps: int = N_POWER_STEPS) -> Penalty:
    """Norm of a linear operator as a map of all slots to all slots, with gradients in its weights.

    ConfigError for a form that is not linear.
    """
    if not connection.is_linear:
        raise ConfigError(f"Only a linear operator has a norm of its own, {_got(connection)}.")
    operator = connection.operator()
    n, d = connection.n_slots, connection.d_model
    left = right = start(n * d, _like(connection)).view(1, n, d)
    for _ in range(n_steps):
        with torch.enable_grad():
            probe = right.detach().requires_grad_()
            heard = operator(probe)
        left = _unit(heard.detach())
        # Of a form that hears nothing no gradient comes back.
        back = torch.autograd.grad(heard + 0 * probe, probe, left)[0]
        right = _unit(back)
    return (left * operator(right)).sum()


def _unit(slots: Slots) -> Slots:
    return slots / slots.norm().clamp(min=torch.finfo(slots.dtype).tiny)


def _n_pairs(vectors: Vectors) -> int:
    return len(vectors) * (len(vectors) - 1)


def _of_pairs(vectors: Vectors, numbers: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape r"]:
    """The vectors of pairs i != j by their number, counted row by row."""
    others = max(1, len(vectors) - 1)
    source, place = numbers // others, numbers % others
    return vectors[source, place + (place >= source)]


def _mean_over_pairs(values: Float[Tensor, "n n"]) -> Penalty:
    """Over i != j; 0 of one slot."""
    pairs = is_pair(len(values), values)
    return values.masked_fill(~pairs, 0).sum() / max(1, len(values) * (len(values) - 1))


def _like(connection: Connection) -> Tensor:
    """Where a form is and in which precision, if only for sums in it."""
    tensor = next(chain(connection.parameters(), connection.buffers()))
    return at_least_float32(tensor.detach()[:0])


def _got(connection: Connection) -> str:
    return f"got {connection.config.name!r}"
