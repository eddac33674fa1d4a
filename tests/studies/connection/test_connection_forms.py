from typing import get_args

import pytest
import torch
from connection_forms import ALL, BOUNDED, D, N, connection_of, slots_of
from torch.utils.checkpoint import checkpoint

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.connection.network import network_config
from fluoroscope.studies.connection.network.connections.base import CONNECTIONS, make_connection
from fluoroscope.studies.connection.network.connections.naive import naive_influence
from fluoroscope.studies.connection.network.network_config import (
    ConnectionConfig,
    ConnectionName,
)

forms = pytest.mark.parametrize("name", list(CONNECTIONS))
forms_and_bounds = pytest.mark.parametrize(("name", "largest"), ALL)
learning = pytest.mark.parametrize("name", [name for name in CONNECTIONS if name != "none"])

OF_PAIRS = {  # The parts of a weight that stand for i = j.
    "bilinear": {"W_s": (0, 2), "W_t": (0, 1)},
    "scalar": {"W_s": (0, 1), "W_t": (0, 1)},
    "shared_basis": {"c": (1, 2)},
    "node_factor": {"c": (0, 1)},
    "top_k": {"c": (0, 1)},
    "gated": {"c": (1, 2)},
}


def thought(influence, slots, n_steps=2):
    """What slots are after some steps, all parts of which matter differently."""
    for _ in range(n_steps):
        slots = (slots + influence(slots)).tanh()
    return slots


def gradients(connection, slots, influence):
    slots = slots.clone().requires_grad_()
    out = thought(influence, slots)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    inputs = [slots, *connection.parameters()]
    return out, torch.autograd.grad((out * weights).sum(), inputs)


def test_every_name_of_the_settings_is_a_form_and_the_other_way_round():
    assert set(CONNECTIONS) == set(get_args(ConnectionName))


@forms_and_bounds
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_fast_is_naive_forward_and_in_all_gradients(name, largest, dtype, tolerance):
    connection = connection_of(name, largest, dtype=dtype)
    slots = slots_of(dtype=dtype)
    fast, fast_gradients = gradients(connection, slots, connection.operator())
    slow, slow_gradients = gradients(
        connection, slots, lambda slots: naive_influence(connection, slots)
    )
    torch.testing.assert_close(fast, slow, rtol=tolerance, atol=tolerance)
    for one, other in zip(fast_gradients, slow_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@forms
def test_a_slot_does_not_hear_itself_where_the_form_says_so(name):
    connection, slots = connection_of(name), slots_of()
    operator = connection.operator()
    before = operator(slots)
    for slot in range(N):
        changed = slots.clone()
        changed[:, slot] = 10 * torch.randn(D, dtype=torch.float64)
        after = operator(changed)
        assert torch.equal(after[:, slot], before[:, slot]) == connection.is_blind_to_itself
        is_deaf = name in ("none", "linear_feature")
        others = [other for other in range(N) if other != slot]
        assert torch.equal(after[:, others], before[:, others]) == is_deaf


@pytest.mark.parametrize("name", OF_PAIRS)
def test_weights_of_a_slot_with_itself_start_at_zero_and_get_no_gradient(name):
    connection = connection_of(name)
    gradients_of = dict(
        zip(
            ["slots", *(name for name, _ in connection.named_parameters())],
            gradients(connection, slots_of(), connection.operator())[1],
            strict=True,
        )
    )
    for weight, (source, target) in OF_PAIRS[name].items():
        for tensor in (connection.get_parameter(weight), gradients_of[weight]):
            own = tensor.diagonal(dim1=source, dim2=target)
            assert torch.equal(own, torch.zeros_like(own))
            assert tensor.count_nonzero() == tensor.numel() - own.numel()


@learning
def test_all_weights_of_different_slots_learn(name):
    connection = connection_of(name)
    _, (_, *of_weights) = gradients(connection, slots_of(), connection.operator())
    for (weight, _), gradient in zip(connection.named_parameters(), of_weights, strict=True):
        assert gradient.isfinite().all()
        if weight not in OF_PAIRS.get(name, ()):
            assert gradient.count_nonzero() == gradient.numel()


@forms_and_bounds
def test_batch_is_one_by_one(name, largest):
    connection, slots = connection_of(name, largest), slots_of()
    operator = connection.operator()
    alone = torch.cat([operator(slots[i : i + 1]) for i in range(len(slots))])
    torch.testing.assert_close(operator(slots), alone, rtol=1e-12, atol=1e-12)


@learning
def test_a_batch_of_no_texts_is_one(name):
    connection, slots = connection_of(name), slots_of(batch=0).requires_grad_()
    heard = connection.operator()(slots)
    assert heard.shape == (0, N, D)
    heard.sum().backward()
    assert all(not weight.grad.any() for weight in connection.parameters())


@forms
def test_operators_are_linear_where_the_form_says_so(name):
    connection = connection_of(name)
    operator, one, other = connection.operator(), slots_of(seed=1), slots_of(seed=2)
    together = operator(2 * one - other)
    is_linear = torch.allclose(together, 2 * operator(one) - operator(other))
    assert is_linear == connection.is_linear


@forms_and_bounds
def test_looking_changes_nothing_and_training_is_evaluation(name, largest):
    connection, slots = connection_of(name, largest), slots_of()
    state = {key: tensor.clone() for key, tensor in connection.state_dict().items()}
    in_training = connection.train().operator()(slots)
    assert torch.equal(connection.eval().operator()(slots), in_training)
    connection.strengths()
    assert all(torch.equal(state[key], now) for key, now in connection.state_dict().items())
    loaded = connection_of(name, largest, seed=1)
    loaded.load_state_dict(state)
    assert torch.equal(loaded.operator()(slots), in_training)


@forms_and_bounds
def test_strengths_are_what_one_slot_does_to_another(name, largest):
    """Of the operator around slots of zeros, where what depends on the input is silent."""
    connection = connection_of(name, largest)
    jacobian = torch.autograd.functional.jacobian(
        connection.operator(), torch.zeros(1, N, D, dtype=torch.float64)
    )
    effects = jacobian[0, :, :, 0].pow(2).sum((1, 3)).sqrt().T
    if connection.graphs() is not None:
        effects = effects / D**0.5
    strengths = connection.strengths()
    assert torch.equal(strengths.diagonal(), torch.zeros(N, dtype=torch.float64))
    torch.testing.assert_close(strengths, effects.fill_diagonal_(0), rtol=1e-9, atol=1e-12)


@learning
def test_strengths_have_finite_gradients(name):
    connection = connection_of(name)
    strengths = connection.strengths()
    if name == "linear_feature":
        assert not strengths.requires_grad
        return
    found = torch.autograd.grad(strengths.sum(), list(connection.parameters()), allow_unused=True)
    used = [gradient for gradient in found if gradient is not None]
    assert all(gradient.isfinite().all() and gradient.any() for gradient in used)
    assert len(used) == len(found) - 2 * (name == "gated")


@pytest.mark.parametrize("name", ["scalar", "top_k", "linear_slot"])
def test_a_graph_is_signed_and_as_strong_as_it_says(name):
    connection = connection_of(name)
    graph = connection.graph()
    assert (graph > 0).any()
    assert (graph < 0).any()
    off_diagonal = graph - graph.diag().diag()
    assert torch.equal(off_diagonal.abs(), connection.strengths())
    expected = torch.einsum("ij,bid->bjd", graph, slots_of())
    torch.testing.assert_close(connection.operator()(slots_of()), expected)


def test_a_gated_connection_has_one_graph_a_head():
    assert connection_of("gated", n_heads=1).graph().shape == (N, N)
    several = connection_of("gated", n_heads=4)
    assert several.graph() is None
    assert several.graphs().shape == (4, N, N)


@pytest.mark.parametrize(
    "name", ["none", "linear_feature", "bilinear", "shared_basis", "node_factor"]
)
def test_forms_without_a_graph_say_so(name):
    assert connection_of(name).graph() is None


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("none", 0),
        ("linear_feature", D**2),
        ("linear_slot", N**2),
        ("bilinear", 2 * N**2 * D * 3),
        ("scalar", 2 * N**2 * 3),
        ("shared_basis", N**2 * 2 + 2 * 2 * D * 3),
        ("node_factor", 2 * N * D * 3 + N**2),
        ("top_k", N**2),
        ("gated", 2 * N**2 + 2 * D**2),
    ],
)
def test_forms_have_as_many_weights_as_their_formula(name, count):
    assert sum(weight.numel() for weight in connection_of(name).parameters()) == count


@pytest.mark.parametrize(
    ("name", "n", "d", "rank", "count"),
    [
        ("bilinear", 128, 256, 32, 268_435_456),
        ("bilinear", 256, 512, 64, 4_294_967_296),
        ("scalar", 768, 768, 1, 1_179_648),
        ("shared_basis", 128, 256, 32, 262_144),
        ("node_factor", 128, 256, 32, 2_113_536),
    ],
)
def test_published_counts_come_out_without_memory_for_them(name, n, d, rank, count):
    with torch.device("meta"):
        connection = make_connection(d, n, ConnectionConfig(name=name, rank=rank))
    assert sum(weight.numel() for weight in connection.parameters()) == count


@pytest.mark.parametrize(
    ("name", "mean_square"),
    [
        ("bilinear", 63 * 8 * 4 * 32 / (32 + 8) ** 2),
        ("shared_basis", 1),
        ("node_factor", 1),
        ("gated", 1),
    ],
)
def test_forms_start_at_the_scale_that_is_theirs(name, mean_square):
    connection = connection_of(name, n=64, d=32, rank=8, n_bases=4)
    slots = slots_of(batch=16, n=64, d=32)
    found = connection.operator()(slots).square().mean().item()
    assert found == pytest.approx(mean_square, rel=0.15)


@pytest.mark.parametrize("name", ["linear_feature", "linear_slot"])
def test_the_first_connection_layers_start_small(name):
    C = connection_of(name, n=64, d=64).C
    assert C.std().item() == pytest.approx(0.01, rel=0.05)


def test_scalar_connections_start_as_unit_vectors():
    connection = connection_of("scalar", dtype=torch.float32)
    for vectors in (connection.W_s, connection.W_t):
        torch.testing.assert_close(vectors.norm(dim=-1), 1 - torch.eye(N))


def test_scalar_connections_of_rank_one_start_as_signs():
    graph = connection_of("scalar", rank=1).graph()
    assert torch.equal(graph.abs(), 1 - torch.eye(N, dtype=torch.float64))


@pytest.mark.parametrize("name", [name for name in CONNECTIONS if name != "top_k"])
def test_a_slot_alone_hears_no_other(name):
    connection, slots = connection_of(name, n=1), slots_of(n=1)
    heard = connection.operator()(slots)
    assert heard.isfinite().all()
    assert bool(heard.any()) == name.startswith("linear")


def test_top_k_keeps_the_strongest_of_each_source_and_lets_the_others_come_back():
    connection = connection_of("top_k", n=9, k=3)
    graph = connection.graph()
    assert graph.count_nonzero(dim=1).tolist() == [3] * 9
    sizes = connection.c.detach().abs()
    for i in range(9):
        others = sizes[i, [j for j in range(9) if j != i]]
        assert graph[i].abs().min() == 0
        assert graph[i][graph[i] != 0].abs().min() == others.sort(descending=True).values[2]
    (gradient,) = torch.autograd.grad(graph.sum(), [connection.c])
    assert torch.equal(gradient, 1 - torch.eye(9, dtype=torch.float64))


def test_top_k_of_equals_are_the_first_targets():
    connection = connection_of("top_k", k=2)
    with torch.no_grad():
        connection.c.fill_(1)
    assert connection.graph()[0].tolist() == [0, 1, 1, 0, 0]
    assert connection.graph()[1].tolist() == [1, 0, 1, 0, 0]


@pytest.mark.parametrize("name", BOUNDED)
def test_a_bound_shrinks_the_operator_and_leaves_what_is_below_it(name):
    free, slots = connection_of(name), slots_of()
    assert torch.equal(connection_of(name, 1e6).operator()(slots), free.operator()(slots))
    shrunk = connection_of(name, 0.02)
    if name == "linear_feature":
        matrix = shrunk.operator()(torch.eye(D, dtype=torch.float64).expand(1, D, D))[0]
    else:
        matrix = shrunk.graphs()
    norms = torch.linalg.matrix_norm(matrix, ord=2)
    torch.testing.assert_close(norms, torch.full_like(norms, 0.02), rtol=0.01, atol=0)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("bilinear", {"rank": 13}, r"d_model=12.*got rank=13"),
        ("shared_basis", {"rank": 13}, r"d_model=12.*got rank=13"),
        ("node_factor", {"rank": 13}, r"d_model=12.*got rank=13"),
        ("top_k", {"k": 5}, r"4 others of 5 slots, got k=5"),
        ("gated", {"n_heads": 5}, r"multiple of n_heads, got 12 and 5"),
        ("bilinear", {"largest": 1.0}, r"'bilinear' has no matrix that largest=1.0"),
        ("none", {"largest": 1.0}, r"'none' has no matrix"),
    ],
)
def test_settings_that_cannot_be_are_refused(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        connection_of(name, **settings)


def test_unknown_forms_are_named():
    with pytest.raises(ConfigError, match=r"Connection form 'bilinaer'.*Did you mean 'bilinear'"):
        CONNECTIONS.load("bilinaer")


# The rest is of bilinear's own backward pass.


def test_gradients_of_slots_alone_leave_nothing_behind_for_the_next_pass():
    connection, slots = connection_of("bilinear"), slots_of().requires_grad_()
    out = thought(connection.operator(), slots).square().sum()
    torch.autograd.grad(out, [slots], retain_graph=True)
    again = torch.autograd.grad(out, list(connection.parameters()), retain_graph=True)
    twice = torch.autograd.grad(out, list(connection.parameters()))
    fresh = torch.autograd.grad(
        thought(connection.operator(), slots).square().sum(), list(connection.parameters())
    )
    for one, two, three in zip(again, twice, fresh, strict=True):
        assert torch.equal(one, three)
        assert torch.equal(two, three)


def test_an_operator_may_be_used_by_two_losses():
    connection, slots = connection_of("bilinear"), slots_of()
    operator = connection.operator()
    losses = [thought(operator, slots, n).square().sum() for n in (1, 3)]
    apart = [torch.autograd.grad(loss, [connection.W_s], retain_graph=True)[0] for loss in losses]
    together = torch.autograd.grad(sum(losses), [connection.W_s])[0]
    torch.testing.assert_close(together, apart[0] + apart[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("frozen", ["W_s", "W_t"])
def test_a_frozen_half_gets_no_gradient_and_the_other_its_own(frozen):
    free, half = connection_of("bilinear"), connection_of("bilinear")
    half.get_parameter(frozen).requires_grad_(False)
    for connection in (free, half):
        thought(connection.operator(), slots_of()).square().sum().backward()
    for name, weight in half.named_parameters():
        if name == frozen:
            assert weight.grad is None
        else:
            assert torch.equal(weight.grad, free.get_parameter(name).grad)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointed_steps_have_the_same_gradients(use_reentrant):
    connection = connection_of("bilinear")
    slots = slots_of().requires_grad_()
    operator = connection.operator()

    def checkpointed(slots):
        return checkpoint(operator, slots, use_reentrant=use_reentrant)

    found = []
    for influence in (connection.operator(), checkpointed):
        connection.zero_grad()
        thought(influence, slots).square().sum().backward()
        found.append([weight.grad.clone() for weight in connection.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_half_precision_around_it_is_half_precision_in_it_and_gradients_are_whole():
    connection = connection_of("bilinear", dtype=torch.float32)
    slots = slots_of(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        heard = connection.operator()(slots)
        assert heard.dtype == torch.bfloat16
        heard.float().square().sum().backward()
    exact = connection.operator()(slots)
    torch.testing.assert_close(heard.float(), exact, rtol=0.05, atol=0.05)
    (expected,) = torch.autograd.grad(exact.square().sum(), [connection.W_t])
    assert connection.W_t.grad.dtype == torch.float32
    assert (connection.W_t.grad - expected).norm() < 0.02 * expected.norm()


def test_second_derivatives_are_refused_and_not_wrong():
    connection, slots = connection_of("bilinear"), slots_of().requires_grad_()
    out = connection.operator()(slots).square().sum()
    (first,) = torch.autograd.grad(out, [slots], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_bilinear_keeps_less_for_its_backward_pass_than_the_formula_in_einsum():
    connection, slots = (
        connection_of("bilinear", dtype=torch.float32),
        slots_of(dtype=torch.float32),
    )
    W_s, W_t = (
        weight.detach().contiguous().requires_grad_() for weight in connection.pair_weights()
    )
    pairs = 1 - torch.eye(N)

    def by_formula(slots):
        ranks = torch.einsum("bid,ijdr->bijr", slots, W_s) * pairs[..., None]
        return torch.einsum("bijr,ijrd->bjd", ranks, W_t)

    torch.testing.assert_close(by_formula(slots), connection.operator()(slots))
    own = {weight.data_ptr() for weight in (W_s, W_t, *connection.parameters())}
    assert kept_bytes(connection.operator(), slots, own) < kept_bytes(by_formula, slots, own) / 2


def kept_bytes(influence, slots, without):
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in without:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = thought(influence, slots)
    assert out.requires_grad
    return sum(kept.values())


def test_a_bound_goes_where_nothing_can_be_bounded():
    assert {name for name in CONNECTIONS if CONNECTIONS.load(name).is_bounded} == set(
        network_config.BOUNDED
    )
    bounded = ConnectionConfig(name="scalar", largest=0.9, rank=2, k=2)
    for name in CONNECTIONS:
        changed = bounded.of_form(name)
        assert (changed.name, changed.largest) == (
            name,
            0.9 if name in network_config.BOUNDED else None,
        )
        make_connection(D, N, changed)
