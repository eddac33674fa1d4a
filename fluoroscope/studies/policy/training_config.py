"""How a policy is trained: its objective, its optimiser, and what acting costs."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from fluoroscope.core.config import Config

Objective = Literal["reinforce", "grpo", "ppo"]
"""`reinforce`: leave-one-out baseline of the group; `grpo`: normalised by the outcomes of
the group, clipped ratio; `ppo`: advantages of a value head, clipped ratio."""


class PolicyTrainingConfig(Config):
    """One-token tasks by their exact gradient use the learning rate, the costs and the entropy
    alone.
    """

    objective: Objective = "grpo"
    learning_rate: PositiveFloat = 0.02
    """Of Adam, for all weights of the head."""

    n_prompts: PositiveInt = 16
    """Prompts of an iteration."""

    group_size: int = Field(default=8, ge=2)
    """Texts of each prompt, which are each other's baseline."""

    n_epochs: PositiveInt = 2
    """How often the texts of an iteration are gone through; more than one needs the clipped
    ratio, so REINFORCE takes one."""

    batch_size: PositiveInt = 4096
    """Tokens of one gradient step."""

    clip: float = Field(default=0.2, gt=0, lt=1)
    """How far the probability of an action may move in one iteration, as a ratio."""

    trace: float = Field(default=1.0, ge=0, le=1)
    """Lambda of the generalised advantages of PPO; 1 is return less value."""

    price: NonNegativeFloat = 0.0
    """What an action other than no-op costs, in units of the reward."""

    kl_weight: NonNegativeFloat = 0.0
    """What a nat of KL to the unsteered model costs."""

    kl: Literal["k1", "k3"] = "k3"
    """How that KL is estimated from the tokens of a text; one-token tasks have it exactly."""

    entropy: NonNegativeFloat = 0.01
    """Weight of the entropy bonus at the start; it falls linearly to 0."""
