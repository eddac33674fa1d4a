"""What a user may set of the anatomy study; this module is free of torch."""

import re
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator

from fluoroscope.core.config import Config
from fluoroscope.core.errors import ConfigError
from fluoroscope.data.corpus_config import CorpusConfig
from fluoroscope.steps.saes_spec import SAEsSpec

Slice = Literal["first", "last"]
Ablation = Literal["positions_removed", "positions_shuffled", "reconstructed"]
MapMethod = Literal["pca", "umap", "tsne"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class ReadSpec(Config):
    """How sequences are read: one at a time, all layers in one pass."""

    sequences_per_shard: PositiveInt = 25
    """Of the unit of work that is done as a whole; results do not depend on it."""

    memory_mb: PositiveInt = 512
    """Active latents that wait in memory before they are sorted and written to disk; it decides
    into how many parts, and no result."""


class LossesSpec(Config):
    """What the model loses when a reconstruction stands in: a spliced pass for each layer."""

    n_sequences: PositiveInt | None = None
    """As many of the sequences; all, if not given."""

    l1_weight: NonNegativeFloat = 0.004
    """Of sum |latent| in the SAE's combined loss, beside its mean squared error."""


class ShownSpec(Config):
    """Which latents are looked at one by one."""

    n_latents: PositiveInt = 4
    """Of each hook point: half of them carry most energy, half know most of the position."""

    latents: dict[str, list[NonNegativeInt]] = Field(default_factory=dict)
    """Hook point -> latents that are shown besides: `'shown.latents={3.resid_post: [4,17]}'`."""

    outlier_above: float = Field(default=100.0, gt=0)
    """Positions whose mean activation is above this are named in the figures."""


class MatchSpec(Config):
    """Which latents of two SAEs are the same."""

    others: dict[str, SAEsSpec] = Field(default_factory=dict)
    """Name -> SAEs that are matched with those that are looked at: `match.others.seed1=FOLDER`.
    Those that are trained here besides (`train.sae.seed=[0,1]`) are matched in any case."""

    threshold: float = Field(default=0.7, gt=0, lt=1)
    """A latent is shared from this cosine on (tau)."""

    nearest: PositiveInt = 4
    """Nearest latents of each that are kept, to see crowding."""

    every_layer: bool = True
    """Whether each layer is matched with every other, and not with the same one alone."""

    draws: PositiveInt = 3
    """Of random directions and of rotations, which tell what chance would give."""

    @field_validator("others")
    @classmethod
    def _names_can_be_files(cls, value: dict[str, SAEsSpec]) -> dict[str, SAEsSpec]:
        return _named(value)


class CrossSpec(Config):
    """SAEs of every set judged on text of every corpus."""

    corpora: dict[str, CorpusConfig] = Field(default_factory=dict)
    """Name -> further text, beside `corpus`: `cross.corpora.shakespeare=FILE`."""

    n_sequences: PositiveInt = 32
    """Of each corpus."""

    @field_validator("corpora")
    @classmethod
    def _names_can_be_files(cls, value: dict[str, CorpusConfig]) -> dict[str, CorpusConfig]:
        return _named(value)


class MapSpec(Config):
    """Decoder directions of all layers in one plane."""

    method: MapMethod = "pca"
    """`pca`, `tsne`, or `umap` (which needs the extra `umap`)."""

    latents_per_layer: PositiveInt = 2000
    """Drawn of each layer, at most."""


class AnatomySettings(Config):
    """What a user says and what is worked on have alike."""

    corpus: CorpusConfig
    """The text to read; `corpus=FILE` is short for `corpus.source=FILE`."""

    n_sequences: PositiveInt = 400
    """Windows of `corpus.context` tokens of each slice."""

    slices: list[Slice] = Field(default_factory=lambda: ["first", "last"], min_length=1)
    """Which end of the corpus is read: the first or the last windows, or both to compare; ablations
    and losses are of the one that is named first."""

    ablations: list[Ablation] = Field(
        default_factory=lambda: ["positions_removed", "positions_shuffled", "reconstructed"]
    )
    """What is read once more, and drawn beside the clean pass: position embeddings zeroed or
    shuffled (of rotary models the rotation), and SAEs spliced in at every layer at once."""

    read: ReadSpec = ReadSpec()
    shown: ShownSpec = ShownSpec()
    losses: LossesSpec = LossesSpec()
    match: MatchSpec = MatchSpec()
    cross: CrossSpec = CrossSpec()
    map: MapSpec = MapSpec()

    seed: NonNegativeInt = 0
    """Of shuffled positions, of random directions and of resampling."""

    threads: PositiveInt = 1
    """Threads of each worker; part of what is hashed, as it decides how sums round."""

    @field_validator("slices", "ablations")
    @classmethod
    def _none_twice(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("names something twice.")
        return value


def _named(value: dict[str, Any]) -> dict[str, Any]:  # Any: configs of one kind.
    for name in value:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} becomes a file name: use letters, digits, '_', '-' and '.'."
            )
    return value
