"""Which features two SAEs of one width share: nearest directions, one to one, and by chance.

Of each latent its nearest latents in the other SAE (top k, in both directions), by decoder and by
encoder; one-to-one assignments of the highest sum of cosines; for each latent the nearest *other*
latent of its own SAE; and two nulls. `matching_ratios.py` makes numbers of it.

    found = match_saes(sae, other)
    matching_row(found)["decoder_shared_a_to_b"], matching_row(found)["random_a_to_b"]

A latent is shared *as a pair* where decoder and encoder name the same latent: here by nearest
directions, with a decoder cosine above the threshold (`paired_of_a`); and in `paired_one_to_one`
as Paulo and Belrose (2025, arXiv:2501.16615) do it, who assign encoders and decoders one to one,
each by itself, and ask that both assignments agree and both cosines are above 0.7.

Axes: s latents of a, t of b, p pairs, d model width, k matches.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32
from pydantic import Field, NonNegativeInt, PositiveInt

from fluoroscope.core.config import Config
from fluoroscope.core.errors import ConfigError
from fluoroscope.features.assignment import EXACT_UP_TO, N_CANDIDATES, Assignment, one_to_one
from fluoroscope.features.matching import NONE, Neighbours
from fluoroscope.features.matching_nulls import NullMatches, random_null, rotated_null
from fluoroscope.features.top_matches import Directions, nearest_within, top_matches
from fluoroscope.sae.base import SparseAutoencoder


class MatchingConfig(Config):
    """What is looked for, and how many draws stand beside it."""

    k: PositiveInt = 4
    """Nearest latents that are kept for each; more than one shows crowding."""

    threshold: float = Field(default=0.7, ge=-1, le=1)
    """The cosine above which a latent is shared."""

    exact_up_to: NonNegativeInt = EXACT_UP_TO
    """Live latents of the larger side up to which one-to-one assignments are the best there are."""

    n_candidates: PositiveInt = N_CANDIDATES
    """Nearest latents of either side that can be assigned beyond that."""

    null_draws: PositiveInt = 3
    """Draws of random directions, and random rotations."""

    null_rows: PositiveInt = 2048
    """Latents of a side in each draw; fewer than all, because their mean and share is asked."""

    seed: int = 0
    """Of the nulls."""


@dataclass(frozen=True, eq=False)
class KindMatching:
    """By the decoders, or by the encoders."""

    of_a: Neighbours
    """For each latent of a the nearest of b."""

    of_b: Neighbours
    own_a: Float32[np.ndarray, " s"]
    """Cosine with the nearest other latent of a itself; NaN for dead latents."""

    own_b: Float32[np.ndarray, " t"]
    one_to_one: Assignment
    rotated: NullMatches
    """Against randomly rotated copies of the other side."""


@dataclass(frozen=True, eq=False)
class SAEMatching:
    """All that is known of what two SAEs share."""

    decoder: KindMatching
    encoder: KindMatching
    live_a: Bool[np.ndarray, " s"]
    """Dead latents have no direction in decoder or encoder, or were marked; they match nothing."""

    live_b: Bool[np.ndarray, " t"]
    paired_of_a: Bool[np.ndarray, " s"]
    """Decoder and encoder have the same nearest latent, the decoder above the threshold."""

    paired_of_b: Bool[np.ndarray, " t"]
    paired_one_to_one: Bool[np.ndarray, " p"]
    """Of pairs of the decoder's assignment: the encoder's agrees, both above the threshold."""

    random: NullMatches
    """Random directions, as many as live latents."""

    d_model: int
    config: MatchingConfig


def match_saes(
    a: SparseAutoencoder,
    b: SparseAutoencoder,
    config: MatchingConfig | None = None,
    dead_a: Bool[np.ndarray, " s"] | None = None,
    dead_b: Bool[np.ndarray, " t"] | None = None,
) -> SAEMatching:
    """What two SAEs share, with its nulls; `dead_a` and `dead_b` mark latents to leave out.

    Needs little beside the weights but for exact assignments: 8 x s x t bytes.
    """
    config = config or MatchingConfig()
    if a.d_model != b.d_model:
        raise ConfigError(
            f"SAEs can be matched where both read the same width; one has d_model {a.d_model}, "
            f"the other {b.d_model}. Take SAEs of one model and stream."
        )
    dead_a, dead_b = _dead(a, dead_a), _dead(b, dead_b)
    decoder = _match(Directions.of(a.W_dec, dead_a), Directions.of(b.W_dec, dead_b), config)
    encoder = _match(Directions.of(a.W_enc_T, dead_a), Directions.of(b.W_enc_T, dead_b), config)
    n_live_a, n_live_b = int((~dead_a).sum()), int((~dead_b).sum())
    return SAEMatching(
        decoder=decoder,
        encoder=encoder,
        live_a=~dead_a,
        live_b=~dead_b,
        paired_of_a=_paired(decoder.of_a, encoder.of_a, config.threshold),
        paired_of_b=_paired(decoder.of_b, encoder.of_b, config.threshold),
        paired_one_to_one=_agree(decoder.one_to_one, encoder.one_to_one, config.threshold),
        random=random_null(
            n_live_a, n_live_b, a.d_model, config.seed, config.null_draws, config.null_rows
        ),
        d_model=a.d_model,
        config=config,
    )


def _dead(sae: SparseAutoencoder, marked: np.ndarray | None) -> np.ndarray:
    dead = np.zeros(sae.d_sae, bool) if marked is None else np.asarray(marked, bool)
    if len(dead) != sae.d_sae:
        raise ConfigError(
            f"Dead latents are marked for each of the {sae.d_sae} latents, got {len(dead)} marks."
        )
    has_direction = (sae.W_dec != 0).any(dim=-1) & (sae.W_enc_T != 0).any(dim=-1)
    dead = dead | ~has_direction.cpu().numpy()
    if dead.all():
        raise ConfigError(f"All {len(dead)} latents of an SAE are dead: there is nothing to match.")
    return dead


def _match(a: Directions, b: Directions, config: MatchingConfig) -> KindMatching:
    is_exact = max(len(a), len(b)) <= config.exact_up_to
    # One product gives the candidates of the assignment as well.
    found = top_matches(a, b, config.k if is_exact else max(config.k, config.n_candidates))
    pairs = one_to_one(a, b, config.exact_up_to, config.n_candidates, found)
    return KindMatching(
        of_a=_first(found.of_a, config.k),
        of_b=_first(found.of_b, config.k),
        own_a=nearest_within(a).cosines[:, 0],
        own_b=nearest_within(b).cosines[:, 0],
        one_to_one=pairs,
        rotated=rotated_null(a, b, config.seed, config.null_draws, config.null_rows),
    )


def _first(found: Neighbours, k: int) -> Neighbours:
    # Copies: a view would keep all candidates in memory.
    return Neighbours(found.indices[:, :k].copy(), found.cosines[:, :k].copy(), found.n_targets)


def _paired(decoder: Neighbours, encoder: Neighbours, threshold: float) -> np.ndarray:
    named = decoder.indices[:, 0]
    return (named != NONE) & (named == encoder.indices[:, 0]) & (decoder.cosines[:, 0] > threshold)


def _agree(decoder: Assignment, encoder: Assignment, threshold: float) -> np.ndarray:
    n_latents = 1 + max(int(decoder.latents_a.max()), int(encoder.latents_a.max()))
    partner = np.full(n_latents, NONE, np.int32)
    cosine = np.full(n_latents, -1.0, np.float32)
    partner[encoder.latents_a] = encoder.latents_b
    cosine[encoder.latents_a] = encoder.cosines
    agrees = partner[decoder.latents_a] == decoder.latents_b
    return agrees & (decoder.cosines > threshold) & (cosine[decoder.latents_a] > threshold)
