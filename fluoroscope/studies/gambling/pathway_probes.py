"""How well the coming decision can be read from the activations of each layer.

A logistic regression is fitted on some games and judged on others: no game is on both sides.
Beside it stand what the covariates alone tell (balance, round, ...), and the same probe on labels
that were exchanged between games. A decision that is drawn at random cannot be told better than
by its own probability, so an AUROC below 1 may be all there is: the lens' last layer
(`pathway_lens`) says how much.

Axes: `n` decisions, `d` features, `games`, `draws` sets of labels.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from fluoroscope.core.intervals import Interval, resampled_interval
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.studies.gambling.pathway import exchanged

N_FOLDS = 5
COVARIATES = "covariates"
STRENGTH = 10.0
"""Of the prior: the variance of the log-odds before anything was seen, whatever the width."""

PROBES = pl.Schema({
    "hook_point": pl.String, "layer": pl.Int64, "decisions": pl.Int64, "games": pl.Int64,
    "auroc": pl.Float64, "auroc_low": pl.Float64, "auroc_high": pl.Float64,
    "accuracy": pl.Float64, "accuracy_low": pl.Float64, "accuracy_high": pl.Float64,
    "majority": pl.Float64,
    "gain": pl.Float64, "gain_low": pl.Float64, "gain_high": pl.Float64,
    "shuffled_auroc": pl.Float64, "shuffled_auroc_95": pl.Float64,
    "shuffled_accuracy": pl.Float64, "shuffled_accuracy_95": pl.Float64,
    "exchanged_within": pl.String,
})  # fmt: skip


class Decisions(NamedTuple):
    """What is to be told, and which rows belong together."""

    is_stop: Bool[np.ndarray, " n"]
    game: Int[np.ndarray, " n"]
    strata: Int[np.ndarray, " n"]
    """Labels are exchanged within these."""

    exchanged_within: str

    def is_enough(self) -> bool:
        """Both decisions in as many games as there are folds."""
        stops, bets = self.game[self.is_stop], self.game[~self.is_stop]
        return min(len(np.unique(stops)), len(np.unique(bets))) >= N_FOLDS


def probe_table(
    covariates: Float[np.ndarray, "n k"],
    points: Mapping[str, Callable[[], Float[np.ndarray, "n d"]]],
    decisions: Decisions,
    *,
    shuffles: int,
    seed: int,
) -> pl.DataFrame:
    """A row for the covariates, and one for each hook point, whose activations are made when
    their turn comes.

    AUROC of stopping and share of decisions that are told (`accuracy`; `majority` is what always
    saying the more frequent one gets), each with a 95 % interval from resampled games. `gain` is
    the AUROC above that of the covariates, on the same resamples. `shuffled_...` are mean and
    95th percentile under exchanged labels.
    """
    if not decisions.is_enough():
        return pl.DataFrame(schema=PROBES)
    labels = np.stack(
        [decisions.is_stop, *(_exchanged_labels(decisions, seed, i) for i in range(shuffles))]
    )
    folds = game_folds(decisions.game)
    known = _judged(covariates, labels, folds, decisions.game)
    rows = [_row(COVARIATES, known, known, decisions, seed)]
    for name, read in points.items():
        found = _judged(read(), labels, folds, decisions.game)
        rows.append(_row(name, found, known, decisions, seed))
    return pl.DataFrame(rows, schema=PROBES, orient="row").fill_nan(None)


def game_folds(game: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The fold that each row is judged in; all rows of a game are in one."""
    fold = np.zeros(len(game), np.int64)
    nothing = np.zeros(len(game))
    for i, (_, judged) in enumerate(GroupKFold(N_FOLDS).split(nothing, nothing, game)):
        fold[judged] = i
    return fold


def out_of_fold(
    x: Float[np.ndarray, "n d"],
    labels: Bool[np.ndarray, "draws n"],
    fold: Int[np.ndarray, " n"],
) -> Float[np.ndarray, "draws n"]:
    """Log-odds of each row by a logistic regression on the rows of the other folds, for each set
    of labels; 0 where these have one label only.
    """
    scores = np.zeros(labels.shape)
    for one in np.unique(fold):
        judged = fold == one
        fitted, seen = _standardised(x[~judged], x[judged])
        for draw, own in enumerate(labels[:, ~judged]):
            if own.min() == own.max():
                continue
            model = LogisticRegression(C=STRENGTH, tol=1e-5, max_iter=1000).fit(fitted, own)
            scores[draw, judged] = model.decision_function(seen)
    return scores


class GameWins(NamedTuple):
    """Pairs of a decision to stop and one to bet, by the games that they are of."""

    wins: Float[np.ndarray, "games games"]
    """Pairs in which the one to stop has the larger score; ties count half."""

    pairs: Float[np.ndarray, "games games"]

    @classmethod
    def of(
        cls,
        scores: Float[np.ndarray, " n"],
        is_stop: Bool[np.ndarray, " n"],
        game: Int[np.ndarray, " n"],
        fold: Int[np.ndarray, " n"],
    ) -> "GameWins":
        """`game` counts from 0. Only within a fold: scores of two models have no common zero."""
        n_games = int(game.max()) + 1
        wins, pairs = np.zeros((n_games, n_games)), np.zeros((n_games, n_games))
        for one in np.unique(fold):
            stop, bet = (fold == one) & is_stop, (fold == one) & ~is_stop
            difference = scores[stop][:, None] - scores[bet]
            places = game[stop][:, None], game[bet][None]
            np.add.at(wins, places, (difference > 0) + 0.5 * (difference == 0))
            np.add.at(pairs, places, 1.0)
        return cls(wins, pairs)

    def auroc(self, weight: Float[np.ndarray, " games"]) -> float:
        """With each game counted so often; NaN where no two decisions can be compared."""
        total = weight @ self.pairs @ weight
        return float(weight @ self.wins @ weight / total) if total else float("nan")


def auroc_interval(
    scores: Float[np.ndarray, " n"],
    is_stop: Bool[np.ndarray, " n"],
    game: Int[np.ndarray, " n"],
    seed: int,
) -> Interval:
    """Of scores that are all of one model."""
    index = np.unique(game, return_inverse=True)[1]
    wins = GameWins.of(scores, is_stop, index, np.zeros(len(scores), np.int64))
    n_games = len(wins.pairs)
    return resampled_interval(_weighted(wins.auroc, n_games), n_games, seed)


class _Judged(NamedTuple):
    """What came out for the true labels, and for those that were exchanged."""

    wins: GameWins
    right: Float[np.ndarray, " games"]
    """Decisions of each game that are told."""

    size: Float[np.ndarray, " games"]
    shuffled_auroc: Float[np.ndarray, " shuffles"]
    shuffled_accuracy: Float[np.ndarray, " shuffles"]


def _judged(
    x: Float[np.ndarray, "n d"],
    labels: Bool[np.ndarray, "draws n"],
    fold: Int[np.ndarray, " n"],
    game: Int[np.ndarray, " n"],
) -> _Judged:
    index = np.unique(game, return_inverse=True)[1]
    scores = out_of_fold(x, labels, fold)
    is_right = (scores > 0) == labels
    every = [
        GameWins.of(own, is_stop, index, fold) for own, is_stop in zip(scores, labels, strict=True)
    ]
    ones = np.ones(index.max() + 1)
    return _Judged(
        every[0],
        np.bincount(index, is_right[0]),
        np.bincount(index).astype(float),
        np.array([wins.auroc(ones) for wins in every[1:]]),
        is_right[1:].mean(axis=1),
    )


def _row(
    name: str, found: _Judged, known: _Judged, decisions: Decisions, seed: int
) -> tuple[str | int | float | None, ...]:
    n = len(found.size)
    is_known = name == COVARIATES

    def told(weight: Float[np.ndarray, " games"]) -> float:
        return float(weight @ found.right / (weight @ found.size))

    def gained(weight: Float[np.ndarray, " games"]) -> float:
        return found.wins.auroc(weight) - known.wins.auroc(weight)

    share = float(decisions.is_stop.mean())
    # The same seed draws the same games for every layer.
    gain = (None,) * 3 if is_known else resampled_interval(_weighted(gained, n), n, seed)
    return (
        name,
        None if is_known else HookPoint(name).layer,
        len(decisions.is_stop),
        n,
        *resampled_interval(_weighted(found.wins.auroc, n), n, seed),
        *resampled_interval(_weighted(told, n), n, seed),
        max(share, 1 - share),
        *gain,
        *_mean_and_95(found.shuffled_auroc),
        *_mean_and_95(found.shuffled_accuracy),
        decisions.exchanged_within,
    )


def _exchanged_labels(decisions: Decisions, seed: int, shuffle: int) -> Bool[np.ndarray, " n"]:
    # Decision by decision: nearly every game ends with its one decision to stop, so that whole
    # sequences of labels would stay what they were.
    return decisions.is_stop[exchanged(decisions.strata, seed, "labels", shuffle)]


def _standardised(
    fitted: Float[np.ndarray, "m d"], seen: Float[np.ndarray, "k d"]
) -> tuple[Float[np.ndarray, "m r"], Float[np.ndarray, "k r"]]:
    """Zero mean, and variances that sum to 1, by the rows that are fitted; at most as many columns
    as rows, which is a rotation and changes no ridge.
    """
    mean, sd = fitted.mean(axis=0), fitted.std(axis=0)
    varies = sd > 1e-9 * np.abs(mean) + 1e-12
    scale = sd[varies] * max(1, int(varies.sum())) ** 0.5
    own, other = ((rows - mean)[:, varies] / scale for rows in (fitted, seen))
    if own.shape[1] == 0:
        return np.zeros((len(own), 1)), np.zeros((len(other), 1))
    if own.shape[1] <= len(own):
        return own, other
    left, sizes, right = np.linalg.svd(own, full_matrices=False)
    return left * sizes, other @ right.T


def _weighted(
    statistic: Callable[[Float[np.ndarray, " games"]], float], n: int
) -> Callable[[Int[np.ndarray, " n"]], float]:
    return lambda chosen: statistic(np.bincount(chosen, minlength=n).astype(float))


def _mean_and_95(values: Float[np.ndarray, " shuffles"]) -> tuple[float, float]:
    return float(np.nanmean(values)), float(np.nanquantile(values, 0.95))
