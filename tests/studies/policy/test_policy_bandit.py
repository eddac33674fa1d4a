"""The enumerated reward of every action is what generation gives, in expectation or exactly."""

import pytest
import torch

from fluoroscope.core.errors import InterventionError, MismatchError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.models.generation import Request, generate
from fluoroscope.models.sampling import Sampling
from fluoroscope.studies.policy.acting import Acting, Replay
from fluoroscope.studies.policy.bandit import RewardTable, enumerate_rewards, judge_bandit
from fluoroscope.studies.policy.heads import PolicyHead
from fluoroscope.studies.policy.objectives import expected_reward
from fluoroscope.studies.policy.training import BanditTrainer
from fluoroscope.studies.policy.training_config import PolicyTrainingConfig

PROMPTS = ("some text", "another text", "a third one", "x")
SAMPLES = [
    Sample(id=str(i), group_id=str(i), prompt=prompt, references=("y",))
    for i, prompt in enumerate(PROMPTS)
]
REQUESTS = [Request(prompt=prompt, max_tokens=1) for prompt in PROMPTS]


def worth(generations, samples):
    """Depends on the token, the text, how it ended, and the sample."""
    return [
        (one.tokens[0] % 5 + len(one.text) + (one.finish == "stop_token")) * (1 + int(sample.id))
        for one, sample in zip(generations, samples, strict=True)
    ]


@pytest.fixture(scope="module")
def table(double_model, candidates):
    return enumerate_rewards(double_model, candidates, SAMPLES, REQUESTS, worth, is_masked=True)


def test_the_enumerated_reward_is_the_sum_over_all_tokens(table, double_model, candidates):
    """Against a pass of the model with the action replayed, and every token generated."""
    for i, request in enumerate(REQUESTS):
        tokens = double_model.tokenize([request.prompt]).tokens
        for action in range(candidates.n_actions):
            with double_model.intervened(Replay(double_model, candidates, [[action]])):
                logits = double_model.forward(tokens)[0, -1]
            expected = 0.0
            for token, share in enumerate(logits.softmax(-1).tolist()):
                is_stop = token == 2
                text = "" if is_stop else double_model.tokenizer.decode([token])
                value = (token % 5 + len(text) + is_stop) * (1 + i)
                expected += share * value
            assert float(table.rewards[i, action]) == pytest.approx(expected, abs=1e-9)
    assert float(table.missed.max()) < 1e-12


def test_greedy_rewards_are_those_of_generated_texts(double_model, candidates):
    greedy = Sampling(temperature=0)
    found = enumerate_rewards(double_model, candidates, SAMPLES, REQUESTS, worth, sampling=greedy)
    for action in range(candidates.n_actions):
        replay = Replay(double_model, candidates, [[action]] * len(REQUESTS))
        with double_model.intervened(replay):
            texts = generate(double_model, REQUESTS, sampling=greedy)
        assert worth(texts, SAMPLES) == pytest.approx(found.rewards[:, action].tolist(), abs=1e-9)


def test_a_floor_leaves_out_little_and_says_how_much(table, double_model, candidates):
    found = enumerate_rewards(
        double_model, candidates, SAMPLES, REQUESTS, worth, floor=0.01, is_masked=True
    )
    assert 0.001 < float(found.missed.max()) < 0.6
    highest = 12.0 * torch.arange(1, 5).double()[:, None]
    gap = table.rewards - found.rewards
    assert bool((gap >= -1e-12).all())
    assert bool((gap <= found.missed[:, None] * highest).all())


def test_the_table_is_the_state_and_the_mask_of_the_acting_policy(
    table, double_model, candidates, head
):
    acting = Acting(
        double_model, head, candidates, REQUESTS, is_masked=True, keeps_observations=True
    )
    with double_model.intervened(acting):
        generate(double_model, REQUESTS)
    log = acting.log()
    torch.testing.assert_close(log.observations, table.observations, atol=1e-10, rtol=0)
    assert torch.equal(log.allowed, table.allowed)
    assert not table.allowed.all()


def test_the_kl_is_zero_for_no_op_and_exact_for_others(table, double_model, candidates):
    assert table.kl[:, 0].tolist() == [0.0] * 4
    tokens = double_model.tokenize([PROMPTS[2]]).tokens
    scores = []
    for action in (0, 3):
        with double_model.intervened(Replay(double_model, candidates, [[action]])):
            scores.append(double_model.forward(tokens)[0, -1].log_softmax(-1))
    exact = float((scores[1].exp() * (scores[1] - scores[0])).sum().detach())
    assert float(table.kl[2, 3]) == pytest.approx(exact, abs=1e-10)


def test_the_sampled_estimate_has_the_exact_gradient_as_its_mean(table, head):
    """For the head's own weights: sum over actions of probability x REINFORCE's gradient."""
    head = PolicyHead(16, 4, table.n_actions, seed=3).double()
    with torch.no_grad():
        head.up.copy_(torch.randn(head.up.shape, generator=torch_stream(0, "up")))
    weights = list(head.parameters())
    log_probs = head.log_probs(table.observations, table.allowed)
    exact = torch.autograd.grad(expected_reward(log_probs, table.rewards), weights)
    total = [torch.zeros_like(weight) for weight in weights]
    for sample in range(len(table)):
        for action in table.allowed[sample].nonzero()[:, 0].tolist():
            log_probs = head.log_probs(table.observations, table.allowed)[sample, action]
            # Any baseline that does not depend on the action leaves the mean where it is.
            advantage = table.rewards[sample, action] - 3.0
            gradients = torch.autograd.grad(advantage * log_probs, weights)
            share = float(log_probs.detach().exp()) / len(table)
            for into, gradient in zip(total, gradients, strict=True):
                into += share * gradient
    for found, expected in zip(total, exact, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def test_the_oracle_bounds_the_trained_policy_which_beats_its_controls(table):
    head = PolicyHead(16, 4, table.n_actions, seed=1)
    head.calibrate(table.observations)
    config = PolicyTrainingConfig(learning_rate=0.05, entropy=0.0)
    BanditTrainer(head, table, config, 300).train()
    with torch.no_grad():
        shares = head.log_probs(table.observations.float(), table.allowed).exp()
    judged = {k: v.value for k, v in judge_bandit(table, shares, table.best_static).items()}
    assert judged["policy"] <= judged["oracle"] + 1e-9
    assert judged["policy"] >= 0.98 * judged["oracle"]
    assert judged["oracle"] >= judged["best static action"] >= judged["never"]
    assert judged["random action"] < judged["policy, likeliest action"]


def made(rewards, allowed=None):
    rewards = torch.tensor(rewards, dtype=torch.float64)
    shape = rewards.shape
    mask = torch.ones(shape, dtype=torch.bool) if allowed is None else torch.tensor(allowed)
    zeros = torch.zeros(shape, dtype=torch.float64)
    return RewardTable(rewards, torch.zeros(shape[0], 2), mask, zeros, zeros[:, 0])


def test_bounds_and_controls_by_hand():
    table = made([[0.0, 1.0, 3.0], [0.0, 2.0, -9.0]], [[True, True, False], [True, True, True]])
    assert table.best_action.tolist() == [1, 1]
    assert table.best_static == 1
    # Where it is not allowed, no-op is done.
    assert table.static(2).tolist() == [0.0, -9.0]
    shares = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    judged = judge_bandit(table, shares, 1)
    assert judged["policy"].value == pytest.approx(0.25)
    assert judged["policy, likeliest action"].value == 0
    assert judged["oracle"].value == 1.5
    assert judged["random action"].value == pytest.approx((0.5 - 7 / 3) / 2)
    assert table.of([1]).rewards.tolist() == [[0.0, 2.0, -9.0]]


def test_a_price_is_paid_for_acting_and_kl_by_the_nat():
    table = made([[1.0, 2.0]])
    table = RewardTable(
        table.rewards, table.observations, table.allowed, torch.tensor([[0.0, 3.0]]), table.missed
    )
    priced = table.priced(0.5, 0.1)
    assert priced.rewards.tolist() == [[1.0, pytest.approx(1.2)]]
    assert table.priced(0.5).priced(0.5).rewards.tolist() == [[1.0, 1.0]]


def test_wrong_input_names_itself(double_model, candidates):
    with pytest.raises(MismatchError, match="one request for each sample"):
        enumerate_rewards(double_model, candidates, SAMPLES, REQUESTS[1:], worth)
    with pytest.raises(InterventionError, match="reward NaN"):
        made([[0.0, float("nan")]])
