"""Which rows are edited, where, how often; and that nothing else passes for edited."""

import warnings
from collections.abc import Sequence
from functools import partial

import pytest
import torch

from fluoroscope.activations.capture import capture
from fluoroscope.core.errors import InterventionError, MismatchError, ModelError
from fluoroscope.interventions.edits import AblateDirection, AddDirection, RandomDirection, Replace
from fluoroscope.interventions.positions import ALL, GENERATED, LAST, PROMPT, after, at
from fluoroscope.interventions.row_edits import Placed, row_edits
from fluoroscope.interventions.steering import steer
from fluoroscope.models.generation import Request, generate
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.tiny import tiny_model
from fluoroscope.sae.latent_edits import ReconstructionOnly, SetLatent, SetRandomLatent

POINT = "1.resid_post"
TEXTS = ["some text", "another one", "x"]


@pytest.fixture(scope="module")
def model(double_model):
    return double_model("llama")


@pytest.fixture
def tokens(model):
    return model.tokenize(TEXTS)


def seen_at(model, tokens, point):
    """What a stream shows in a pass over whole texts."""
    shown = []
    with model.hooked({HookPoint(point): lambda x: shown.append(x.detach().clone())}):
        model.forward(*tokens)
    return shown[0]


def test_every_row_has_its_own_edit_and_only_at_its_positions(model, tokens, direction):
    clean = seen_at(model, tokens, POINT)
    first, second = direction(0), direction(1)
    rows = [
        {POINT: AddDirection(first)},
        {},
        {POINT: [Placed(AddDirection(second, 2), LAST), AddDirection(first)]},
    ]
    with row_edits(model, rows, at([0])) as edits:
        edited = seen_at(model, tokens, POINT)
    expected = clean.clone()
    # Texts are padded on the left; the shortest has two tokens.
    width = clean.shape[1]
    starts = [width - int(n) for n in tokens.attention_mask.sum(1)]
    expected[0, starts[0]] += first
    expected[2, starts[2]] += first
    expected[2, -1] += 2 * second
    torch.testing.assert_close(edited, expected, atol=1e-12, rtol=0)
    assert int(edits.n_applied) == 3


def test_edits_of_one_place_all_see_the_activation_as_it_came(model, tokens, double_sae, direction):
    sae = double_sae()
    both = torch.stack([direction(1), direction(2)])
    several = [
        SetLatent(sae, [3, 5], 2.0),
        AddDirection(direction(0), 5),
        AblateDirection(both),
        SetLatent(sae, 7, 1.0),
    ]
    clean = seen_at(model, tokens, POINT)
    changes = sum(edit.change(clean) for edit in several)
    for order in (several, several[::-1]):
        with steer(model, {POINT: order}) as edits:
            edited = seen_at(model, tokens, POINT)
        real = tokens.attention_mask.bool()
        # An edit of several latents or directions is one edit.
        assert int(edits.n_applied) == 4 * int(real.sum())
        torch.testing.assert_close(edited[real], (clean + changes)[real], atol=1e-12, rtol=0)


def test_a_second_steer_sees_what_the_first_has_made(model, tokens, direction):
    clean = seen_at(model, tokens, POINT)
    with (
        steer(model, {POINT: Replace(direction(0))}),
        steer(model, {POINT: AddDirection(direction(1))}),
    ):
        edited = seen_at(model, tokens, POINT)
    real = tokens.attention_mask.bool()
    expected = (direction(0) + direction(1)).expand_as(clean)
    torch.testing.assert_close(edited[real], expected[real], atol=1e-12, rtol=0)
    with (
        steer(model, {POINT: AddDirection(direction(1))}),
        steer(model, {POINT: Replace(direction(0))}),
    ):
        edited = seen_at(model, tokens, POINT)
    expected = direction(0).expand_as(clean)
    torch.testing.assert_close(edited[real], expected[real], atol=1e-12, rtol=0)


@pytest.mark.parametrize("outer", [ALL, LAST | GENERATED])
def test_one_prompt_with_many_stacks_of_edits_is_every_stack_alone(model, direction, outer):
    # Rows that agree in one of the two interventions must not share what the other edits.
    rows = [
        {POINT: Placed(AddDirection(direction(i % 5), 2.0), PROMPT if i % 2 else GENERATED)}
        for i in range(20)
    ]
    request = Request(prompt="a prompt that all have", seed=1, max_tokens=3, stop_tokens=())
    around = partial(steer, model, {"0.mlp_out": AddDirection(direction(9), 3.0)}, outer)
    with around(), row_edits(model, rows):
        together = generate(model, [request] * 20, logprobs=True)
    for row, one in zip(rows, together, strict=True):
        with around(), row_edits(model, [row]):
            (alone,) = generate(model, [request], logprobs=True)
        assert one.tokens == alone.tokens
        assert one.n_edits == alone.n_edits
        assert one.logprobs == pytest.approx(alone.logprobs, abs=1e-9)
    assert len({one.logprobs for one in together}) == 10


class Passing(Sequence):
    """Edit sets that nobody holds on to, as a generator of rows might make them."""

    def __init__(self, directions):
        self._directions = directions

    def __len__(self):
        return len(self._directions)

    def __getitem__(self, i):
        return {POINT: AddDirection(self._directions[i].clone())}


def test_edits_that_nobody_else_holds_are_not_taken_for_each_other(model, direction):
    # Keys are made of where tensors lie, and a tensor may lie where another one was.
    directions = [direction(i) for i in range(40)]
    tokens = model.tokenize(["text"] * 40)
    clean = seen_at(model, tokens, POINT)
    with row_edits(model, Passing(directions)):
        edited = seen_at(model, tokens, POINT)
    expected = torch.stack(directions)[:, None].expand_as(clean)
    torch.testing.assert_close(edited - clean, expected, atol=1e-12, rtol=0)


def test_controls_of_two_kinds_of_one_direction_are_kept_apart(model, direction):
    tokens = model.tokenize(["text"] * 4)
    original = 5 * direction(0)
    originals = [AddDirection(original, 1.0, is_relative=is_it) for is_it in (False, True)]
    edits = [RandomDirection(original, seed) for original in originals for seed in (0, 1)]
    clean = seen_at(model, tokens, POINT)
    with row_edits(model, [{POINT: edit} for edit in edits]):
        edited = seen_at(model, tokens, POINT)
    for i, edit in enumerate(edits):
        torch.testing.assert_close(edited[i], edit(clean[i]), atol=1e-12, rtol=0)


def test_controls_of_one_latent_are_each_along_their_own(model, double_sae):
    tokens = model.tokenize(["text"] * 8)
    original = SetLatent(double_sae(), 3, 2.0)
    edits = [SetRandomLatent(original, seed) for seed in range(8)]
    assert len({edit.others for edit in edits}) > 3
    clean = seen_at(model, tokens, POINT)
    with row_edits(model, [{POINT: edit} for edit in edits]):
        edited = seen_at(model, tokens, POINT)
    for i, edit in enumerate(edits):
        torch.testing.assert_close(edited[i], edit(clean[i]), atol=1e-12, rtol=0)


def test_one_edit_may_act_at_other_positions_in_every_row(model, direction):
    tokens = model.tokenize(["text"] * 4)
    edit = AddDirection(direction(0))
    clean = seen_at(model, tokens, POINT)
    with row_edits(model, [{POINT: Placed(edit, at([i]))} for i in range(4)]):
        edited = seen_at(model, tokens, POINT)
    moved = (edited - clean).norm(dim=-1) > 1e-6
    assert moved.nonzero().tolist() == [[i, i] for i in range(4)]


@pytest.mark.parametrize("max_rows", [1, 3, 64])
def test_edits_are_counted_as_rows_times_positions_with_refills_and_early_stops(
    model, direction, max_rows
):
    prompts = ["a prompt to be read", "a prompt to be", "short", "a prompt to be read by all"]
    requests = [
        Request(
            prompt=prompts[i % 4],
            seed=i,
            max_tokens=1 + 7 * (i % 3),
            stop_tokens=tuple(range(4, 20)),
        )
        for i in range(26)
    ]
    modes = [PROMPT, LAST, GENERATED, ALL, LAST | GENERATED, at([0, 2, -1])]
    rows = [
        {
            POINT: [Placed(AddDirection(direction(0), 0.1), modes[i % 6])] * (1 + i % 2),
            "0.attn_out": Placed(AddDirection(direction(1), 0.1), modes[(i + 1) % 6]),
        }
        for i in range(26)
    ]
    with row_edits(model, rows) as edits:
        found = generate(model, requests, max_rows=max_rows)
    assert {one.finish for one in found} == {"length", "stop_token"}
    for i, one in enumerate(found):
        # The last token is drawn and never read.
        n_prompt, n_generated = one.n_prompt, len(one.tokens) - 1
        positions = [n_prompt, 1, n_generated, n_prompt + n_generated, 1 + n_generated, 3]
        assert one.n_edits == positions[i % 6] * (1 + i % 2) + positions[(i + 1) % 6]
    # Prompts that are read once for several rows are edited once.
    assert 0 < int(edits.n_applied) <= sum(one.n_edits for one in found)
    with row_edits(model, [rows[3]] * 9) as edits:
        found = generate(model, [requests[0]] * 9)
    of_prompt = 2 * found[0].n_prompt + 1
    assert int(edits.n_applied) == sum(one.n_edits - of_prompt for one in found) + of_prompt


UNUSED = pytest.mark.filterwarnings("ignore:Nothing was edited")


def remove_hooks(model, point):
    model.blocks[HookPoint(point).layer]._forward_hooks.clear()


def test_a_hook_that_is_removed_behind_our_back_is_an_error_of_forward(model, tokens, direction):
    with steer(model, {POINT: AddDirection(direction(0)), "2.mlp_out": AddDirection(direction(1))}):
        model.forward(*tokens)
        remove_hooks(model, POINT)
        with pytest.raises(InterventionError, match=r"edited 10 times, and should have been 20"):
            model.forward(*tokens)


@UNUSED
def test_a_hook_that_is_removed_is_an_error_of_captures_behind_it_alone(model, direction):
    tokens, _ = model.tokenize(["text"])
    with steer(model, {POINT: AddDirection(direction(0))}):
        remove_hooks(model, POINT)
        with pytest.raises(InterventionError, match="edited 0 times"):
            capture(model, tokens, ["2.resid_pre"])
        # What ends before the edit has none to lack.
        capture(model, tokens, ["1.mlp_out"])


@pytest.mark.parametrize("positions", [PROMPT, LAST, GENERATED, ALL], ids=str)
def test_a_hook_that_is_removed_is_an_error_of_generate(model, direction, positions):
    request = Request(prompt="text", max_tokens=3, stop_tokens=())
    with steer(model, {POINT: AddDirection(direction(0))}, positions):
        generate(model, [request])
        remove_hooks(model, POINT)
        with pytest.raises(InterventionError, match=r"Row 0 was edited 0 times"):
            generate(model, [request])


def test_a_hook_that_is_removed_while_texts_are_written_is_an_error(model, direction):
    requests = [
        Request(prompt="text", seed=i, max_tokens=2 + 3 * i, stop_tokens=()) for i in range(3)
    ]
    finished = []

    def on_finish(generation):
        finished.append(generation.request)
        remove_hooks(model, POINT)

    with (
        steer(model, {POINT: AddDirection(direction(0))}),
        pytest.raises(InterventionError, match=r"Row 1 was edited 6 times, .* 9 times"),
    ):
        generate(model, requests, on_finish=on_finish)
    assert finished == [0]


def test_a_hook_that_is_removed_while_prompts_are_read_is_an_error_of_the_texts_to_come(
    model, direction
):
    # Two requests at once; the third and fourth are read after the first is done.
    requests = [Request(prompt=f"text {i}", max_tokens=4, stop_tokens=()) for i in range(4)]
    good = []
    with steer(model, {POINT: AddDirection(direction(0))}, PROMPT):

        def on_finish(generation):
            good.append(generation.request)
            remove_hooks(model, POINT)

        with pytest.raises(InterventionError, match=r"Row [23] was edited 0 times"):
            generate(model, requests, on_finish=on_finish, max_rows=2)
    assert sorted(good) == [0, 1]


def test_an_edit_that_is_made_twice_is_an_error(model, tokens, direction):
    with steer(model, {POINT: AddDirection(direction(0))}) as edits:
        (hook,) = edits.hooks.values()
        with model.hooked({HookPoint(POINT): hook}), pytest.raises(InterventionError):
            model.forward(*tokens)


@UNUSED
def test_a_pass_of_the_network_itself_is_refused_as_nobody_knows_its_positions(
    model, tokens, direction
):
    for _ in range(2):
        with (
            steer(model, {POINT: AddDirection(direction(0))}),
            pytest.raises(InterventionError, match="not announced"),
        ):
            model.network(tokens.tokens)
    with steer(model, {POINT: AddDirection(direction(0))}):
        model.forward(*tokens)
        with pytest.raises(InterventionError, match="not announced"):
            model.network.generate(tokens.tokens, max_new_tokens=2, do_sample=False)
        model.forward(*tokens)


def test_fewer_sets_than_rows_are_refused(model, tokens, direction):
    rows = [{POINT: AddDirection(direction(0))}] * 2
    with row_edits(model, rows):
        with pytest.raises(InterventionError, match="given 2 rows, and there is a row 2"):
            model.forward(*tokens)
        with pytest.raises(InterventionError, match="given 2 rows, and there is a row 2"):
            generate(model, ["a", "b", "c"])
        assert len(generate(model, ["a", "b"])) == 2


def test_an_sae_of_another_place_or_width_is_refused_by_name(model, double_sae, direction):
    sae = double_sae(point="0.resid_post")
    with (
        pytest.raises(MismatchError, match=r"SAE of 0\.resid_post, .* applied at 1\.resid_post"),
        steer(model, {POINT: SetLatent(sae, 0, 1.0)}),
    ):
        pass
    with pytest.raises(MismatchError), steer(model, {POINT: ReconstructionOnly(sae)}):
        pass
    with (
        pytest.raises(
            MismatchError, match=r"width 8, and 1\.resid_post of tiny-llama-0 has width 16"
        ),
        steer(model, {POINT: AddDirection(direction(0, d_model=8))}),
    ):
        pass
    with steer(model, {"0.resid_post": SetLatent(sae, 0, 1.0)}):
        generate(model, ["a"])


def test_a_hook_point_that_does_not_exist_is_refused(model, direction):
    with (
        pytest.raises(ModelError, match=r"no hook point 3\.resid_post"),
        steer(model, {"3.resid_post": AddDirection(direction(0))}),
    ):
        pass
    assert model.interventions == []


def test_contradictions_are_refused_for_the_rows_that_have_them(model, double_sae, direction):
    sae = double_sae()
    fine = {POINT: SetLatent(sae, 0, 1.0)}
    bad = {POINT: [SetLatent(sae, 0, 1.0), SetLatent(sae, 0, 2.0)]}
    # Two rows may well do what one row cannot.
    with row_edits(model, [fine, {POINT: SetLatent(sae, 0, 2.0)}]):
        generate(model, ["a", "b"])
    with (
        pytest.raises(
            InterventionError, match=r"1\.resid_post contradict .* latent 0 of the jumprelu"
        ),
        row_edits(model, [fine, bad]),
    ):
        pass
    # One place by two names is one place.
    by_two_names = {
        POINT: Replace(direction(0)),
        HookPoint(1, "resid_post"): AddDirection(direction(1)),
    }
    with pytest.raises(InterventionError, match="leaves nothing"), steer(model, by_two_names):
        pass


@UNUSED
def test_positions_that_a_prompt_does_not_have_are_refused_before_anything_runs(model, direction):
    edits = {POINT: AddDirection(direction(0))}
    with steer(model, edits, at([5])), pytest.raises(InterventionError, match="needs position 5"):
        generate(model, ["long enough", "abc"])
    rows = [{POINT: Placed(AddDirection(direction(0)), after("b"))}, {}]
    with row_edits(model, rows):
        generate(model, ["ab", "xx"])
        with pytest.raises(InterventionError, match="does not contain it"):
            generate(model, ["xx", "ab"])


def test_steering_ends_with_its_block_whatever_happens_inside(model, tokens, direction):
    clean = model.forward(*tokens)

    def fail_inside():
        with steer(model, {POINT: AddDirection(direction(0))}):
            assert not torch.equal(model.forward(*tokens), clean)
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert model.interventions == []
    assert torch.equal(model.forward(*tokens), clean)


def test_steering_that_came_to_no_position_is_warned_of(model, tokens, direction):
    edits = {POINT: AddDirection(direction(0))}
    with pytest.warns(UserWarning, match="Nothing was edited"), steer(model, edits, GENERATED):
        model.forward(*tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with steer(model, edits, GENERATED):
            generate(model, [Request(prompt="a", max_tokens=2, stop_tokens=())])
        with steer(model, {}):
            model.forward(*tokens)


def test_gradients_pass_through_an_edited_stream(model, direction):
    tokens, _ = model.tokenize(["text"])
    offset = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    with (
        steer(model, {POINT: AddDirection(direction(0))}),
        model.hooked({HookPoint("0.resid_post"): lambda x: x + offset}),
    ):
        model.loss(tokens).backward()
    assert offset.grad is not None
    assert float(offset.grad.abs().sum()) > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_latents_of_a_model_in_half_precision_are_computed_in_float32(dtype, double_sae):
    model = tiny_model("llama")
    model.network.to(dtype)
    sae = double_sae().float()
    tokens = model.tokenize(["text"])
    clean = seen_at(model, tokens, POINT)
    assert clean.dtype == dtype
    exact = clean.float()
    values = sae.encode(exact)[..., 3]
    for edit, expected in (
        (SetLatent(sae, 3, 2.0), exact + (2 - values)[..., None] * sae.W_dec[3]),
        (ReconstructionOnly(sae), sae(exact)),
    ):
        with steer(model, {POINT: edit}):
            edited = seen_at(model, tokens, POINT)
            (one,) = generate(model, [Request(prompt="text", max_tokens=4, stop_tokens=())])
        assert edited.dtype == dtype
        # One rounding to half precision, at the end; and a rounding of float32 may turn it.
        torch.testing.assert_close(
            edited, expected.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6
        )
        assert (edited == expected.to(dtype)).float().mean() > 0.95
        assert len(one.tokens) == 4


def test_what_replaces_an_activation_of_a_model_in_half_precision_is_exactly_there(direction):
    model = tiny_model("llama")
    model.network.bfloat16()
    with torch.no_grad():
        model.network.model.embed_tokens.weight.mul_(1000)
    wanted = direction(0).bfloat16()
    tokens = model.tokenize(["text"])
    assert float(seen_at(model, tokens, POINT).abs().max()) > 500
    with steer(model, {POINT: Replace(wanted)}):
        edited = seen_at(model, tokens, POINT)
    torch.testing.assert_close(edited, wanted.expand_as(edited), atol=1e-3, rtol=0)


def test_a_row_that_is_all_padding_is_not_edited(model, direction):
    # What tokenizers that put nothing in front of a text make of an empty one.
    tokens = torch.tensor([[1, 70, 71], [0, 0, 0]])
    mask = torch.tensor([[1, 1, 1], [0, 0, 0]])
    with steer(model, {POINT: AddDirection(direction(0))}, LAST) as edits:
        model.forward(tokens, mask)
    assert int(edits.n_applied) == 1


def test_encoders_are_steered_in_forward(double_model, direction):
    encoder = double_model("bert")
    tokens = encoder.tokenize(TEXTS)
    clean = seen_at(encoder, tokens, POINT)
    with steer(encoder, {POINT: AddDirection(direction(0))}, at([0])) as edits:
        edited = seen_at(encoder, tokens, POINT)
    torch.testing.assert_close(edited[:, 0], clean[:, 0] + direction(0), atol=1e-12, rtol=0)
    assert torch.equal(edited[:, 1:], clean[:, 1:])
    assert int(edits.n_applied) == 3
