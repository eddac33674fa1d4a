"""Where an action first changes a text, against writing that text again without it."""

import pytest

from fluoroscope.core.errors import InterventionError
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.models.generation import Request, generate
from fluoroscope.studies.policy.acting import Acting, Replay
from fluoroscope.studies.policy.branches import branch_points, judge_branches
from fluoroscope.studies.policy.forced import Reading, next_logits, token_logits

REQUESTS = [
    Request(prompt=prompt, seed=seed, max_tokens=5, stop_tokens=())
    for seed in range(5)
    for prompt in ("some text", "another text that is longer")
]
SAMPLES = [
    Sample(id=str(i), group_id=str(i), prompt="x", references=("y",)) for i in range(len(REQUESTS))
]


def parity(generations, _samples):
    return [float(sum(one.tokens) % 2) for one in generations]


@pytest.fixture(scope="module")
def acted(double_model, head, candidates):
    acting = Acting(double_model, head, candidates, REQUESTS, is_masked=True)
    with double_model.intervened(acting):
        generations = generate(double_model, REQUESTS)
    return generations, acting.log()


def rewritten(model, candidates, scripts):
    with model.intervened(Replay(model, candidates, scripts)):
        return generate(model, REQUESTS)


def test_a_branch_is_the_first_token_that_doing_nothing_would_have_changed(
    acted, double_model, candidates
):
    generations, log = acted
    points = {one.request: one for one in branch_points(double_model, log, REQUESTS, generations)}
    assert len(points) >= 3
    scripts = log.scripts(len(REQUESTS))
    first: dict[int, tuple[int, int]] = {}
    for t in range(5):
        idle = [[*script[:t], 0] for script in scripts]
        again = rewritten(double_model, candidates, idle)
        for request, (one, other) in enumerate(zip(generations, again, strict=True)):
            if one.tokens[t] != other.tokens[t]:
                first.setdefault(request, (t, other.tokens[t]))
    assert {r: (one.t, one.unsteered_token) for r, one in points.items()} == first
    for request, one in points.items():
        assert one.action == scripts[request][one.t] != 0
        assert one.token == generations[request].tokens[one.t]
        assert one.runner_up not in (None, one.action)


def test_the_action_itself_forced_again_gives_its_own_text_and_outcome(acted, double_model, head):
    generations, log = acted
    branches = judge_branches(
        double_model, head, log, REQUESTS, SAMPLES, generations, parity, is_masked=True
    )
    outcomes = parity(generations, SAMPLES)
    assert branches
    assert all(one.is_same_again for one in branches)
    assert all(one.outcome == outcomes[one.point.request] for one in branches)
    assert {one.is_decisive for one in branches} == {True, False}
    row = branches[0].row()
    assert row["t"] == branches[0].point.t
    assert row["without"] == branches[0].without


def test_the_logit_of_a_token_with_its_action_is_that_of_the_replay(
    acted, double_model, candidates
):
    generations, log = acted
    places = [(0, 0), (3, 2), (9, 4)]
    found = token_logits(double_model, log, REQUESTS, generations, places)
    scripts = log.scripts(len(REQUESTS))
    for (request, t), (before, after) in found.items():
        tokens = double_model.tokenize([REQUESTS[request].prompt]).tokens[0].tolist()
        text = double_model.tokenize([REQUESTS[request].prompt]).tokens.new_tensor(
            [tokens + list(generations[request].tokens[:t])]
        )
        for script, value in (
            (scripts[request][: t + 1], after),
            ([*scripts[request][:t], 0], before),
        ):
            replay = Replay(double_model, candidates, [script], [len(tokens) - 1])
            with double_model.intervened(replay):
                logits = double_model.forward(text)[0, -1]
            assert float(logits[generations[request].tokens[t]].detach()) == pytest.approx(
                value, abs=1e-9
            )
    assert all(
        (before == after) == (scripts[r][t] == 0) for (r, t), (before, after) in found.items()
    )


def test_actions_and_tokens_that_do_not_fit_are_refused(double_model, candidates):
    with pytest.raises(InterventionError, match="one more action"):
        next(next_logits(double_model, candidates, [Reading((1, 2), (3,), (0,))]))
    with (
        double_model.intervened(Replay(double_model, candidates, [[0]])),
        pytest.raises(InterventionError, match="something else"),
    ):
        next(next_logits(double_model, candidates, [Reading((1, 2), (), (0,))]))


def test_a_text_in_which_nothing_was_done_has_no_branch(double_model, head, candidates):
    idle = [[0] * 5 for _ in REQUESTS]
    acting = Acting(double_model, head, candidates, REQUESTS, forced=idle)
    with double_model.intervened(acting):
        generations = generate(double_model, REQUESTS)
    found = judge_branches(double_model, head, acting.log(), REQUESTS, SAMPLES, generations, parity)
    assert found == []
