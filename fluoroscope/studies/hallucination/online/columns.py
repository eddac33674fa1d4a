"""What is known of an answer after each of its tokens: the columns of the online detector.

Row t knows t tokens. Its last token was read, so its tracks are known; what the model would say
next is not among the columns, but for the first token: before it nothing else is there. In the
last row the columns are those of the methods `uncertainty` and `tracking` of a whole answer.

Axes: n tokens of an answer, p = n + 1 positions (the first draws the answer's first token), k
metrics of tracks, d columns.
"""

import numpy as np
from jaxtyping import Float, Float64

from fluoroscope.core.errors import MismatchError
from fluoroscope.studies.hallucination.metrics.describe import METRICS

TOKENS = "tokens"
UNCERTAINTY = (
    TOKENS, "logprob sum", "logprob mean", "logprob min", "logprob first", "entropy mean",
    "entropy max", "entropy first", "entropy last",
)  # fmt: skip
"""Of tokens, in nats; the entropy is of the distribution that a token was drawn from."""

AT_PROMPT = tuple(f"{name} at the prompt" for name in METRICS)
SO_FAR = tuple(f"{name} so far" for name in METRICS)
"""Metrics of tracks where the answer is drawn, and their mean over its tokens."""

COLUMNS = (*UNCERTAINTY, *AT_PROMPT, *SO_FAR)

_FIRST = UNCERTAINTY.index("entropy first")


def prefix_columns(
    logprobs: Float[np.ndarray, " n"],
    entropies: Float[np.ndarray, " some"],
    metrics: Float[np.ndarray, "p k"],
) -> Float64[np.ndarray, "p d"]:
    """A row after each token, the first before all of them; NaN where nothing is known yet.

    Entropies are of as many tokens as log-probabilities, or of one where there is none.
    """
    n, shape = len(logprobs), (len(logprobs) + 1, len(METRICS))
    if len(entropies) != max(n, 1) or metrics.shape != shape:
        raise MismatchError(
            f"{n} tokens need {max(n, 1)} entropies and metrics of {n + 1} positions, "
            f"{shape[1]} each; got {len(entropies)} and {list(metrics.shape)}."
        )
    found = np.full((n + 1, len(COLUMNS)), np.nan)
    counts = np.arange(1.0, n + 1)
    found[:, 0] = np.arange(n + 1)
    scores, spreads = logprobs.astype(np.float64), entropies.astype(np.float64)
    known = [
        scores.cumsum(),
        scores.cumsum() / counts,
        np.minimum.accumulate(scores),
        np.full(n, scores[0] if n else np.nan),
        spreads[:n].cumsum() / counts,
        np.maximum.accumulate(spreads[:n]),
        np.full(n, spreads[0]),
        spreads[:n],
    ]
    found[1:, 1 : len(UNCERTAINTY)] = np.column_stack(known)
    found[0, _FIRST] = spreads[0]
    start, middle = len(UNCERTAINTY), len(UNCERTAINTY) + len(METRICS)
    found[:, start:middle] = metrics[0]
    found[1:, middle:] = metrics[1:].cumsum(axis=0) / counts[:, None]
    return found


def learnt_prefixes(n: int, most: int) -> list[int]:
    """Of an answer of `n` tokens, after which of them a detector learns: `most` at most, evenly."""
    return np.unique(np.linspace(1, n, min(n, most)).round().astype(int)).tolist()
