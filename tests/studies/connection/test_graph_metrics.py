from math import log

import pytest
import torch
from connection_forms import connection_of

from fluoroscope.core.seeding import torch_stream
from fluoroscope.studies.connection.network.connections.base import CONNECTIONS
from fluoroscope.studies.connection.network.connections.graph_metrics import (
    GraphMetrics,
    active_ratio,
    connection_sparsity,
    effective_rank,
    entropy,
    graph_metrics,
    hoyer,
    orthogonality_quality,
    pair_singular_values,
    share_that_holds,
    sign_counts,
    sparsity_with_diagonal,
)
from fluoroscope.studies.connection.network.connections.penalties import orthogonality_error

ONE = torch.tensor([[0, 0.005, 3], [0.5, 0, 0], [0.01, 0.485, 0]], dtype=torch.float64)
"""Six pairs: two below the threshold, one on it, three above it; their sum is 4."""

FLAT = 1 - torch.eye(4)
LONELY = torch.zeros(4, 4)
LONELY[1, 2] = 5
NOTHING = torch.zeros(3, 3)


def test_sparsity_counts_pairs_and_the_authors_count_the_diagonal_too():
    assert connection_sparsity(ONE) == 2 / 6
    assert sparsity_with_diagonal(ONE) == 5 / 9
    assert sparsity_with_diagonal(FLAT) == 1 / 4
    assert connection_sparsity(FLAT) == 0


def test_what_is_on_the_threshold_is_neither_active_nor_absent():
    assert active_ratio(ONE) == 3 / 6
    assert connection_sparsity(ONE) == 2 / 6


def test_signs_are_of_active_pairs():
    graph = ONE * torch.tensor([[1.0, 1, -1], [1, 1, 1], [-1, -1, 1]])
    graph[0, 0] = 7
    assert sign_counts(graph, threshold=0.02) == (1, 2)


def test_hoyer_is_between_all_alike_and_one_alone():
    assert hoyer(FLAT) == pytest.approx(0, abs=1e-12)
    assert hoyer(LONELY) == pytest.approx(1)
    length = (3**2 + 0.5**2 + 0.485**2 + 0.01**2 + 0.005**2) ** 0.5
    assert hoyer(ONE) == pytest.approx((6**0.5 - 4 / length) / (6**0.5 - 1))


def test_hoyer_share_and_entropy_do_not_depend_on_the_unit():
    strengths = torch.rand(7, 7, generator=torch_stream(0, "strengths"), dtype=torch.float64)
    for measure in (hoyer, share_that_holds, entropy):
        for unit in (1e-200, 1e200):
            assert measure(unit * strengths) == pytest.approx(measure(strengths), rel=1e-9)


def test_the_diagonal_plays_no_part_but_where_it_is_said_to():
    strengths = torch.rand(5, 5, generator=torch_stream(1, "strengths"))
    other = strengths.clone().fill_diagonal_(9)
    for measure in (
        connection_sparsity,
        active_ratio,
        sign_counts,
        hoyer,
        share_that_holds,
        entropy,
    ):
        assert measure(other) == measure(strengths)


def test_share_that_holds_is_the_fewest_pairs_of_so_much_strength():
    assert share_that_holds(ONE) == 3 / 6
    assert share_that_holds(ONE, held=0.75) == 1 / 6
    assert share_that_holds(LONELY) == 1 / 12
    assert share_that_holds(FLAT, held=1) == 1
    ten_of_twelve = share_that_holds(0.1 * FLAT, held=10 / 12)
    assert ten_of_twelve == 10 / 12


def test_entropy_is_of_shares():
    assert entropy(FLAT) == pytest.approx(log(12))
    assert entropy(LONELY) == 0
    halves = torch.tensor([[0, 2.0], [2, 0]])
    assert entropy(halves) == pytest.approx(log(2))


@pytest.mark.parametrize("nothing", [NOTHING, torch.zeros(1, 1)])
def test_a_graph_without_connections_is_sparse_and_not_a_nan(nothing):
    assert connection_sparsity(nothing) == 1
    assert hoyer(nothing) == 1
    assert active_ratio(nothing) == share_that_holds(nothing) == entropy(nothing) == 0
    assert sign_counts(nothing) == (0, 0)


def test_quality_is_one_of_no_error():
    assert orthogonality_quality(0) == 1
    assert orthogonality_quality(3) == 0.25


def test_effective_rank_counts_equal_singular_values():
    values = torch.tensor([[2.0, 2, 2, 0], [5, 0, 0, 0], [0, 0, 0, 0], [3, 1, 0, 0]])
    assert effective_rank(values).tolist() == pytest.approx([3, 1, 0, 16 / 10])


def test_singular_values_of_pairs_are_those_of_their_maps():
    connection = connection_of("bilinear", rank=3)
    W_s, W_t = connection.pair_weights()
    exact = torch.linalg.svdvals(W_s.detach() @ W_t.detach())[..., :3].flip(-1)
    found = pair_singular_values(connection.W_s, connection.W_t)
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-7)
    strengths = found.square().sum(-1).sqrt()
    torch.testing.assert_close(strengths, connection.strengths().detach())


def test_a_map_of_lower_rank_than_it_may_have_is_found_out():
    connection = connection_of("bilinear", rank=3)
    with torch.no_grad():
        connection.W_s[:, :, :, 1:] = 0
    ranks = effective_rank(pair_singular_values(connection.W_s, connection.W_t))
    expected = 1 - torch.eye(len(ranks), dtype=torch.float64)
    torch.testing.assert_close(ranks, expected, rtol=1e-5, atol=1e-5)


def test_ranks_are_of_maps_and_angles_of_vectors_alone():
    bilinear = connection_of("bilinear", rank=3)
    with torch.no_grad():
        bilinear.W_s[:, :, :, 1:] = 0
    found = graph_metrics(bilinear)
    assert found.effective_rank == pytest.approx(1, rel=1e-5)
    assert found.orthogonality_quality is None
    scalar = connection_of("scalar", rank=3)
    found = graph_metrics(scalar)
    assert found.effective_rank is None
    errors = [orthogonality_error(vectors).item() for vectors in (scalar.W_s, scalar.W_t)]
    assert found.orthogonality_quality == pytest.approx(1 / (1 + sum(errors) / 2))


def test_of_many_vectors_angles_are_those_of_a_sample_which_is_always_the_same():
    scalar = connection_of("scalar", n=40, rank=4)
    found = graph_metrics(scalar)
    errors = [orthogonality_error(vectors).item() for vectors in (scalar.W_s, scalar.W_t)]
    assert found.orthogonality_quality == pytest.approx(1 / (1 + sum(errors) / 2), rel=0.02)
    assert graph_metrics(scalar) == found


@pytest.mark.parametrize("name", CONNECTIONS)
def test_every_form_has_its_metrics(name):
    connection = connection_of(name, n_heads=1)
    found = graph_metrics(connection)
    strengths = connection.strengths().detach()
    assert found.hoyer == hoyer(strengths)
    assert found.sparsity_with_diagonal >= found.connection_sparsity
    graph = connection.graph()
    if graph is None:
        assert found.n_positive is found.n_negative is None
    else:
        assert (found.n_positive, found.n_negative) == sign_counts(graph)
        assert (found.n_positive + found.n_negative) / 20 == found.active_ratio


def test_what_connects_nothing_has_the_metrics_of_nothing():
    for name in ("none", "linear_feature"):
        assert graph_metrics(connection_of(name)) == GraphMetrics(
            connection_sparsity=1,
            sparsity_with_diagonal=1,
            active_ratio=0,
            hoyer=1,
            share_that_holds=0,
            entropy=0,
            n_positive=None,
            n_negative=None,
            effective_rank=None,
            orthogonality_quality=None,
        )
