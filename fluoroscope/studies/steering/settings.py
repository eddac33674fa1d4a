"""What a user may set of the steering study; this module is free of torch."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from fluoroscope.core.config import Config
from fluoroscope.interventions.replies.strengths import Guard
from fluoroscope.steps.task_spec import CollectSpec, TaskSpec
from fluoroscope.studies.steering.recipes import Action, Recipe

AGAINST = [
    "corrsteer-s",
    "corrsteer-a",
    "corrsteer-p",
    "mutual-information",
    "fisher",
    "latent-difference",
    "caa",
    "probe",
    "pca",
    "random-latents",
    "random-direction",
]


class SteerSpec(Config):
    """What all methods have alike, unless a recipe of its own says otherwise."""

    action: Action = "add"
    """`add` adds the same wherever a token is drawn (CorrSteer); `clamp` moves latents, or the
    component along a direction, towards the value aimed at, and leaves alone what is there."""

    pool: Literal["max", "mean", "last"] = "max"
    """Which pooled latents are correlated; among `collect.pools`."""

    sign: Literal["positive", "negative", "either"] = "positive"
    """Latents that go along with success (as in the paper), with failure, or either."""

    coefficient: Literal["positive", "active", "difference", "quantile"] = "positive"
    """A latent's amount: its mean over scores above 0 (the paper's), over samples in which it is
    active, the difference of success and failure, or a high quantile."""

    layers: list[str] | None = None
    """Hook points that may be steered; all that have an SAE, if not given."""


class StrengthSpec(Config):
    """How strongly: searched on the validation side."""

    grid: list[float] = Field(default_factory=lambda: [0.25, 0.5, 1.0, 1.5, 2.0, 3.0])
    """Times the amounts that a method gives."""

    refinements: NonNegativeInt = 1
    """Times that the middles beside the best are tried as well."""

    towards: float | None = Field(default=None, ge=0, le=1)
    """The mean score aimed at, where more is not better (0.5 is fair); 1, if not given."""

    guard: Guard = Guard()

    texts: str | None = None
    """A file of texts on which perplexity is watched; the validation prompts, if not given."""

    n_texts: PositiveInt = 64
    """Of these texts."""

    @model_validator(mode="after")
    def _grid_is_one(self) -> "StrengthSpec":
        rises = all(one < other for one, other in zip(self.grid, self.grid[1:], strict=False))
        if not self.grid or not rises:
            raise ValueError("strength.grid must be numbers that rise, none twice.")
        if 0 in self.grid:
            raise ValueError("strength.grid must not have 0, which steers nothing and is tried.")
        return self


class EvaluateSpec(Config):
    """What is judged on the test side."""

    others: list[TaskSpec] = Field(default_factory=list)
    """Further tasks that steering is not meant for: `[mmlu, xstest]`."""

    margin: float = Field(default=0.02, gt=0, lt=1)
    """A score has stayed the same if its whole interval has moved by no more."""

    within: str | None = None
    """A fact of the samples by which the task is told apart in tables (`is_biased`); categories,
    if not given."""

    curve: list[PositiveInt] = Field(default_factory=list)
    """Sizes of the training side at which the main method is tried again."""

    sweep: list[float] = Field(default_factory=list)
    """Strengths at which the main method is judged on the test side; the grid, if not given."""

    ablations: bool = True
    """Whether pooling, sign, coefficient, action and layers are changed one at a time."""

    draws: PositiveInt = 5
    """Of each random control."""

    texts_per_shard: PositiveInt = 2048


class SteeringSettings(Config):
    """What a user says and what is worked on have alike."""

    task: TaskSpec
    """What the model is to do better; `task=emgsd` is short for `task.name=emgsd`."""

    data_dir: str | None = None
    """A folder that has a folder for each task."""

    method: str = "corrsteer-a"
    """The main method, which is ablated and swept."""

    against: list[str] = Field(default_factory=lambda: list(AGAINST))
    """Methods that stand beside it."""

    recipes: list[Recipe] = Field(default_factory=list)
    """Further ones, spelt out."""

    instruction: str = ""
    """What the baseline that only asks puts before every prompt; none, if empty."""

    steer: SteerSpec = SteerSpec()

    collect: CollectSpec = CollectSpec()

    strength: StrengthSpec = StrengthSpec()

    evaluate: EvaluateSpec = EvaluateSpec()

    seed: NonNegativeInt = 0
    """Of splits, shuffles, resamples and random controls."""

    threads: PositiveInt = 1
    """Threads of each worker; part of what is hashed, as it decides how sums round."""
