"""A toy world whose best policy is known in closed form, to be learnt by the same code.

Each token of a text stands in one of C contexts, drawn uniformly, which the state shows along a
hidden direction of its own under noise that is orthogonal to all of them. Action c + 1 pays
`gains[c]` in context c, and every action costs `harm` in any other. A text tells its outcome, the
sum over its tokens, only at its end, so that which action it owes it to must be learnt.

Acting pays only where a context's gain exceeds the price:
    optimum = length * mean_c max(0, gains[c] - price)

Axes: texts, tokens, states, actions, d_model.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.core.seeding import derive_seed, stream, torch_stream
from fluoroscope.studies.policy.bandit import RewardTable
from fluoroscope.studies.policy.heads import PolicyHead, draw
from fluoroscope.studies.policy.rollouts import Rollouts


@dataclass(frozen=True)
class ToyWorld:
    gains: tuple[float, ...] = (1.0, 0.8, 0.1, 0.0)
    """Of each context; where it is below the price, doing nothing is best."""

    harm: float = 0.5
    price: float = 0.2
    length: int = 4
    """Tokens of a text."""

    d_model: int = 16
    noise: float = 1.0
    """Standard deviation along each direction that shows no context; a context's is 3."""

    seed: int = 0

    @property
    def n_actions(self) -> int:
        return 1 + len(self.gains)

    @property
    def optimum(self) -> float:
        """The expected return of the best policy, price paid."""
        return self.length * float(np.mean([max(0.0, gain - self.price) for gain in self.gains]))

    @property
    def always(self) -> float:
        """Of the best action that never rests."""
        n = len(self.gains)
        means = [(gain - (n - 1) * self.harm) / n - self.price for gain in self.gains]
        return self.length * max(means)

    @property
    def uniform(self) -> float:
        """Of drawing among all actions alike."""
        n = len(self.gains)
        paid = (float(np.mean(self.gains)) - (n - 1) * self.harm) / n - self.price
        return self.length * paid * n / (n + 1)

    def payoffs(self, contexts: Int[Tensor, " states"]) -> Float[Tensor, "states actions"]:
        """Of every action, before its price."""
        n = len(self.gains)
        paid = torch.full((n, n + 1), -self.harm, dtype=torch.float64)
        paid[:, 0] = 0
        paid[range(n), range(1, n + 1)] = torch.tensor(self.gains, dtype=torch.float64)
        return paid[contexts]

    def states(
        self, contexts: Int[Tensor, " states"], seed: int
    ) -> Float[Tensor, "states d_model"]:
        """What is seen, with noise drawn by `seed`."""
        random = torch_stream(seed, "toy noise")
        noise = self.noise * torch.randn(len(contexts), self.d_model, generator=random)
        n = len(self.gains)
        noise[:, :n] = 0
        noise[torch.arange(len(contexts)), contexts] = 3.0
        return noise @ self._rotation()

    def value(self, head: PolicyHead, n_states: int = 4096) -> float:
        """The expected return of a policy, price paid: exact in its actions, over fresh states."""
        table = self.table(n_states, derive_seed(self.seed, "toy value")).priced(self.price)
        with torch.no_grad():
            shares = head.log_probs(table.observations, table.allowed).double().exp()
        return self.length * float((shares * table.rewards).sum(dim=1).mean())

    def table(self, n_states: int, seed: int) -> RewardTable:
        """One-token texts, as a bandit; rewards are before the price."""
        contexts = torch.from_numpy(stream(seed, "toy").integers(len(self.gains), size=n_states))
        rewards = self.payoffs(contexts)
        return RewardTable(
            rewards,
            self.states(contexts, seed),
            torch.ones_like(rewards, dtype=torch.bool),
            torch.zeros_like(rewards),
            torch.zeros(n_states, dtype=torch.float64),
        )

    def _rotation(self) -> Float[Tensor, "d_model d_model"]:
        """Hides the contexts' directions among the others."""
        random = torch_stream(self.seed, "toy rotation")
        return torch.linalg.qr(torch.randn(self.d_model, self.d_model, generator=random))[0]


class ToySource:
    """Texts of a toy world; those of one group go through the same states."""

    def __init__(self, world: ToyWorld, n_prompts: int, group_size: int, seed: int = 0) -> None:
        self._world, self._n_prompts, self._group_size = world, n_prompts, group_size
        self._seed = seed

    @torch.no_grad()
    def roll(self, head: PolicyHead, iteration: int) -> Rollouts:
        world, length = self._world, self._world.length
        seed = derive_seed(self._seed, "toy", iteration)
        shape = (self._n_prompts, length)
        contexts = stream(seed, "contexts").integers(len(world.gains), size=shape)
        flat = torch.from_numpy(contexts.reshape(-1))
        group = torch.arange(self._n_prompts).repeat_interleave(self._group_size)
        # All states of a prompt's texts: the same for each text of its group.
        states = world.states(flat, seed).view(*shape, -1)[group].flatten(0, 1)
        payoffs = world.payoffs(flat).view(*shape, -1)[group].flatten(0, 1)
        allowed = torch.ones_like(payoffs, dtype=torch.bool)
        log_probs = head.log_probs(states, allowed)
        n_texts = len(group)
        luck = torch.from_numpy(stream(seed, "actions").random(len(states)))
        actions = draw(log_probs, luck)
        taken = payoffs.gather(1, actions[:, None]).view(n_texts, length)
        return Rollouts(
            states,
            allowed,
            actions,
            log_probs.gather(1, actions[:, None])[:, 0].double(),
            torch.arange(n_texts).repeat_interleave(length),
            torch.arange(length).repeat(n_texts),
            torch.zeros(len(actions), dtype=torch.float64),
            taken.sum(dim=1),
            group,
        )
