"""What is captured while texts are generated, and how often it is read."""

import torch

from fluoroscope.models.generation import Capture, Request, generate
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.tiny import tiny_model

POINT = HookPoint("1.resid_post")
POOLS = ("max", "mean", "last")


def requests(n_tokens=5):
    prompts = ["some text", "ab", "another"]
    return [Request(prompt=p, max_tokens=n_tokens, stop_tokens=()) for p in prompts]


def test_an_encoder_that_is_pooled_in_several_ways_is_run_once_a_pass():
    model, calls = tiny_model("gpt2"), []
    n_passes = 0

    def encode(x):
        calls.append(len(x))
        return x.relu()

    def count(_value):
        nonlocal n_passes
        n_passes += 1

    captures = {pool: Capture(POINT, pool, encode) for pool in POOLS}
    captures["dense"] = Capture(POINT, "mean")
    with model.hooked({HookPoint("2.resid_post"): count}):
        found = generate(model, requests(), captures=captures)
    assert len(calls) == n_passes > 1
    # And what is read once is pooled as if it were read for each.
    for pool in POOLS:
        for one, alone in zip(
            found,
            generate(model, requests(), captures={pool: Capture(POINT, pool, torch.relu)}),
            strict=True,
        ):
            assert torch.equal(one.captured[pool], alone.captured[pool])


def test_two_encoders_of_one_stream_are_each_run():
    model = tiny_model("gpt2")
    captures = {
        "up": Capture(POINT, "last", lambda x: x.relu()),
        "down": Capture(POINT, "last", lambda x: (-x).relu()),
        "plain": Capture(POINT, "last"),
    }
    for one in generate(model, requests(), captures=captures):
        seen = one.captured
        torch.testing.assert_close(seen["up"] - seen["down"], seen["plain"])
        assert (seen["up"] * seen["down"] == 0).all()
