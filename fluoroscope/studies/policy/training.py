"""Trains a policy: by texts that it acted in, or by the exact gradient of one-token tasks.

Both trainers are loops that can be put down after any iteration and taken up bit for bit: what an
iteration draws depends on its number and the seed, and the rest is in `state`.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fluoroscope.core.errors import NumericsError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.core.tensors import State
from fluoroscope.studies.policy.bandit import RewardTable
from fluoroscope.studies.policy.candidates import NO_OP
from fluoroscope.studies.policy.heads import PolicyHead, ValueHead, entropy
from fluoroscope.studies.policy.objectives import (
    clipped_share,
    clipped_surrogate,
    expected_reward,
    falling,
    generalised_advantages,
    group_baseline,
    mean_over_texts,
    priced_normalised,
    sum_over_texts,
    text_returns,
    token_rewards,
)
from fluoroscope.studies.policy.rollouts import Rollouts, RolloutSource
from fluoroscope.studies.policy.training_config import PolicyTrainingConfig

_MAX_GRADIENT = 1.0
"""Norm at which a gradient is cut: one text with a rare outcome must not decide."""


class Trainer(ABC):
    """A head, its optimiser, and one iteration after the other."""

    def __init__(
        self,
        head: PolicyHead,
        config: PolicyTrainingConfig,
        n_iterations: int,
        value_head: ValueHead | None = None,
    ) -> None:
        self.head, self.value_head, self.config = head, value_head, config
        self.n_iterations = n_iterations
        self._modules: dict[str, nn.Module] = {"head": head}
        if value_head is not None:
            self._modules["value_head"] = value_head
        self._parameters = [p for module in self._modules.values() for p in module.parameters()]
        self._optimizer = torch.optim.Adam(self._parameters, lr=config.learning_rate)

    @abstractmethod
    def advance(self, iteration: int, sink: Sink = SILENT) -> None:
        """Does iteration number `iteration`."""

    def train(self, sink: Sink = SILENT) -> PolicyHead:
        """The whole loop, for use without a run."""
        for iteration in range(self.n_iterations):
            self.advance(iteration, sink)
            sink.progress(iteration + 1, self.n_iterations, "iterations")
        return self.head

    def state(self) -> State:
        modules = {name: dict(module.state_dict()) for name, module in self._modules.items()}
        return {"modules": modules, "optimizer": self._optimizer.state_dict()}

    def load(self, state: State) -> None:
        for name, module in self._modules.items():
            module.load_state_dict(state["modules"][name])
        self._optimizer.load_state_dict(state["optimizer"])

    def _step(self, loss: Float[Tensor, ""], iteration: int) -> None:
        if not bool(loss.isfinite()):
            raise NumericsError(
                f"The loss of the policy became {float(loss)} in iteration {iteration}. Give a "
                f"smaller learning rate than {self.config.learning_rate:.2g}."
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, _MAX_GRADIENT)
        self._optimizer.step()

    def _entropy_weight(self, iteration: int) -> float:
        return falling(self.config.entropy, iteration, self.n_iterations)


class BanditTrainer(Trainer):
    """The exact gradient over all samples of a table, whose rewards are before any cost."""

    def __init__(
        self, head: PolicyHead, table: RewardTable, config: PolicyTrainingConfig, n_iterations: int
    ) -> None:
        super().__init__(head, config, n_iterations)
        self._unpriced, self._table = table, table.priced(config.price, config.kl_weight)
        self._observations = table.observations.float()

    def advance(self, iteration: int, sink: Sink = SILENT) -> None:
        log_probs = self.head.log_probs(self._observations, self._table.allowed)
        reward = expected_reward(log_probs, self._table.rewards)
        spread = entropy(log_probs).double().mean()
        self._step(-reward - self._entropy_weight(iteration) * spread, iteration)
        shares = log_probs.detach().double().exp()
        sink.metrics(
            iteration + 1,
            {
                "return": float(reward.detach()),
                "outcome": float((shares * self._unpriced.rewards).sum(dim=1).mean()),
                "acting": float(1 - shares[:, NO_OP].mean()),
                "kl": float((shares * self._unpriced.kl).sum(dim=1).mean()),
                "entropy": float(spread.detach()),
            },
        )


class PolicyTrainer(Trainer):
    """Texts in which the policy acted, by REINFORCE, GRPO or PPO."""

    def __init__(
        self,
        head: PolicyHead,
        source: RolloutSource,
        config: PolicyTrainingConfig,
        n_iterations: int,
        seed: int = 0,
    ) -> None:
        critic = None
        if config.objective == "ppo":
            critic = ValueHead(head.down.shape[0], head.down.shape[1], seed)
            critic.load_state_dict({"centre": head.centre, "scale": head.scale}, strict=False)
        super().__init__(head, config, n_iterations, critic)
        self._source, self._seed = source, seed

    def advance(self, iteration: int, sink: Sink = SILENT) -> None:
        rollouts = self._source.roll(self.head, iteration)
        rewards = self._rewards(rollouts)
        returns = text_returns(rewards, rollouts.text, rollouts.n_texts)
        advantages = self._advantages(rollouts, rewards, returns)
        goals = self._goals(rollouts, advantages)
        numbers: dict[str, float] = {}
        for epoch in range(1 if self.config.objective == "reinforce" else self.config.n_epochs):
            for some in self._batches(rollouts, iteration, epoch):
                numbers = self._improve(rollouts, advantages, goals, some, iteration)
        acted = (rollouts.actions != NO_OP).double()
        sink.metrics(
            iteration + 1,
            {
                "return": float(returns.mean()),
                "outcome": float(rollouts.outcomes.mean()),
                "acting": float(acted.mean()),
                "kl": float(rollouts.kl.mean()),
                **numbers,
            },
        )

    def _rewards(self, rollouts: Rollouts) -> Float[Tensor, " steps"]:
        acted = (rollouts.actions != NO_OP).double()
        costs = self.config.price * acted + self.config.kl_weight * rollouts.kl
        # A text's last token is followed by the first of the next.
        is_last = torch.ones_like(costs)
        is_last[:-1] = (rollouts.text[1:] != rollouts.text[:-1]).double()
        return token_rewards(rollouts.outcomes, rollouts.text, is_last, costs)

    @torch.no_grad()
    def _advantages(
        self, rollouts: Rollouts, rewards: Tensor, returns: Tensor
    ) -> Float[Tensor, " steps"]:
        match self.config.objective:
            case "reinforce":
                return group_baseline(returns, rollouts.group)[rollouts.text]
            case "grpo":
                gained = priced_normalised(returns, rollouts.outcomes, rollouts.group)
                return gained[rollouts.text]
            case "ppo":
                values = self._values(rollouts)
                return generalised_advantages(
                    rewards, values, rollouts.text, rollouts.place, trace=self.config.trace
                )

    @torch.no_grad()
    def _goals(self, rollouts: Rollouts, advantages: Tensor) -> Float[Tensor, " steps"]:
        """What the value head is to say: its old value and the advantage over it."""
        return advantages + self._values(rollouts).double()

    def _values(self, rollouts: Rollouts) -> Float[Tensor, " steps"]:
        if self.value_head is None:
            return torch.zeros(len(rollouts.actions))
        return self.value_head(rollouts.observations.float())

    def _batches(self, rollouts: Rollouts, iteration: int, epoch: int) -> list[Int[Tensor, " _"]]:
        """Steps of whole texts, shuffled."""
        random = torch_stream(self._seed, "epoch", iteration, epoch)
        order = torch.randperm(rollouts.n_texts, generator=random)
        n_batches = -(-len(rollouts.actions) // self.config.batch_size)
        parts = order.tensor_split(min(n_batches, rollouts.n_texts))
        return [torch.isin(rollouts.text, part).nonzero()[:, 0] for part in parts]

    def _improve(
        self, rollouts: Rollouts, advantages: Tensor, goals: Tensor, some: Tensor, iteration: int
    ) -> dict[str, float]:
        """One gradient step on some steps of whole texts."""
        x = rollouts.observations[some].float()
        everything = self.head.log_probs(x, rollouts.allowed[some])
        now = everything.gather(1, rollouts.actions[some, None])[:, 0].double()
        old, gained = rollouts.log_probs[some].double(), advantages[some].double()
        texts, text = rollouts.text[some].unique(return_inverse=True)
        n_texts = len(texts)
        match self.config.objective:
            case "reinforce":
                objective = sum_over_texts(gained * now, text, n_texts)
            case "grpo":
                surrogate = clipped_surrogate(now, old, gained, self.config.clip)
                objective = mean_over_texts(surrogate, text, n_texts)
            case "ppo":
                # The scale of advantages is the reward's, which may be anything.
                spread = gained.std(correction=0).clamp(min=1e-8)
                scaled = (gained - gained.mean()) / spread
                objective = clipped_surrogate(now, old, scaled, self.config.clip).mean()
        spread = entropy(everything).double().mean()
        loss = -objective - self._entropy_weight(iteration) * spread
        numbers = {
            "entropy": float(spread.detach()),
            "clipped": clipped_share(now.detach(), old, self.config.clip),
        }
        if self.value_head is not None:
            miss = (self.value_head(x).double() - goals[some]).square().mean()
            loss = loss + 0.5 * miss
            numbers["value_loss"] = float(miss.detach())
        self._step(loss, iteration)
        return numbers
