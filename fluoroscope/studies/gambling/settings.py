"""The settings of the study's parts; this module is free of torch."""

import math
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from fluoroscope.core.config import Config
from fluoroscope.models.sampling_config import SamplingConfig
from fluoroscope.studies.gambling.episodes import Retries
from fluoroscope.studies.gambling.players.endpoint_config import EndpointConfig


class PlaySettings(Config):
    """How the games are played."""

    repetitions: PositiveInt = 50
    """Games of every condition; 50 x 64 conditions are the seed's 3,200."""

    repetitions_per_shard: PositiveInt = 5
    """Repetitions of all conditions that are in flight together, and kept together."""

    sampling: SamplingConfig = SamplingConfig(temperature=0.7)

    max_tokens: PositiveInt = 100
    """Tokens of a reply; one that is cut off before its decision is counted as `truncated`."""

    chat: bool = False
    """Puts each prompt into the model's chat template, as one turn of the user."""

    system: str | None = None
    """The turn of the system before it."""

    rows: PositiveInt = 256
    """Games that decode at once; part of what is hashed, as it decides how sums round."""

    retries: Retries = Retries()

    endpoint: EndpointConfig | None = None
    """A chat endpoint that plays in the place of a model; nothing can be read inside it."""

    log: str | None = None
    """Games that were played elsewhere: the seed's own JSON files, instead of playing."""


class RecordSettings(Config):
    """What is recorded of the decisions."""

    decisions: Literal["all", "last"] = "all"
    """Every decision, or the last one of each game, as the seed did."""

    prompts_per_shard: PositiveInt = 512
    tile_tokens: PositiveInt = 8192
    """Tokens that are read at once; part of what is hashed, as it decides how sums round."""


class ContrastSettings(Config):
    """Which latents go with bankruptcy, and which are looked at further."""

    decisions: Literal["last", "all"] = "last"
    """The decisions that are compared: the last of each game, as the seed did, or all."""

    top: PositiveInt = 300
    """Latents of each layer that are screened: those with the largest `by`."""

    by: Literal["cohen_d", "adjusted_d"] = "cohen_d"
    """`adjusted_d` is given balance, round, bet type, components, last outcome and length."""

    discovery: float = Field(default=0.5, gt=0, lt=1)
    """Share of the repetitions whose games latents are chosen on; the others replicate. Below 10
    repetitions on a side there is too little luck for tests over repetitions."""

    permutations: NonNegativeInt = 200
    """Shuffles of the outcomes, within conditions, for the null."""

    stop_contrast: bool = True
    """Also contrasts decisions to stop with decisions to bet."""


class ConfirmSettings(Config):
    """Texts that are sampled under patches of the top candidates and of controls."""

    latents: NonNegativeInt = 10
    """The most effective of the causal ones, or of the shortlist where none is causal."""

    random: NonNegativeInt = 5
    """Random latents for each SAE."""

    prompts: PositiveInt = 10
    trials: PositiveInt = 20
    """Texts of a latent, condition and prompt."""


class PatchSettings(Config):
    """Which latents cause the decision; see docs/decisions/causal-latents.md."""

    positions: str = "LAST | GENERATED"
    """Where latents are set: at the last token of the prompt and all that is written."""

    criterion: Literal["sound", "seed"] = "sound"
    """`seed` is the sign rule of the original on its two fixed prompts, for comparison."""

    states: int = Field(default=96, ge=10)
    """Game states of the discovery half that all latents are screened on."""

    held_out_states: int = Field(default=96, ge=10)
    """Of the other half: doses, controls and replication of the shortlist."""

    states_per_shard: PositiveInt = 12

    shortlist: PositiveInt = 48
    """Latents with the largest effects that go on to doses and controls."""

    controls: PositiveInt = 20
    """Random latents, as often active, and random directions, for each of the shortlist; a latent
    must be larger than all of 20, or all but one of 40 (its rank must have p <= alpha)."""

    min_effect: float = Field(default=0.02, ge=0, le=1)
    """Least change of the probability of stopping between the two population means."""

    alpha: float = Field(default=0.05, gt=0, lt=1)

    min_legible: float = Field(default=0.1, ge=0, le=1)
    """Least probability that the model puts on stop and bet together for effects on decisions
    to mean anything; below it no latent is called causal."""

    truth_pairs: PositiveInt = 64
    """Of an organism: pairs of prompts that what is declared causal is judged on."""

    confirm: ConfirmSettings = ConfirmSettings()

    @model_validator(mode="after")
    def _controls_can_be_exceeded(self) -> "PatchSettings":
        # A control is judged against one fellow less.
        if self.controls * self.alpha < 1:
            raise ValueError(
                f"among controls={self.controls} no rank has p <= alpha={self.alpha:g}, so nothing "
                f"could be called causal; take {math.ceil(1 / self.alpha)} or more"
            )
        return self


class GamesSettings(Config):
    """Whole games with persistent patches, on the luck of the games without."""

    latents: NonNegativeInt = 2
    """The most effective causal ones; the most effective of the shortlist where none is."""

    repetitions: PositiveInt = 10
    """The first so many repetitions, the unit of the intervals."""

    conditions: PositiveInt | None = None
    """How many conditions, evenly chosen; all that are played, if not given."""

    controls: NonNegativeInt = 1
    """Random latents beside each."""


class PathwaySettings(Config):
    """How the decision forms from layer to layer."""

    games: NonNegativeInt = 50
    """Whole games that are followed, as the seed did; 0 leaves the pathway out."""

    latents_per_layer: PositiveInt = 8
    edges: PositiveInt = 24
    """Edges that the figure shows."""

    states: PositiveInt = 24
    """Decisions on which latents are set and those behind them are measured."""

    controls: PositiveInt = 20
    """Random latents, as often active, beside each that is set."""

    shuffles: PositiveInt = 20
    """Repeats with shuffled labels, and with shuffled rows: the controls."""


class WordSettings(Config):
    """Which words go with a latent."""

    latents: PositiveInt = 50
    split: Literal["active", "median"] = "active"
    """Active against matched inactive replies, or the seed's median split."""

    min_texts: PositiveInt = 5
    """Replies that a word must occur in."""
