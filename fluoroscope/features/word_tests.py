"""How much more one set of texts says a word than another, and whether that is chance.

Axes: tests (a word in a contrast of two sets of texts), latents (contrasts), words.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import hypergeom, norm

from fluoroscope.core.errors import ConfigError

PRIOR_STRENGTH = 10.0
"""Texts' worth of belief that both sides say a word as often as all texts do."""


class LogOdds(NamedTuple):
    value: Float[np.ndarray, " tests"]
    z: Float[np.ndarray, " tests"]


class WordTests(NamedTuple):
    """Words of contrasts: how many texts of each side say them, of how many."""

    row: Int[np.ndarray, " tests"]
    """Which contrast."""

    word: Int[np.ndarray, " tests"]
    n_high: Int[np.ndarray, " tests"]
    n_low: Int[np.ndarray, " tests"]
    texts_high: Int[np.ndarray, " tests"]
    texts_low: Int[np.ndarray, " tests"]

    @classmethod
    def of(
        cls,
        n_high: Int[np.ndarray, "latents words"],
        n_low: Int[np.ndarray, "latents words"],
        texts: Int[np.ndarray, "latents 2"],
    ) -> "WordTests":
        """Words that are said at all, in contrasts that have two sides."""
        has_sides = np.all(texts > 0, axis=1, keepdims=True)
        row, word = np.nonzero((n_high + n_low > 0) & has_sides)
        high, low = n_high[row, word], n_low[row, word]
        return cls(
            row, word, high.astype(np.int64), low.astype(np.int64), texts[row, 0], texts[row, 1]
        )

    def take(self, chosen: Int[np.ndarray, " chosen"]) -> "WordTests":
        return WordTests(*(column[chosen] for column in self))


def log_odds(
    n_high: Int[np.ndarray, " tests"],
    n_low: Int[np.ndarray, " tests"],
    texts_high: Int[np.ndarray, " tests"],
    texts_low: Int[np.ndarray, " tests"],
    prior_rate: Float[np.ndarray, " tests"],
    prior_strength: float = PRIOR_STRENGTH,
) -> LogOdds:
    """Log-odds ratio of saying a word, and its z-score (Monroe et al. 2008, eq. 16, 19 and 22).

    The prior adds to each side `prior_strength` texts, a share of `prior_rate` of which say the
    word. The variance keeps the texts that do not say it, which eq. 20 leaves out: they are few
    where a word is in most texts.
    """
    if prior_strength <= 0:
        raise ConfigError(f"prior_strength must be above 0 texts, got {prior_strength}.")
    says_high = n_high + prior_strength * prior_rate
    says_low = n_low + prior_strength * prior_rate
    lacks_high = texts_high + prior_strength - says_high
    lacks_low = texts_low + prior_strength - says_low
    value = np.log(says_high / lacks_high) - np.log(says_low / lacks_low)
    variance = 1 / says_high + 1 / lacks_high + 1 / says_low + 1 / lacks_low
    return LogOdds(value, value / np.sqrt(variance))


def exact_p(tests: WordTests) -> Float[np.ndarray, " tests"]:
    """Of Fisher's exact test: twice the tail on the side of the difference."""
    # Most words of most latents are rare and alike; each distinct table is worked out once.
    tables = np.stack(tests[2:], axis=1)
    distinct, which = np.unique(tables, axis=0, return_inverse=True)
    n_high, n_low, texts_high, texts_low = distinct.T
    said, texts = n_high + n_low, texts_high + texts_low
    is_more = n_high * texts >= said * texts_high
    p = np.empty(len(distinct))
    upper = (texts[is_more], texts_high[is_more], said[is_more])
    p[is_more] = hypergeom.sf(n_high[is_more] - 1, *upper)
    lower = (texts[~is_more], texts_high[~is_more], said[~is_more])
    p[~is_more] = hypergeom.cdf(n_high[~is_more], *lower)
    return np.minimum(1.0, 2 * p)[which.reshape(-1)]


def difference_interval(
    tests: WordTests,
) -> tuple[Float[np.ndarray, " tests"], Float[np.ndarray, " tests"]]:
    """Ends of the 95 % interval of the difference of rates (Agresti and Caffo 2000)."""
    size_high, size_low = tests.texts_high + 2, tests.texts_low + 2
    high, low = (tests.n_high + 1) / size_high, (tests.n_low + 1) / size_low
    reach = norm.ppf(0.975) * np.sqrt(high * (1 - high) / size_high + low * (1 - low) / size_low)
    return np.maximum(high - low - reach, -1), np.minimum(high - low + reach, 1)
