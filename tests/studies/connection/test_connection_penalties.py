import pytest
import torch
from connection_forms import N, connection_of

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.studies.connection.network.connections.base import CONNECTIONS
from fluoroscope.studies.connection.network.connections.penalties import (
    l0_sparsity,
    l1_sparsity,
    operator_norm,
    orthogonality_error,
    pair_regulariser,
    sampled_orthogonality_error,
    scalar_regulariser,
    spectral_penalty,
    unit_norm_error,
)
from fluoroscope.studies.connection.network.connections.spectral import bounded, spectral_norm

LINEAR = [name for name in CONNECTIONS if CONNECTIONS.load(name).is_linear]
CONNECTING = [name for name in CONNECTIONS if name not in ("none", "linear_feature")]


def vectors_of(n, r, seed=0):
    return torch.randn(n, n, r, generator=torch_stream(seed, "vectors"), dtype=torch.float64)


def of_pairs(vectors):
    n = len(vectors)
    return torch.stack([vectors[i, j] for i in range(n) for j in range(n) if i != j])


def draws(seed=0):
    return torch_stream(seed, "draws")


def test_norms_are_of_pairs_alone():
    vectors = torch.zeros(3, 3, 2, dtype=torch.float64)
    assert unit_norm_error(vectors) == 1
    vectors[0, 1] = torch.tensor([3.0, 4.0])
    assert unit_norm_error(vectors).item() == pytest.approx((16 + 5) / 6)
    vectors.diagonal(dim1=0, dim2=1).fill_(9)
    assert unit_norm_error(vectors).item() == pytest.approx((16 + 5) / 6)


@pytest.mark.parametrize("n", [2, 5, 16])  # 2, 20 and 240 vectors: one chunk, and two
def test_angles_are_of_all_different_vectors(n):
    vectors = vectors_of(n, 3)
    flat = of_pairs(vectors)
    products = [(a @ b) ** 2 for i, a in enumerate(flat) for j, b in enumerate(flat) if i != j]
    expected = torch.stack(products).mean()
    torch.testing.assert_close(orthogonality_error(vectors), expected, rtol=1e-12, atol=1e-12)


def test_sampled_angles_are_without_bias_and_never_of_a_vector_with_itself():
    vectors = vectors_of(5, 3)
    estimate = sampled_orthogonality_error(vectors, 200_000, draws())
    assert estimate.item() == pytest.approx(orthogonality_error(vectors).item(), rel=0.02)
    orthogonal = torch.zeros(2, 2, 2, dtype=torch.float64)
    orthogonal[0, 1, 0] = orthogonal[1, 0, 1] = 1
    assert sampled_orthogonality_error(orthogonal, 500, draws()) == 0


def test_sampled_angles_come_from_their_generator_alone():
    vectors = vectors_of(5, 3)
    first = sampled_orthogonality_error(vectors, 9, draws(1))
    torch.rand(5)
    assert sampled_orthogonality_error(vectors, 9, draws(1)) == first
    assert sampled_orthogonality_error(vectors, 9, draws(2)) != first


@pytest.mark.parametrize("n", [32, 33])  # 992 vectors, of which all are compared, and 1056
def test_the_regulariser_of_scalars_weighs_norms_and_angles_as_the_authors(n):
    connection = connection_of("scalar", n=n)
    with torch.no_grad():
        connection.W_s.mul_(1.5)
    found = scalar_regulariser(connection, draws())
    both, stream = (connection.W_s, connection.W_t), draws()
    if n == 32:
        angles = [orthogonality_error(vectors) for vectors in both]
    else:
        angles = [sampled_orthogonality_error(vectors, 500, stream) for vectors in both]
    torch.testing.assert_close(found, 0.5 * (0.5**2 + 0) + 0.1 * sum(angles) / 2)
    found.backward()
    for weight in both:
        assert weight.grad.diagonal(dim1=0, dim2=1).count_nonzero() == 0
        assert weight.grad.isfinite().all()
        assert weight.grad.any()


def test_signs_are_what_the_authors_regulariser_wants_of_rank_one():
    """Its two parts contradict each other: norms of 1 are angles of 1."""
    connection = connection_of("scalar", rank=1)
    assert scalar_regulariser(connection, draws()).item() == pytest.approx(0.1, rel=1e-6)


def test_the_regulariser_of_pairs_is_that_of_their_matrices():
    connection = connection_of("bilinear")
    one, (W_s, W_t) = torch.eye(3, dtype=torch.float64), connection.pair_weights()
    expected = [
        ((W_s[i, j].T @ W_s[i, j] - one).norm() ** 2 + (W_t[i, j] @ W_t[i, j].T - one).norm() ** 2)
        / 2
        for i in range(N)
        for j in range(N)
        if i != j
    ]
    found = pair_regulariser(connection)
    torch.testing.assert_close(found, torch.stack(expected).mean())
    found.backward()
    assert connection.W_t.grad.diagonal(dim1=0, dim2=1).count_nonzero() == 0
    assert connection.W_t.grad.any()


def test_orthonormal_maps_cost_nothing():
    connection = connection_of("bilinear")
    with torch.no_grad():
        for weight in (connection.W_s.permute(0, 2, 1, 3), connection.W_t.mT):
            weight.copy_(torch.linalg.qr(torch.randn(weight.shape, dtype=torch.float64)).Q)
    assert pair_regulariser(connection).item() == pytest.approx(0, abs=1e-12)


def test_regularisers_are_refused_to_forms_that_have_not_what_they_are_of():
    with pytest.raises(ConfigError, match=r"of the form 'scalar', got 'bilinear'"):
        scalar_regulariser(connection_of("bilinear"), draws())
    with pytest.raises(ConfigError, match=r"of the form 'bilinear', got 'scalar'"):
        pair_regulariser(connection_of("scalar"))


@pytest.mark.parametrize("name", CONNECTIONS)
def test_sparsities_are_means_over_pairs(name):
    connection = connection_of(name)
    strengths = connection.strengths()
    n_pairs = N * (N - 1)
    torch.testing.assert_close(l1_sparsity(connection), strengths.sum() / n_pairs)
    smooth = strengths**2 / (strengths**2 + 0.3**2)
    torch.testing.assert_close(l0_sparsity(connection, 0.3), smooth.sum() / n_pairs)


@pytest.mark.parametrize("name", CONNECTING)
@pytest.mark.parametrize("penalty", [l1_sparsity, l0_sparsity])
def test_a_step_down_a_sparsity_weakens_connections(name, penalty):
    connection = connection_of(name)
    before = penalty(connection)
    gradients = torch.autograd.grad(before, list(connection.parameters()), allow_unused=True)
    with torch.no_grad():
        for weight, gradient in zip(connection.parameters(), gradients, strict=True):
            if gradient is not None:
                assert gradient.isfinite().all()
                weight -= 1e-3 * gradient / gradient.norm()
        assert penalty(connection) < before


def test_the_smooth_count_is_a_count_where_scales_are_apart():
    connection = connection_of("linear_slot")
    with torch.no_grad():
        connection.C.zero_()
        connection.C[0, 1], connection.C[2, 1], connection.C[3, 3] = 5, -5, 5
    assert l0_sparsity(connection).item() == pytest.approx(2 / 20, rel=1e-4)


@pytest.mark.parametrize("name", LINEAR)
def test_the_norm_of_an_operator_is_that_of_its_matrix(name):
    connection = connection_of(name)
    d, n = connection.d_model, connection.n_slots
    basis = torch.eye(n * d, dtype=torch.float64).view(n * d, n, d)
    exact = torch.linalg.matrix_norm(connection.operator()(basis).flatten(1), ord=2)
    found = operator_norm(connection, n_steps=400)
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-12)
    free = max(exact.item() - 0.1, 0.0)
    expected = (exact.item() - free) ** 2
    assert spectral_penalty(connection, free, 400).item() == pytest.approx(expected, rel=0.05)
    assert spectral_penalty(connection, exact.item() + 0.1) == 0


def test_only_what_is_linear_has_a_norm_and_of_the_rest_the_graphs_are_charged():
    gated = connection_of("gated")
    with pytest.raises(ConfigError, match=r"linear operator.*got 'gated'"):
        operator_norm(gated)
    norms = torch.linalg.matrix_norm(gated.graphs(), ord=2)
    expected = (norms - 0.1).square().mean()
    torch.testing.assert_close(spectral_penalty(gated, 0.1), expected, rtol=0.02, atol=0)


@pytest.mark.parametrize("name", ["bilinear", "scalar", "node_factor", "gated"])
def test_a_step_down_the_spectral_penalty_shortens(name):
    connection = connection_of(name)
    before = spectral_penalty(connection, 0.1)
    gradients = torch.autograd.grad(before, list(connection.parameters()), allow_unused=True)
    with torch.no_grad():
        for weight, gradient in zip(connection.parameters(), gradients, strict=True):
            if gradient is not None:
                weight -= 1e-3 * gradient / gradient.norm()
    assert spectral_penalty(connection, 0.1) < before


@pytest.mark.parametrize("n", [64, 128, 768])
def test_power_iteration_comes_near_the_norm_of_random_matrices_from_below(n):
    for seed in range(3):
        matrix = torch.randn(n, n, generator=torch_stream(seed, "matrix"))
        exact = torch.linalg.matrix_norm(matrix, ord=2).item()
        assert 0.96 * exact <= spectral_norm(matrix).item() <= exact * (1 + 1e-5)


def test_the_gradient_of_a_norm_is_that_of_the_exact_one():
    matrix = torch.diag(torch.tensor([3.0, 1, 0.5])).double() + 0.1 * vectors_of(3, 1)[..., 0]
    matrix.requires_grad_()
    (exact,) = torch.autograd.grad(torch.linalg.matrix_norm(matrix, ord=2), [matrix])
    (found,) = torch.autograd.grad(spectral_norm(matrix), [matrix])
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6)


def test_a_bound_of_nothing_is_nothing_and_has_a_gradient():
    matrix = torch.zeros(2, 4, 4, requires_grad=True)
    held = bounded(matrix, 0.5)
    assert not held.any()
    held.sum().backward()
    assert matrix.grad.isfinite().all()


def test_norms_are_of_float32_in_a_pass_of_half_precision():
    matrix = torch.randn(32, 32, generator=torch_stream(0, "half"))
    connection = connection_of("bilinear", dtype=torch.float32)
    strengths, norm = connection.strengths(), spectral_norm(matrix)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(spectral_norm(matrix), norm)
        assert torch.equal(connection.strengths(), strengths)
        assert l1_sparsity(connection).dtype == torch.float32
