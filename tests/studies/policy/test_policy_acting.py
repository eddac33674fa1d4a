"""A policy's choices belong to a row: they are logged, and replay to the same text."""

import pytest
import torch

from fluoroscope.activations.capture import capture
from fluoroscope.core.errors import InterventionError, MismatchError
from fluoroscope.interventions.positions import GENERATED, LAST
from fluoroscope.interventions.row_edits import RowEdits
from fluoroscope.models.generation import Request, generate
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.sampling import Sampling
from fluoroscope.studies.policy.acting import Acting, Replay
from fluoroscope.studies.policy.action_log import ActionLog, runner_up, scripts_of_rows
from fluoroscope.studies.policy.candidates import Candidates
from fluoroscope.studies.policy.heads import PolicyHead, action_luck, draw

REQUESTS = [
    Request(prompt=prompt, seed=seed, max_tokens=3 + seed, stop_tokens=())
    for seed in range(6)
    for prompt in ("some text to go on with", "some text that is longer than it", "x")
]


def act(model, head, candidates, requests=REQUESTS, max_rows=256, **options):
    acting = Acting(model, head, candidates, requests, keeps_observations=True, **options)
    with model.intervened(acting):
        generations = generate(model, requests, max_rows=max_rows, logprobs=True)
    return generations, acting.log()


@pytest.fixture(scope="module")
def acted(double_model, head, candidates):
    return act(double_model, head, candidates, is_masked=True)


def test_the_fixture_acts_in_many_ways(acted, candidates):
    _, log = acted
    assert len(set(log.actions.tolist())) > candidates.n_actions // 2
    assert not log.allowed.all()
    assert log.allowed[:, 0].all()


@pytest.mark.parametrize("max_rows", [1, 4])
def test_the_number_of_rows_changes_no_text_and_no_choice(
    acted, double_model, head, candidates, max_rows
):
    generations, log = act(double_model, head, candidates, max_rows=max_rows, is_masked=True)
    assert [one.tokens for one in generations] == [one.tokens for one in acted[0]]
    assert torch.equal(log.actions, acted[1].actions)
    torch.testing.assert_close(log.logits, acted[1].logits, atol=1e-10, rtol=0)


def test_the_order_of_requests_and_how_prompts_are_shared_change_nothing(
    acted, double_model, head, candidates, sharing
):
    generations, log = act(double_model, head, candidates, REQUESTS[::-1], 7, is_masked=True)
    assert [one.tokens for one in generations[::-1]] == [one.tokens for one in acted[0]]
    n = len(REQUESTS)
    assert log.scripts(n)[::-1] == acted[1].scripts(n)


def test_every_token_has_one_step_and_every_step_is_an_edit(acted, candidates):
    generations, log = acted
    n_tokens = [len(one.tokens) for one in generations]
    assert torch.bincount(log.requests).tolist() == n_tokens
    assert [one.n_edits for one in generations] == [2 * n for n in n_tokens]
    assert log.places.tolist() == [t for n in n_tokens for t in range(n)]


def test_a_log_replays_to_the_same_text_and_the_same_probabilities(acted, double_model, candidates):
    generations, log = acted
    rows = log.rows(generations)
    for scripts in (log.scripts(len(REQUESTS)), scripts_of_rows(rows, len(REQUESTS))):
        with double_model.intervened(Replay(double_model, candidates, scripts)):
            again = generate(double_model, REQUESTS, max_rows=5, logprobs=True)
        assert [one.tokens for one in again] == [one.tokens for one in generations]
        for one, other in zip(again, generations, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-10)


def test_one_action_at_every_token_is_what_the_engine_itself_adds(double_model, candidates):
    """Against `RowEdits` with the same direction at LAST | GENERATED."""
    for action in (0, 2, 4):
        scripts = [[action] * one.max_tokens for one in REQUESTS]
        with double_model.intervened(Replay(double_model, candidates, scripts)):
            found = generate(double_model, REQUESTS, logprobs=True)
        edits = [candidates.edit(action)] * len(REQUESTS)
        with double_model.intervened(RowEdits(double_model, edits, LAST | GENERATED)):
            expected = generate(double_model, REQUESTS, logprobs=True)
        for one, other in zip(found, expected, strict=True):
            assert one.tokens == other.tokens
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-10)


def test_a_choice_is_the_draw_of_its_own_luck_from_what_the_head_says(acted, head):
    _, log = acted
    luck = torch.tensor(
        [
            float(action_luck(REQUESTS[request].seed, 10)[t])
            for request, t in zip(log.requests.tolist(), log.places.tolist(), strict=True)
        ]
    ).double()
    assert log.observations is not None
    probabilities = head.double().log_probs(log.observations, log.allowed)
    head.float()
    torch.testing.assert_close(probabilities, log.all_log_probs, atol=1e-6, rtol=0)
    assert torch.equal(draw(log.logits, luck), log.actions)


def test_what_the_head_reads_is_the_stream_behind_the_steered_past(acted, double_model, candidates):
    """Against one pass over the whole text, with the logged actions before that token."""
    generations, log = acted
    assert log.observations is not None
    request = 16
    scripts = log.scripts(len(REQUESTS))
    tokens = double_model.tokenize([REQUESTS[request].prompt]).tokens[0].tolist()
    text = tokens + list(generations[request].tokens)
    for t in range(len(generations[request].tokens)):
        replay = Replay(double_model, candidates, [scripts[request][:t]], [len(tokens) - 1])
        with double_model.intervened(replay):
            read = torch.tensor([text[: len(tokens) + t]])
            seen = capture(double_model, read, ["0.resid_post"])["0.resid_post"]
        step = (log.requests == request) & (log.places == t)
        torch.testing.assert_close(seen[0, -1], log.observations[step][0], atol=1e-10, rtol=0)


def test_a_candidate_is_allowed_once_it_was_active_in_the_rows_own_context(acted, candidates):
    """At the first hook point, from what the head read; naive loop over rows and tokens."""
    _, log = acted
    point = candidates.acting_point
    members = candidates.members(point)
    assert log.observations is not None
    active = candidates.active(point, log.observations)
    for request in range(len(REQUESTS)):
        steps = (log.requests == request).nonzero()[:, 0].tolist()
        seen = torch.zeros(len(members), dtype=torch.bool)
        for step in steps:
            seen |= active[step]
            for column, k in enumerate(members):
                allowed = log.allowed[step, 1 + 2 * k : 3 + 2 * k].tolist()
                assert allowed == [bool(seen[column])] * 2


def test_a_later_hook_points_candidate_is_not_allowed_at_the_first_token(acted, candidates):
    _, log = acted
    late = [1 + 2 * k for k in candidates.members(HookPoint("1.resid_post"))]
    assert not log.allowed[log.places == 0][:, late].any()
    assert log.allowed[log.places > 0][:, late].any()


def test_forced_actions_are_taken_and_the_policy_goes_on_behind_them(
    acted, double_model, head, candidates
):
    generations, log = acted
    scripts = log.scripts(len(REQUESTS))
    again, _ = act(double_model, head, candidates, is_masked=True, forced=[s[:2] for s in scripts])
    assert [one.tokens for one in again] == [one.tokens for one in generations]
    other = [[2] for _ in scripts]
    changed, new_log = act(double_model, head, candidates, is_masked=True, forced=other)
    assert set(new_log.actions[new_log.places == 0].tolist()) == {2}
    assert [one.tokens for one in changed] != [one.tokens for one in generations]


def test_rows_of_a_log_say_what_was_done(acted, candidates):
    generations, log = acted
    rows = log.rows(generations, {(0, 1): (1.0, 2.0)})
    assert len(rows) == len(log)
    row = rows[1]
    assert (row["request"], row["t"], row["token"]) == (0, 1, generations[0].tokens[1])
    assert (row["logit_before"], row["logit_after"]) == (1.0, 2.0)
    for row, action in zip(rows, log.actions.tolist(), strict=True):
        name = candidates.name(action)
        assert row["hook_point"] == (str(name.point) if action else None)
        assert (row["latent"], row["coefficient"]) == (name.latent, name.coefficient)
        assert 0 < row["probability"] <= 1
        assert row["action"] != 0 or row["probability"] == row["no_op_probability"]


def test_the_runner_up_is_the_second_choice_and_none_where_only_one_is_allowed():
    log_probs = torch.tensor([0.2, 0.5, 0.3]).log()
    assert [runner_up(log_probs, action) for action in range(3)] == [1, 2, 1]
    assert runner_up(torch.tensor([0.0, -torch.inf]), 0) is None


def test_half_precision_models_act_and_greedy_decoding_too(candidates, head):
    from fluoroscope.models.tiny import tiny_model

    model = tiny_model("llama")
    model.network.bfloat16()
    acting = Acting(model, head, candidates, REQUESTS)
    with model.intervened(acting):
        generations = generate(model, REQUESTS, sampling=Sampling(temperature=0))
    log = acting.log()
    assert log.logits.dtype == torch.float32
    assert log.observations is None
    assert len(log) == sum(len(one.tokens) for one in generations)


def test_wrong_input_names_itself(double_model, candidates, head, acted):
    with pytest.raises(MismatchError, match="3 actions"):
        Acting(double_model, PolicyHead(16, 2, 3), candidates, REQUESTS)
    with (
        pytest.raises(InterventionError, match="given 1 requests"),
        double_model.intervened(Acting(double_model, head, candidates, REQUESTS[:1])),
    ):
        generate(double_model, REQUESTS)
    with pytest.raises(InterventionError, match="action 99"):
        Replay(double_model, candidates, [[99]])
    with pytest.raises(InterventionError, match="one list each"):
        Acting(double_model, head, candidates, REQUESTS, forced=[[1]])
    with pytest.raises(InterventionError, match="coefficient of 0"):
        Candidates((HookPoint("0.resid_post"),), (1,), (0.0,), torch.ones(1, 16))
    blind = Candidates((HookPoint("0.resid_post"),), (None,), (1.0,), torch.ones(1, 16))
    with pytest.raises(InterventionError, match="without readers"):
        Acting(double_model, PolicyHead(16, 2, 2), blind, REQUESTS, is_masked=True)
    wide = Candidates((HookPoint("0.resid_post"),), (None,), (1.0,), torch.ones(1, 8))
    with pytest.raises(MismatchError, match="width 8"):
        Replay(double_model, wide, [[0]])
    generations, log = acted
    with pytest.raises(InterventionError, match="not of the same"):
        log.rows(generations[:-1])
    with pytest.raises(InterventionError, match="rows are missing"):
        scripts_of_rows(log.rows(generations)[1:], len(REQUESTS))


def test_a_log_of_two_generations_is_refused(double_model, head, candidates):
    acting = Acting(double_model, head, candidates, REQUESTS[:2])
    with double_model.intervened(acting):
        generate(double_model, REQUESTS[:2])
        generate(double_model, REQUESTS[:2])
    with pytest.raises(InterventionError, match="decided twice"):
        acting.log()


def test_a_log_without_a_text_is_empty(double_model, head, candidates):
    log = Acting(double_model, head, candidates, REQUESTS).log()
    assert isinstance(log, ActionLog)
    assert log.rows([]) == []
