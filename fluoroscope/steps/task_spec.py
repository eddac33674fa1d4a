"""Which task a model is asked to do, and how; this module is free of torch."""

from typing import Literal

from pydantic import Field, PositiveInt

from fluoroscope.core.config import Config
from fluoroscope.models.sampling_config import SamplingConfig


class TaskSpec(Config):
    """A bare text is the `name`: `task=emgsd`."""

    bare = "name"

    name: str
    """`emgsd`, `bbq-ambiguous`, `stereoset`, `mmlu`, `gsm8k`, `organism-bias`..."""

    data: str | None = None
    """A file, a folder, or `hf:` for the hub's copy; found under `data_dir`, if not given."""

    limit: PositiveInt | None = None
    """Samples of each side (train, validation, test) at most, whole groups by seed; all, if not
    given."""

    way: Literal["texts", "options", "sums"] | None = None
    """What is scored: generated texts, probabilities of options by their first token, or
    log-probabilities of whole options; probabilities, if not given, where the task has them."""

    splitting: Literal["own", "drawn"] = "own"
    """Whether the set's own split is kept where it has one."""

    max_tokens: PositiveInt | None = None
    """Of a generated reply; the task's own number, if not given."""

    sampling: SamplingConfig = SamplingConfig(temperature=0.0)

    rows: PositiveInt = 256
    """Replies that are written at once; part of what is hashed, as it decides how sums round."""

    tile_tokens: PositiveInt = 4096
    """Tokens of a pass over prompts, padding included; hashed likewise."""


class CollectSpec(Config):
    """What is kept of the training side."""

    pools: list[Literal["max", "mean", "last"]] = Field(default_factory=lambda: ["max"])
    """How latents are pooled over the tokens of a reply; one-token tasks have one value alone."""

    samples_per_shard: PositiveInt = 256

    success: float | None = None
    """Scores from it on are successes; the mean score, if not given."""

    shuffles: int = Field(default=200, ge=20)
    """Of the outcomes, for the permutation null."""

    resamples: PositiveInt = 100
    """Of the samples, for intervals of grouped samples and the stability of the pick."""

    min_active: PositiveInt = 10
    """Samples in which a latent must be active to be tested."""

    alpha: float = 0.05
    """Share of false discoveries that is allowed among the latents called significant."""
