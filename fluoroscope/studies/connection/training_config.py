"""How a reasoner is trained; this module is free of torch.

The defaults are those of the plan (seed 003), whose names stand in brackets. Where it promises a
cosine and writes a line, and counts the warm-up of one epoch, this does what it promises.
"""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from fluoroscope.core.config import Config
from fluoroscope.models.training.precision import Precision
from fluoroscope.models.training.rates import Schedule


class OptimiserConfig(Config):
    """AdamW; matrices decay, biases, norms and embeddings of places do not."""

    learning_rate: PositiveFloat = 1e-4
    """At its peak."""

    weight_decay: NonNegativeFloat = 0.01
    betas: tuple[float, float] = (0.9, 0.999)

    schedule: Schedule = "cosine"
    """What follows warm-up [scheduler]."""

    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    """Of all steps [warmup_ratio]."""

    floor: float = Field(default=0.1, ge=0, le=1)
    """Part of the peak that the rate falls to [min_lr_ratio]."""

    clip: PositiveFloat | None = 1.0
    """The largest norm of all gradients together [gradient_clip]."""


Steps = Literal["halting", "all", "sampled", "by_depth"]


class ThinkingConfig(Config):
    """How many steps a text is thought about, and which of its states answer in training."""

    steps: Steps = "halting"
    """`halting`: as the network stops; `all`: its largest number; `sampled`: in training a number
    drawn anew for each batch, and all in evaluation; `by_depth`: `steps_per_hop` for each hop that
    the question is said to take, also in evaluation."""

    steps_per_hop: PositiveInt = 2

    supervised: Literal["last", "every", "hops"] = "last"
    """`last`: the last states answer; `every`: those after every step too, later ones counting
    more; `hops`: the states after each hop answer what is found there, of hops for which a text
    has done its steps, and its last states the question."""


class PricesConfig(Config):
    """What is added to the loss of the answers; 0 leaves a part out."""

    steps: NonNegativeFloat = 0.001
    """Of each expected step beyond the first, where stopping is learnt [reasoning_cost_weight]. The
    plan's own cost has no gradient: it is reported, and trains nothing."""

    halting: NonNegativeFloat = 1.0
    """Of saying wrongly whether the answer is right by now, where stopping is learnt."""

    ponder: NonNegativeFloat = 0.0
    """Of how far the chances to stop after each step are from a geometric law, in nats, where
    stopping is learnt (PonderNet; Banino et al. 2021)."""

    ponder_steps: float = Field(default=4.0, gt=1)
    """Mean of that law, in steps; 4 are the plan's target."""

    unevenness: NonNegativeFloat = 0.0
    """Of using few of the slots; of the texts that pass together, whose number it differs with."""

    orthogonality: NonNegativeFloat = 0.0
    """Of pairs that hear alike, as the plan's last code has it, with 0.01."""

    sparsity: NonNegativeFloat = 0.0
    """Of the mean strength of a pair."""

    pairs: NonNegativeFloat = 0.0
    """Of the share of pairs that are stronger than 0.01, counted smoothly."""

    spectral: NonNegativeFloat = 0.0
    """Of the square of what the norm of all connections together is above 1, found by 30 passes
    there and back of a single text."""


class TrainingConfig(Config):
    """One training."""

    optimiser: OptimiserConfig = OptimiserConfig()
    thinking: ThinkingConfig = ThinkingConfig()
    prices: PricesConfig = PricesConfig()

    batch_size: PositiveInt = 32
    """Texts that pass through the network together [train_batch]."""

    accumulation: PositiveInt = 2
    """Such batches a step of the optimiser [gradient_accumulation]."""

    max_epochs: PositiveInt = 20

    eval_every: PositiveInt | None = 500
    """Steps between looks at the validation side, beside the one at the end of an epoch."""

    patience: PositiveInt | None = 5
    """Looks in a row without a better one after which training ends; null never ends it."""

    choose_by: Literal["accuracy", "loss"] = "accuracy"
    """Of the validation side, for the states that are kept; of equal accuracy, by the loss."""

    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """In the training loss alone; reported losses are without."""

    precision: Precision = "auto"
    """Of the passes; `auto` is bfloat16 where a GPU has it, else float32, and is written down
    [fp16, bf16]."""

    checkpoints_steps: bool = False
    """Whether steps of thought are done a second time for their gradients, for less memory
    [gradient_checkpointing]."""
