"""On how much held-out text SAEs are judged, and what counts as good; free of torch."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from fluoroscope.core.config import Config


class EvaluationConfig(Config):
    n_tokens: PositiveInt = 100_000
    """Tokens of the test split, at most."""

    cards: NonNegativeInt = 6
    """Latents of each SAE that get an identity card."""

    contexts: PositiveInt = 10
    """Contexts on a card."""

    truth_pairs: int = Field(default=128, ge=10)
    """Of the organism: pairs of prompts of each variable that its latents are judged by."""

    max_fvu: NonNegativeFloat = 0.3
    """Gate: fraction of variance unexplained, at most."""

    min_ce_recovered: float = Field(default=0.8, le=1)
    """Gate: share of the cross-entropy recovered against mean ablation, at least."""

    max_dead_fraction: NonNegativeFloat = 0.1
    """Gate: share of latents active on no test token, at most."""

    l0_tolerance: NonNegativeFloat = 0.2
    """Gate: how far l0 may lie from the k or target that was asked for, as a share of it; an
    architecture without one must have an l0 between 1 and a quarter of d_model."""
