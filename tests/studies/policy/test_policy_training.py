"""The toy world is solved by every objective, and a training that was put down goes on."""

import pytest
import torch

from fluoroscope.core.errors import MismatchError, NumericsError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.core.sink import Sink
from fluoroscope.core.tensors import read_state, write_state
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.models.generation import Request, generate
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.tiny import tiny_model
from fluoroscope.studies.policy.acting import Replay
from fluoroscope.studies.policy.candidates import Candidates
from fluoroscope.studies.policy.heads import PolicyHead
from fluoroscope.studies.policy.rollouts import TextSource, unsteered_log_probs
from fluoroscope.studies.policy.toy import ToySource, ToyWorld
from fluoroscope.studies.policy.training import BanditTrainer, PolicyTrainer
from fluoroscope.studies.policy.training_config import PolicyTrainingConfig

SAMPLES = [
    Sample(id=str(i), group_id=str(i), prompt=prompt, references=("y",))
    for i, prompt in enumerate(("some text", "another text", "a third", "x"))
]


class Curve(Sink):
    def __init__(self):
        self.values = []

    def metrics(self, step, values):
        self.values.append((step, dict(values)))


def toy_head(world, seed):
    head = PolicyHead(world.d_model, 4, world.n_actions, seed=seed)
    head.calibrate(world.table(512, seed).observations)
    return head


def toy_trainer(objective, seed, n_iterations=100):
    world = ToyWorld(seed=seed)
    config = PolicyTrainingConfig(
        objective=objective, price=world.price, learning_rate=0.05, batch_size=512
    )
    source = ToySource(world, config.n_prompts, config.group_size, seed)
    return world, PolicyTrainer(toy_head(world, seed), source, config, n_iterations, seed)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("objective", ["reinforce", "grpo", "ppo"])
def test_the_toy_world_is_solved_from_texts_whose_outcome_comes_at_the_end(objective, seed):
    world, trainer = toy_trainer(objective, seed)
    before = world.value(trainer.head) / world.optimum
    assert world.value(trainer.train()) / world.optimum >= 0.95 > 0 > before


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_toy_world_is_solved_by_the_exact_gradient(seed):
    world = ToyWorld(seed=seed)
    config = PolicyTrainingConfig(price=world.price, learning_rate=0.03)
    head = toy_head(world, seed)
    curve = Curve()
    BanditTrainer(head, world.table(512, seed), config, 150).train(curve)
    assert world.value(head) / world.optimum >= 0.95
    # In two of four contexts acting does not pay.
    assert curve.values[-1][1]["acting"] == pytest.approx(0.5, abs=0.06)


def constant(world, shares):
    head = PolicyHead(world.d_model, 1, world.n_actions)
    with torch.no_grad():
        head.bias.copy_(torch.tensor(shares).clamp(min=1e-30).log())
    return head


def test_the_worlds_closed_forms_are_what_its_states_pay():
    world = ToyWorld()
    n = world.n_actions
    assert world.optimum == pytest.approx(4 * (0.8 + 0.6) / 4)
    never = constant(world, [1.0, *[0.0] * (n - 1)])
    assert world.value(never) == pytest.approx(0, abs=1e-6)
    assert world.value(constant(world, [1 / n] * n)) == pytest.approx(world.uniform, abs=0.05)
    best = constant(world, [0.0, 1.0, *[0.0] * (n - 2)])
    assert world.value(best) == pytest.approx(world.always, abs=0.1)
    table = world.table(4000, 0).priced(world.price)
    oracle = table.rewards.gather(1, table.best_action[:, None]).mean()
    assert float(oracle) * world.length == pytest.approx(world.optimum, abs=0.08)
    assert world.always < 0 < world.optimum
    assert world.uniform < 0


@pytest.mark.parametrize("objective", ["grpo", "ppo"])
def test_a_training_that_was_put_down_goes_on_bit_for_bit(objective, tmp_path):
    _, whole = toy_trainer(objective, 0, 8)
    whole.train()
    _, first = toy_trainer(objective, 0, 8)
    for iteration in range(3):
        first.advance(iteration)
    write_state(tmp_path / "state", first.state())
    _, second = toy_trainer(objective, 0, 8)
    with torch.no_grad():
        second.head.down.zero_()
    second.load(read_state(tmp_path / "state"))
    curve = Curve()
    for iteration in range(3, 8):
        second.advance(iteration, curve)
    for name, value in whole.head.state_dict().items():
        assert torch.equal(value, second.head.state_dict()[name]), name
    assert [step for step, _ in curve.values] == [4, 5, 6, 7, 8]
    names = {"return", "outcome", "acting", "kl", "entropy", "clipped"}
    assert names <= set(curve.values[-1][1])


def ask(sample, seed):
    return Request(prompt=sample.prompt, seed=seed, max_tokens=4, stop_tokens=())


def even_tokens(generations, _samples):
    return [sum(token % 2 == 0 for token in one.tokens) / 4 for one in generations]


def text_source(model, candidates, **options):
    return TextSource(
        model, candidates, SAMPLES, even_tokens, ask, n_prompts=3, group_size=4, **options
    )


def test_rollouts_of_a_model_are_its_texts_with_their_groups_and_rewards(
    double_model, candidates, head
):
    source = text_source(double_model, candidates, kl="k1", is_masked=True)
    rollouts = source.roll(head, 5)
    assert rollouts.group.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert rollouts.text.tolist() == [i for i in range(12) for _ in range(4)]
    again = source.roll(head, 5)
    assert torch.equal(rollouts.actions, again.actions)
    assert not torch.equal(rollouts.observations, source.roll(head, 6).observations)
    everything = head.double().log_probs(rollouts.observations, rollouts.allowed)
    head.float()
    taken = everything.gather(1, rollouts.actions[:, None])[:, 0]
    torch.testing.assert_close(taken, rollouts.log_probs, atol=1e-6, rtol=0)


def test_the_kl_of_a_text_is_zero_where_nothing_was_done(double_model, candidates):
    idle = PolicyHead(16, 1, candidates.n_actions)
    with torch.no_grad():
        idle.bias[0] = 1e4
    kl = text_source(double_model, candidates, kl="k1").roll(idle, 0).kl
    torch.testing.assert_close(kl, torch.zeros_like(kl), atol=1e-9, rtol=0)


def test_unsteered_log_probs_are_those_of_generation_without_edits(double_model, candidates):
    requests = [ask(sample, 3) for sample in SAMPLES]
    plain = generate(double_model, requests, logprobs=True)
    for one, found in zip(plain, unsteered_log_probs(double_model, requests, plain), strict=True):
        assert found.tolist() == pytest.approx(list(one.logprobs or ()), abs=1e-9)
    with double_model.intervened(Replay(double_model, candidates, [[3] * 4] * 4)):
        steered = generate(double_model, requests, logprobs=True)
    differs = unsteered_log_probs(double_model, requests, steered)
    assert differs[0].tolist() != pytest.approx(list(steered[0].logprobs or ()), abs=1e-3)


def test_a_model_is_steered_to_what_is_rewarded():
    """Tokens on one side of the unembedding, among a direction to it, one away, and no-op."""
    model = tiny_model("llama")
    direction = torch.randn(16, generator=torch_stream(0, "side"))
    side = (model.network.lm_head.weight.detach() @ direction > 0).tolist()
    point = HookPoint("2.resid_post")
    pair = torch.stack([direction, -direction])
    candidates = Candidates((point, point), (None, None), (20.0, 20.0), pair)

    def on_the_side(generations, _samples):
        return [sum(side[token] for token in one.tokens) / 4 for one in generations]

    head = PolicyHead(16, 2, 3)
    source = TextSource(model, candidates, SAMPLES, on_the_side, ask, n_prompts=4, group_size=8)
    head.calibrate(source.states(4))
    curve = Curve()
    PolicyTrainer(head, source, PolicyTrainingConfig(learning_rate=0.2), 12).train(curve)
    returns = [values["return"] for _, values in curve.values]
    assert sum(returns[:2]) / 2 < 0.5
    assert sum(returns[-4:]) / 4 > 0.75
    assert curve.values[-1][1]["acting"] > 0.9


def test_rewards_that_are_missing_or_nan_are_refused(double_model, candidates, head):
    for reward, error in (
        (lambda texts, _: [0.0], MismatchError),
        (lambda texts, _: [float("nan")] * len(texts), NumericsError),
    ):
        source = TextSource(
            double_model, candidates, SAMPLES, reward, ask, n_prompts=2, group_size=2
        )
        with pytest.raises(error, match=r"reward"):
            source.roll(head, 0)
