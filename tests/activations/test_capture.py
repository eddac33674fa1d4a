import pytest
import torch
from torch import Tensor

from fluoroscope.activations.capture import capture
from fluoroscope.core.errors import ModelError
from fluoroscope.models.families import FAMILIES
from fluoroscope.models.hook_points import STREAMS, HookPoint, parse_hook_points
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.tiny import tiny_model

TOKENS = torch.arange(5, 29).view(2, 12)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_kept_is_what_the_stream_was_when_it_was_computed(family: str):
    # A network that adds to a stream in place would change a tensor that is not copied.
    model = tiny_model(family)
    points = parse_hook_points([f"all.{stream}" for stream in STREAMS[1:]] + ["embed"], 3)
    seen: dict[HookPoint, Tensor] = {}
    hooks = {p: lambda x, p=p: seen.__setitem__(p, x.clone()) for p in points}
    with torch.no_grad(), model.hooked(hooks):
        model.forward(TOKENS)
    cache = capture(model, TOKENS, points)
    assert list(cache) == points
    for point in points:
        torch.testing.assert_close(cache[point], seen[point], rtol=0, atol=0, msg=str(point))


def test_one_point_alone_is_the_same_as_among_many(model: LanguageModel):
    everything = capture(model, TOKENS, parse_hook_points("all.resid_post", 3))
    for point, activations in everything.items():
        assert torch.equal(capture(model, TOKENS, [point])[point], activations)


def test_blocks_behind_the_deepest_point_do_not_run(model: LanguageModel):
    ran: list[HookPoint] = []
    later = HookPoint("1.resid_pre")
    with model.hooked({later: lambda _: ran.append(later)}):
        capture(model, TOKENS, ["0.resid_post"])
    assert not ran


def test_padding_changes_no_row_that_is_real(model: LanguageModel):
    mask = torch.ones_like(TOKENS)
    mask[1, 7:] = 0
    cache = capture(model, TOKENS, ["2.resid_post"], mask)
    alone = capture(model, TOKENS[1:, :7], ["2.resid_post"])
    torch.testing.assert_close(cache["2.resid_post"][1:, :7], alone["2.resid_post"])


def test_a_point_is_found_by_its_name(model: LanguageModel):
    cache = capture(model, TOKENS, ["1.mlp_out"])
    assert torch.equal(cache["1.mlp_out"], cache[HookPoint(1, "mlp_out")])
    assert len(cache) == 1
    assert cache["1.mlp_out"].shape == (2, 12, model.d_model)


def test_a_point_that_the_model_has_not_is_named(model: LanguageModel):
    with pytest.raises(ModelError, match=r"7\.resid_post"):
        capture(model, TOKENS, ["7.resid_post"])
