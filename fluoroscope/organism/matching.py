"""Does a reading tell a variable? Statistics over prompts; nothing here runs a network."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from fluoroscope.core.intervals import Interval, ratio_interval, resampled_interval
from fluoroscope.organism.prompts import Prompt, Variable

GRADED: tuple[Variable, ...] = ("risk",)
"""Variables that are numbers; the others are yes or no."""

N_BORDERS = 65


class Told(NamedTuple):
    """Prompts, and what a candidate reads of them."""

    reading: Float[np.ndarray, "n k"]
    prompts: Sequence[Prompt]

    @property
    def truth(self) -> Float[np.ndarray, " n"]:
        return np.array([prompt.value for prompt in self.prompts])


def match_of(variable: Variable, learn: Told, judge: Told) -> Interval:
    """How well a reading tells the variable: F1, or the partial Spearman correlation, with an
    interval over prompts. How to read it (its sign, the weights of a set, where yes begins) is
    learned on other prompts than it is judged on.
    """
    weights = linear_reading(variable, learn.reading, learn.truth)
    before, told = learn.reading @ weights, judge.reading @ weights
    if variable in GRADED:
        given = decoys(judge.prompts)
        own, true = (ranks_beyond(v[:, None], given)[:, 0] for v in (told, judge.truth))
        return resampled_interval(
            lambda chosen: _correlation(own[chosen], true[chosen]), len(own), seed=0
        )
    best = max(_borders(before), key=lambda border: f1(learn.truth, before > border))
    hits, total = _f1_parts(judge.truth, told > best)
    return ratio_interval(hits, total, seed=0)


def _borders(told: Float[np.ndarray, " n"]) -> Float[np.ndarray, " b"]:
    """Between values: a latent is zero of most prompts, and any quantile would be that zero."""
    values = np.unique(told)
    between = (values[1:] + values[:-1]) / 2 if len(values) > 1 else values
    return between[np.linspace(0, len(between) - 1, min(N_BORDERS, len(between))).astype(int)]


def linear_reading(
    variable: Variable, reading: Float[np.ndarray, "n k"], truth: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " k"]:
    """Weights of the combination that tells the variable best."""
    scaler = StandardScaler().fit(reading)
    scaled = scaler.transform(reading)
    if variable in GRADED:
        weights = Ridge(alpha=10.0).fit(scaled, truth).coef_
    else:
        weights = LogisticRegression(C=0.1, max_iter=2000).fit(scaled, truth).coef_[0]
    return weights / scaler.scale_


def decoys(prompts: Sequence[Prompt]) -> Float[np.ndarray, "n k"]:
    """What goes along with risk and has no part in it: balance, round, length of the prompt."""
    names = ("balance", "round", "n_characters")
    return np.array([[float(prompt.facts[name]) for name in names] for prompt in prompts])


def partial_spearman(
    a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"], given: Float[np.ndarray, "n k"]
) -> float:
    """The correlation of the ranks of `a` and `b` that the ranks of `given` leave."""
    x, y = (ranks_beyond(values[:, None], given)[:, 0] for values in (a, b))
    return _correlation(x, y)


def _correlation(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Of two series around zero."""
    size = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / size if size > 1e-9 else 0.0


def ranks_beyond(
    values: Float[np.ndarray, "n m"], given: Float[np.ndarray, "n k"]
) -> Float[np.ndarray, "n m"]:
    """The ranks of each column that those of `given` do not tell."""
    known = np.column_stack([np.ones(len(values)), *(rankdata(column) for column in given.T)])
    ranks = rankdata(values, axis=0)
    return ranks - known @ np.linalg.lstsq(known, ranks, rcond=None)[0]


def f1(truth: Float[np.ndarray, " n"], told: Bool[np.ndarray, " n"]) -> float:
    """Zero where nothing is told and nothing is there to tell."""
    hits, total = _f1_parts(truth, told)
    return float(hits.sum()) / max(1.0, float(total.sum()))


def _f1_parts(
    truth: Float[np.ndarray, " n"], told: Bool[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """What each prompt adds above and below the line of F1."""
    is_true = truth > 0
    return 2.0 * (told & is_true), told + 1.0 * is_true
