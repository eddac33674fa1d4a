import pytest
import torch

from fluoroscope.core.errors import FluoroscopeError, InterventionError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.interventions.edits import AblateDirection
from fluoroscope.interventions.moves import MoveAlong
from fluoroscope.interventions.steering import steer


def activations(n=200, d_model=16):
    return torch.randn(n, d_model, generator=torch_stream(0, "moves")).double()


def along(x, direction):
    return x @ (direction / direction.norm())


@pytest.mark.parametrize("side", [1, -1])
def test_components_short_of_the_target_come_to_it_and_all_others_stay(direction, side):
    u, x = direction(3), activations()
    moved = MoveAlong(u, 0.4, side=side)(x)
    before, after = along(x, u), along(moved, u)
    is_short = side * before < side * 0.4
    assert 0 < is_short.sum() < len(x)
    torch.testing.assert_close(
        after[is_short], torch.full_like(after[is_short], 0.4), atol=1e-6, rtol=0
    )
    assert torch.equal(moved[~is_short], x[~is_short])
    unit = u / u.norm()
    rest = [y - along(y, u)[:, None] * unit for y in (x, moved)]
    torch.testing.assert_close(*rest, atol=1e-6, rtol=0)


@pytest.mark.parametrize("side", [1, -1])
def test_a_move_of_the_whole_way_is_idempotent_and_of_none_changes_nothing(direction, side):
    u, x = direction(3), activations()
    move = MoveAlong(u, 0.4, side=side)
    torch.testing.assert_close(move(move(x)), move(x), atol=1e-6, rtol=0)
    assert torch.equal(MoveAlong(u, 0.4, 0.0, side)(x), x)


def test_a_share_goes_that_part_of_the_way_and_beyond(direction):
    u, x = direction(3), activations()
    whole = MoveAlong(u, 0.4)(x) - x
    for share in (0.25, 1.5):
        torch.testing.assert_close(
            MoveAlong(u, 0.4, share)(x) - x, share * whole, atol=1e-6, rtol=0
        )


def test_both_sides_at_zero_are_the_ablation_of_the_direction(direction):
    u, x = direction(3), activations()
    both = (MoveAlong(u, 0.0)(x) - x) + MoveAlong(u, 0.0, side=-1)(x)
    torch.testing.assert_close(both, AblateDirection(u)(x), atol=1e-6, rtol=0)


def test_the_length_of_the_direction_does_not_matter(direction):
    u, x = direction(3), activations()
    one, other = MoveAlong(u, 0.4)(x), MoveAlong(7 * u, 0.4)(x)
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_the_engine_moves_as_the_edit_says(double_model, direction):
    model, u = double_model("gpt2"), direction(3)
    tokens = model.tokenize(["some text to go on from"]).tokens
    seen = {}

    def note(name):
        def look(value):
            seen[name] = value[0].detach()

        return look

    from fluoroscope.models.hook_points import HookPoint

    point = HookPoint("1.resid_post")
    with model.hooked({point: note("before")}):
        model.forward(tokens)
    target = float(along(seen["before"], u).median())
    move = MoveAlong(u, target)
    with steer(model, {point: move}), model.hooked({point: note("after")}):
        model.forward(tokens)
    torch.testing.assert_close(seen["after"], move(seen["before"]), atol=1e-6, rtol=0)
    n_moved = int(((seen["after"] - seen["before"]).norm(dim=1) > 1e-9).sum())
    assert 0 < n_moved < tokens.shape[1]


def test_what_is_no_move_is_refused(direction):
    with pytest.raises(InterventionError, match=r"is 1 \(up\) or -1, got 0"):
        MoveAlong(direction(0), 0.4, side=0)
    with pytest.raises(FluoroscopeError, match="target of MoveAlong"):
        MoveAlong(direction(0), float("nan"))
    with pytest.raises(FluoroscopeError, match="MoveAlong"):
        MoveAlong(torch.zeros(16), 0.4)
