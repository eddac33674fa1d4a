"""What a user may set of the unlearning study; this module is free of torch."""

import math
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from fluoroscope.core.config import Config
from fluoroscope.data.corpus_config import CorpusConfig
from fluoroscope.steps.task_spec import TaskSpec
from fluoroscope.studies.unlearning.config import FineTuningConfig

Selection = Literal["frequency", "importance"]


class SelectSpec(Config):
    """Which latents are clamped; every combination of these is tried."""

    by: list[Selection] = Field(default_factory=lambda: ["frequency", "importance"], min_length=1)
    """`frequency` (rare on what is to be kept, frequent on what is to be forgotten) or
    `importance` (DSG: the ratio of mean squares); the first is the main one."""

    max_retain: list[float] = Field(default_factory=lambda: [0.01, 0.05], min_length=1)
    """Of frequency: the share of tokens to keep in which a latent is active stays below it."""

    percentile: list[float] = Field(default_factory=lambda: [90.0], min_length=1)
    """Of importance: latents whose ratio is from this percentile of their hook point on."""

    n: list[PositiveInt] = Field(default_factory=lambda: [16, 64], min_length=1)
    """Latents of a hook point."""

    hook_points: list[str] | None = None
    """Where latents are clamped, at one of them at a time; at each that has an SAE, if not
    given."""

    together: bool = False
    """Whether it is also tried to clamp at all of them at once."""

    @field_validator("by", "max_retain", "percentile", "n")
    @classmethod
    def _none_twice(cls, value: list) -> list:
        if len(set(value)) < len(value):
            raise ValueError("names something twice.")
        return value


class ClampSpec(Config):
    """How, and on which texts."""

    strengths: list[float] = Field(default_factory=lambda: [20.0, 60.0], min_length=1)
    """A clamped latent is set to -strength where it is active."""

    percentile: float = Field(default=99.0, gt=0, le=100)
    """A detector's threshold (tau) is this percentile of the prompts to keep."""

    penalty: float = Field(default=0.1, gt=0)
    """Of the squared weights of the learned detector."""

    margin: float = Field(default=0.02, gt=0, lt=1)
    """What may be lost of what is to be kept: accuracy, or the rise of perplexity. Settings are
    chosen that forget most and lose no more on the validation side."""

    @field_validator("strengths")
    @classmethod
    def _all_clamp(cls, value: list[float]) -> list[float]:
        if not all(math.isfinite(one) and one > 0 for one in value):
            raise ValueError(
                "clamp.strengths must be above 0: what is below 0 that latents are set to. 0 is "
                "zero-ablation, which is judged anyway; a negative one would amplify them."
            )
        if len(set(value)) < len(value):
            raise ValueError("clamp.strengths names one twice.")
        return value


class RelearnSpec(Config):
    """Whether what was forgotten comes back when some of it is taught again."""

    share: float = Field(default=0.5, gt=0, lt=1)
    """Of the people, or of the texts, to forget."""

    training: FineTuningConfig = FineTuningConfig(
        objective="ordinary", n_iterations=30, validate_every=5, learning_rate=1e-4
    )
    """`validate_every` is how often it is asked what has come back."""

    @model_validator(mode="after")
    def _teaches(self) -> "RelearnSpec":
        if self.training.objective != "ordinary":
            raise ValueError(
                "relearn.training.objective must be ordinary: what was forgotten is taught again."
            )
        return self


class EvaluateSpec(Config):
    """What is judged."""

    others: list[TaskSpec] = Field(default_factory=list)
    """Further tasks that must stay as they are: `[mmlu, xstest]`."""

    margin: float = Field(default=0.02, gt=0, lt=1)
    """A score has stayed the same if its whole interval has moved by no more."""

    draws: PositiveInt = 3
    """Of the control: random latents that are as frequent."""

    n_texts: PositiveInt = 128
    """Held-out texts of each kind, drawn by seed, on which predictions are compared."""

    texts_per_shard: PositiveInt = 256
    """Of those that latents are measured on."""


FINE_TUNINGS = [
    FineTuningConfig(objective="uniform", learning_rate=3e-4),
    FineTuningConfig(objective="difference", learning_rate=1e-4),
]


class UnlearningSettings(Config):
    """What a user says and what is worked on have alike."""

    forget: CorpusConfig | None = None
    """Texts to forget; on the organism people are forgotten, if not given."""

    retain: CorpusConfig | None = None
    """Texts to keep."""

    people: PositiveInt | None = None
    """How many of the people whom the organism knows well are forgotten; 12, if not given, and
    fewer than 10 give no interval."""

    task: TaskSpec | None = None
    """A task of choices by which keeping is judged as well, where texts are forgotten."""

    data_dir: str | None = None
    """A folder that has a folder for each task."""

    select: SelectSpec = SelectSpec()

    clamp: ClampSpec = ClampSpec()

    finetune: list[FineTuningConfig] = Field(default_factory=lambda: list(FINE_TUNINGS))
    """Fine-tunings on the same texts; of each objective the one that validation likes best is
    judged. None, if empty."""

    relearn: RelearnSpec = RelearnSpec()

    evaluate: EvaluateSpec = EvaluateSpec()

    seed: NonNegativeInt = 0
    """Of who is forgotten, of random controls, and of who is taught again."""

    threads: PositiveInt = 1
    """Threads of each worker; part of what is hashed, as it decides how sums round."""

    @field_validator("finetune")
    @classmethod
    def _forgets(cls, value: list[FineTuningConfig]) -> list[FineTuningConfig]:
        if any(one.objective == "ordinary" for one in value):
            raise ValueError(
                "finetune.objective=ordinary forgets nothing; difference and uniform do."
            )
        return value
