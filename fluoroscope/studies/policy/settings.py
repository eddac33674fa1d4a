"""What a user may set of the policy study; this module is free of torch."""

import math
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from fluoroscope.core.config import Config
from fluoroscope.models.sampling_config import SamplingConfig
from fluoroscope.steps.task_spec import CollectSpec, TaskSpec
from fluoroscope.studies.policy.training_config import PolicyTrainingConfig

MOST_CANDIDATES, MOST_MULTIPLES = 64, 5


class CandidatesSpec(Config):
    """Among what a policy chooses at every token, beside doing nothing."""

    n: int = Field(default=16, ge=1, le=MOST_CANDIDATES)
    """Latents whose r is largest; a policy over whole dictionaries learns nothing."""

    multiples: list[float] = Field(default_factory=lambda: [1.0, 2.0, 3.0])
    """Times E[x | active] that a latent may be added with, by the sign of its r."""

    hook_points: list[str] | None = None
    """Where they are; the one at which r is largest, if not given, as what is read there tells
    most. At several the policy reads and decides at the first."""

    pool: Literal["max", "mean", "last"] = "max"
    """Which pooled latents r is of; among `collect.pools`."""

    sign: Literal["positive", "negative", "either"] = "either"
    """Latents that go along with success, with failure (steered away from), or either."""

    only_significant: bool = True
    """Whether r must differ from 0 beyond chance; fewer than `n` are taken then, if need be."""

    draws: NonNegativeInt = 2
    """Sets of as many random latents, as frequent and as long, trained alike: the control."""

    @model_validator(mode="after")
    def _multiples_are_some(self) -> "CandidatesSpec":
        several = self.multiples
        if not 1 <= len(several) <= MOST_MULTIPLES or len(set(several)) < len(several):
            raise ValueError(f"candidates.multiples must be 1 to {MOST_MULTIPLES}, none twice.")
        if not all(math.isfinite(one) and one > 0 for one in several):
            raise ValueError("candidates.multiples must be above 0; doing nothing is always there.")
        return self


class LearnSpec(Config):
    """How policies are trained."""

    by: list[Literal["rewards", "texts"]] | None = None
    """`rewards`: the exact gradient, from the reward of every action for every sample; `texts`:
    `training.objective` from replies as they are written. Rewards, if not given, where they can be
    enumerated, else texts."""

    seeds: PositiveInt = 3
    """Trainings of each kind, which differ by their seed alone."""

    exact_iterations: PositiveInt = 300
    """Of the exact gradient, each over all samples."""

    text_iterations: PositiveInt = 30
    """Of texts, each over `training.n_prompts` x `training.group_size` replies."""

    rank: PositiveInt = 8
    """Of the head: d_model x rank and rank x actions weights."""

    no_op_share: float = Field(default=0.5, gt=0, lt=1)
    """Of tokens at which it does nothing before it has learnt."""

    is_masked: bool = False
    """Whether only latents that are active in the text so far may be added."""

    sampling: SamplingConfig = SamplingConfig()
    """How replies are drawn that are learnt from, judged and logged."""

    training: PolicyTrainingConfig = PolicyTrainingConfig()


class PolicyEvaluateSpec(Config):
    """What is judged on the test side."""

    others: list[TaskSpec] = Field(default_factory=list)
    """Further tasks that acting is not meant for, whose rewards can be enumerated."""

    within: str | None = None
    """A fact of the samples by which the task is told apart in tables (`is_biased`); categories,
    if not given."""

    texts: PositiveInt = 64
    """Samples to which replies are generated, where policies are trained by texts."""

    replies: int = Field(default=8, ge=2)
    """To each of them."""

    logged: PositiveInt = 32
    """Replies whose choices are written down token by token, and replayed."""

    branches: PositiveInt = 16
    """Of these, how many are looked at for what one action decided; costs the square of length."""

    samples_per_shard: PositiveInt = 256


class PolicySettings(Config):
    """What a user says and what is worked on have alike."""

    task: TaskSpec
    """What the model is to do better; `task=emgsd` is short for `task.name=emgsd`."""

    data_dir: str | None = None
    """A folder that has a folder for each task."""

    towards: float | None = Field(default=None, ge=0, le=1)
    """The score aimed at, where more is not better (0.5 is fair); 1, if not given."""

    collect: CollectSpec = CollectSpec()

    candidates: CandidatesSpec = CandidatesSpec()

    learn: LearnSpec = LearnSpec()

    evaluate: PolicyEvaluateSpec = PolicyEvaluateSpec()

    seed: NonNegativeInt = 0
    """Of splits, shuffles, resamples, random controls and replies."""

    threads: PositiveInt = 1
    """Threads of each worker; part of what is hashed, as it decides how sums round."""
