"""What a user may set of each phase of the hallucination study; this module is free of torch."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from fluoroscope.core.config import Config
from fluoroscope.models.sampling_config import SamplingConfig


class DataSettings(Config):
    """Which answers are judged; a bare text is the `name`."""

    bare = "name"

    name: str = "organism"
    """A set of answers: `organism`, `truthfulqa`, `truthfulqa-mc`, `halueval-qa`, `true-false`...;
    with `answers=own` a set of questions: `organism`, `truthfulqa`, `triviaqa`."""

    path: str | None = None
    """A file, a folder, or `hf:NAME`; not needed for the organism."""

    answers: Literal["stated", "own"] = "own"
    """`own` has the model answer and labels what it says; `stated` takes answers that people
    wrote. The two are never mixed."""

    limit: PositiveInt | None = None
    """Groups (questions) that are taken at most, chosen by the seed; all, if not given."""


class AnswerSettings(Config):
    """How the model answers, and how often it is asked again."""

    sampling: SamplingConfig = SamplingConfig(temperature=0.0)
    """Of own answers; the likeliest one by default."""

    max_tokens: PositiveInt = 64

    stop: list[str] = Field(default_factory=lambda: ["\n"])
    """An answer ends before the first of these."""

    samples: NonNegativeInt = 10
    """Further answers to each prompt, for EigenScore and semantic entropy, drawn by
    `sample_sampling`; 0 leaves these out."""

    sample_sampling: SamplingConfig = SamplingConfig()

    rows: PositiveInt = 256
    """Answers that are written at once; part of what is hashed, as it decides how sums round."""

    prompts_per_shard: PositiveInt = 200

    @model_validator(mode="after")
    def _samples_may_differ(self) -> "AnswerSettings":
        if self.samples == 1:
            raise ValueError("samples must be 0, or 2 and more: one agrees with nobody.")
        drawn = self.sample_sampling
        if self.samples and (drawn.temperature == 0 or drawn.top_k == 1):
            raise ValueError(
                "sample_sampling leaves nothing to chance, so all samples would be one; set a "
                "temperature above 0, or samples=0."
            )
        return self


class ReadSettings(Config):
    """The pass over prompts and answers."""

    answers_per_shard: PositiveInt = 500

    tile_tokens: PositiveInt = 2048
    """Tokens that go through at once; part of what is hashed, as it decides how sums round."""


Assignment = Literal["hungarian", "greedy", "feature_id", "disabled"]
"""The assignment of least cost; tracks with the highest activation choose first; the same latent
number goes on, at any cost; or nothing ever goes on."""


class SeedCostSettings(Config):
    """The original's weighted costs, for `tracker=seed_cost` alone."""

    assignment: Assignment = "hungarian"

    threshold: float = 0.5
    """Costs below it join."""

    birth: float = 0.5
    """Raw activations above it begin a track."""


class TrackingSettings(Config):
    """How active latents become tracks."""

    tracker: str = "mht"
    """`mht`, `nearest`, `greedy`, `jpda`; `optimum`, which needs all layers to begin; or
    `seed_cost`, the original's."""

    top: PositiveInt = 50
    """Detections of a layer and token, at most: those that are strongest for their latent."""

    neighbours: PositiveInt = 20
    """Latents of a later layer that one may go on as, at most: the nearest by decoder."""

    max_gap: PositiveInt = 2
    """Layers from one detection to the next of its track, at most."""

    transport: Literal["identity", "ridge", "procrustes"] = "ridge"
    """How directions of a layer are carried to the next before they are compared."""

    sample: PositiveInt = 4000
    """Tokens that the likelihoods are estimated from."""

    gate: float = Field(default=5.0, ge=0)
    """Nats by which a link may lose against an end and a birth before it is left out."""

    hypotheses: PositiveInt = 10
    """That the MHT holds in a cluster, at most."""

    n_scan: NonNegativeInt = 3
    """Layers after which the MHT decides what happened."""

    seed_cost: SeedCostSettings = SeedCostSettings()


class DetectionSettings(Config):
    """How made-up answers are told, and how that is judged."""

    detector: str = "logistic"
    """Of every set of numbers alike: `logistic`, `forest`, `boosting`, `mlp`. The headline is
    about this one."""

    also: list[Literal["logistic", "forest", "boosting", "mlp"]] = Field(
        default_factory=lambda: ["forest", "boosting"]
    )
    """By which baseline, tracking and both are judged as well, so that nothing hangs on one."""

    also_repeats: PositiveInt = 1
    """Repeats of these, the first of `repeats`: trees take long."""

    folds: int = Field(default=5, ge=2)
    repeats: PositiveInt = 5

    resamples: PositiveInt = 2000
    """Of groups, for intervals."""

    permutations: PositiveInt = 200
    """Exchanges of the added columns between groups, for the headline's p."""


class ValidationSettings(Config):
    """Scenes with known tracks on which trackers are compared."""

    scenes: PositiveInt = 40
    """Of each difficulty."""


class CausesSettings(Config):
    """Tracks that are edited where the answer is drawn, to see whether they decide it."""

    answers: NonNegativeInt = 100
    """At most, one of a question, half of them made up as far as there are; 0 leaves this out."""

    controls: PositiveInt = 20
    """Of each kind, for each track that is edited, at most."""

    boost: float = Field(default=2.0, gt=1)
    """Times what they were, that latents of a boosted track are set to."""

    answers_per_shard: PositiveInt = 25


class HallucinationSettings(Config):
    """What a user says and what is worked on have alike."""

    data: DataSettings = DataSettings()

    answers: AnswerSettings = AnswerSettings()

    read: ReadSettings = ReadSettings()

    tracking: TrackingSettings = TrackingSettings()

    detection: DetectionSettings = DetectionSettings()

    causes: CausesSettings = CausesSettings()

    validation: ValidationSettings = ValidationSettings()

    seed: NonNegativeInt = 0
    """Of tokens, of folds, of trackers' samples and intervals."""

    threads: PositiveInt = 1
    """Threads of each worker; part of what is hashed, as it decides how sums round."""
