"""How much the answers agree that a model gives to one prompt, drawn again and again.

Axes: k samples of one prompt, d_model, c meanings.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float

from fluoroscope.core.errors import ConfigError

ALPHA = 1e-3
"""Added to the diagonal of the covariance of samples, as its authors do."""


def eigen_score(states: Float[np.ndarray, "k d_model"], alpha: float = ALPHA) -> float:
    """Mean of the logarithms of the eigenvalues of the covariance between samples: the larger, the
    further apart they lie (INSIDE, arXiv:2402.03744, equations 4 to 6).

    `states` are of one layer in the middle, at the last token of each sample.
    """
    _check_samples(len(states))
    rows = np.asarray(states, dtype=np.float64)
    centred = rows - rows.mean(axis=1, keepdims=True)
    covariance = centred @ centred.T / rows.shape[1]
    eigenvalues = np.linalg.eigvalsh(covariance + alpha * np.eye(len(rows)))
    # The smallest may come out a rounding below alpha, which is all that it can be.
    return float(np.log(np.maximum(eigenvalues, alpha)).mean())


def semantic_entropy(meanings: Sequence[Hashable]) -> float:
    """Entropy (nats) of the meanings that samples have, by their counts (the discrete form of
    Farquhar et al., Nature 630, 2024). Samples of one meaning are equal here.
    """
    _check_samples(len(meanings))
    shares = np.array(list(Counter(meanings).values())) / len(meanings)
    return float(-(shares * np.log(shares)).sum())


def weighted_semantic_entropy(
    meanings: Sequence[Hashable], logprobs: Sequence[Sequence[float]]
) -> float:
    """The same with the model's own probabilities: a meaning has the sum of those of its different
    texts, each normalised by its length (Kuhn et al., arXiv:2302.09664, equations 3 and 4).

    `logprobs` are those of every token of each sample, in nats; equal rows are one text.
    """
    _check_samples(len(meanings))
    if len(logprobs) != len(meanings):
        raise ConfigError(f"There are {len(meanings)} samples and {len(logprobs)} log-likelihoods.")
    texts = {
        (m, tuple(row)): sum(row) / max(1, len(row))
        for m, row in zip(meanings, logprobs, strict=True)
    }
    of_meaning: dict[Hashable, float] = {}
    for (meaning, _), score in texts.items():
        of_meaning[meaning] = of_meaning.get(meaning, 0.0) + math.exp(score)
    shares = np.array(list(of_meaning.values())) / sum(of_meaning.values())
    return float(-(shares * np.log(shares)).sum())


def lexical_similarity(texts: Sequence[str]) -> float:
    """Mean over pairs of samples of their longest common subsequence of words, as an F score (0 to
    1; ROUGE-L, as in Kuhn et al.): the lower, the more they differ.
    """
    _check_samples(len(texts))
    words = [text.lower().split() for text in texts]
    pairs = [(a, b) for i, a in enumerate(words) for b in words[:i]]
    return float(np.mean([_rouge_l(a, b) for a, b in pairs]))


def similarity_to_samples(answer: str, samples: Sequence[str]) -> float:
    """Mean over samples of the same F score between them and an answer."""
    words = answer.lower().split()
    return float(np.mean([_rouge_l(words, text.lower().split()) for text in samples]))


def surprise_of_words(answer: str, samples: Sequence[str]) -> float:
    """Mean of -log p (nats) of an answer's words under the words of samples and of the answer
    itself, with one added to each count (SelfCheckGPT with unigrams, arXiv:2303.08896).
    """
    return float(np.mean(_surprises(answer, samples)))


def largest_surprise(answer: str, samples: Sequence[str]) -> float:
    """That of the word expected least, which its authors find to tell more than the mean."""
    return max(_surprises(answer, samples))


def _surprises(answer: str, samples: Sequence[str]) -> list[float]:
    words = answer.lower().split()
    counts = Counter(word for text in [answer, *samples] for word in text.lower().split())
    if not words:
        return [0.0]
    total = sum(counts.values()) + len(counts)
    return [-math.log((counts[word] + 1) / total) for word in words]


def _rouge_l(one: Sequence[str], other: Sequence[str]) -> float:
    if not one or not other:
        return float(list(one) == list(other))
    lengths = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for j, theirs in enumerate(other, start=1):
            kept = lengths[j]
            lengths[j] = before + 1 if word == theirs else max(lengths[j], lengths[j - 1])
            before = kept
    return 2 * lengths[-1] / (len(one) + len(other))


def _check_samples(n: int) -> None:
    if n < 2:
        raise ConfigError(f"Agreement needs two samples of a prompt at least, got {n}.")
