"""Whether replies are still language: variety, repetition, length, readability, perplexity.

    distinct-n    different n-grams per word of all texts together (Li et al. 2016,
                  arXiv:1510.03055); falls with more text, so compare at the same `max_words`
    repetition    share of a text's n-grams that it has had before (Welleck et al. 2020,
                  arXiv:1908.04319, seq-rep-n), averaged over texts
    perplexity    of the texts under the model that is not steered; text that goes round in
                  circles has a low one, which is why repetition stands beside it

A text is split into words at white space; one that is given as tokens is taken as it is.

Axes: `n` texts, `d_model`.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import t as student
from torch import Tensor

from fluoroscope.core.errors import ConfigError, MismatchError, NumericsError
from fluoroscope.core.intervals import MIN_UNITS, Interval, jackknife_intervals
from fluoroscope.interventions.replies.comparing import group_numbers, mean_over_groups
from fluoroscope.models.hook_points import HookPoint

Text = str | Sequence[int]

REPETITION_N = 4
"""Of seq-rep-4."""


class Quality(NamedTuple):
    """Of the replies to some samples, with intervals over groups."""

    n_texts: int

    distinct_1: Interval
    distinct_2: Interval

    repetition: Interval

    n_words: Interval
    """Mean length of a text."""

    unreadable: Interval


def quality(
    texts: Sequence[Text],
    is_readable: Sequence[bool],
    groups: Sequence[str],
    max_words: int | None = None,
) -> Quality:
    """`max_words`: how many words of each text count for distinct-n, so that longer texts are not
    taken for poorer ones.
    """
    if not len(texts) == len(is_readable) == len(groups):
        raise ConfigError(
            f"Every text needs its readability and its group; got {len(texts)} texts, "
            f"{len(is_readable)} and {len(groups)}."
        )
    _check_some(texts)
    numbers = group_numbers(groups)
    return Quality(
        n_texts=len(texts),
        distinct_1=distinct_n(texts, 1, groups, max_words),
        distinct_2=distinct_n(texts, 2, groups, max_words),
        repetition=mean_over_groups(np.array([repetition(text) for text in texts]), numbers),
        n_words=mean_over_groups(np.array([len(_words(text)) for text in texts], float), numbers),
        unreadable=mean_over_groups(1.0 - np.array(is_readable, float), numbers),
    )


def distinct_n(
    texts: Sequence[Text], n: int, groups: Sequence[str], max_words: int | None = None
) -> Interval:
    """Different n-grams per word of all texts together; NaN where there is no word.

    The interval is a jackknife over groups (Tukey 1958): of texts as many as these.
    """
    _check_some(texts)
    numbers = group_numbers(groups)
    size = np.zeros(numbers.max() + 1)
    holders: dict[tuple[object, ...], set[int]] = {}
    for text, group in zip(texts, numbers.tolist(), strict=True):
        words = _words(text)[:max_words]
        size[group] += len(words)
        for gram in _grams(words, n):
            holders.setdefault(gram, set()).add(group)
    if not size.sum():
        return Interval(math.nan, math.nan, math.nan)
    alone = Counter(next(iter(held)) for held in holders.values() if len(held) == 1)
    own = np.array([alone[group] for group in range(len(size))])
    value = len(holders) / float(size.sum())
    return _jackknifed(value, len(holders) - own, size.sum() - size)


def repetition(text: Text, n: int = REPETITION_N) -> float:
    """Share of the n-grams that the text has had before; 0 of a text without one."""
    grams = list(_grams(_words(text), n))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def perplexity(log_probabilities: Sequence[Sequence[float]], groups: Sequence[str]) -> Interval:
    """Of the tokens of all texts, from the log-probabilities (nats) of each text's tokens.

    Texts without a token count for nothing. The interval is exp of one of the mean -log p.
    """
    sums = np.array([[-math.fsum(one), len(one)] for one in log_probabilities], float)
    if not len(sums) or not sums[:, 1].sum():
        raise ConfigError("There is no token to have a perplexity; give one text with tokens.")
    if not np.isfinite(sums).all():
        raise NumericsError("A log-probability is not finite, so texts have no perplexity.")
    totals = np.zeros((len(set(groups)), 2))
    np.add.at(totals, group_numbers(groups), sums)
    (found,) = jackknife_intervals(lambda of: (of[:, 0] / of[:, 1])[:, None], totals)
    return exp_interval(found)


def exp_interval(log: Interval) -> Interval:
    """Of exp(x), from that of x."""
    with np.errstate(over="ignore"):
        return Interval(*(float(np.exp(value)) for value in log))


def norm_share(
    added: Mapping[HookPoint, Float[Tensor, " d_model"]], typical: Mapping[HookPoint, float]
) -> float:
    """The largest |added vector| / typical norm of an activation, over hook points; 0 of nothing.

    A vector that is added at one layer stays in the residual stream, so vectors of many layers
    may add up to more than the share of any.
    """
    shares = [0.0]
    for point, vector in added.items():
        norm = typical.get(point)
        if norm is None:
            known = ", ".join(map(str, typical)) or "none"
            raise MismatchError(
                f"The typical norm at {point} is not known (known: {known}). Measure it where "
                "vectors are added."
            )
        if not (math.isfinite(norm) and norm > 0):
            raise NumericsError(f"The typical norm at {point} must be above 0, got {norm}.")
        shares.append(float(vector.to(torch.float64).norm()) / norm)
    return max(shares)


def _jackknifed(
    value: float, above: Int[np.ndarray, " groups"], below: Float[np.ndarray, " groups"]
) -> Interval:
    """Of a ratio, from what it is above and below without each group."""
    n = len(above)
    if n < MIN_UNITS or not (below > 0).all():
        return Interval(value, math.nan, math.nan)
    without = above / below
    sd = float(((n - 1) / n * ((without - without.mean()) ** 2).sum()) ** 0.5)
    reach = float(student.ppf(0.975, n - 1)) * sd
    return Interval(value, max(0.0, value - reach), min(1.0, value + reach))


def _words(text: Text) -> list[str] | list[int]:
    return text.split() if isinstance(text, str) else list(text)


def _grams(words: Sequence[object], n: int) -> list[tuple[object, ...]]:
    return list(zip(*(words[start:] for start in range(n)), strict=False))


def _check_some(texts: Sequence[Text]) -> None:
    if isinstance(texts, str) or not texts:
        raise ConfigError(f"Give a list of texts, one at least; got {texts!r}.")
