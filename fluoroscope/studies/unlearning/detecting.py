"""Which prompts call for what is to be forgotten: detectors of whole texts, and how good they are.

`ShareDetector` is DSG's (arXiv:2504.08192): the share of a prompt's tokens in which any of the
selected latents is active, above a percentile of the prompts to keep. It can tell no more than
that some of the latents are there. Where what is to be forgotten is a meeting of parts that each
occur elsewhere (a first name and a surname), none of them tells; `LearnedDetector` weighs all
latents instead: a logistic regression on the largest value of each in the prompt.

Axes: texts, `features` latents of all hook points.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from fluoroscope.core.errors import ConfigError, MismatchError
from fluoroscope.core.intervals import clustered_share_interval
from fluoroscope.core.running_stats import Arrays
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.studies.unlearning.sets import ForgetSets, Passage
from fluoroscope.studies.unlearning.statistics import SAEs, encoded, strongest

MIN_FOLDS = 3
"""Parts that a learned detector's threshold is set on, where texts have no forms."""


@dataclass(frozen=True, eq=False)
class Detector(ABC):
    """Flags prompts whose score is above the threshold."""

    saes: SAEs
    threshold: float

    @abstractmethod
    def scores(self, model: LanguageModel, prompts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """The higher, the more a prompt is one of those to forget."""

    def flags(self, model: LanguageModel, prompts: Sequence[str]) -> Bool[np.ndarray, " texts"]:
        return self.scores(model, prompts) > self.threshold


@dataclass(frozen=True, eq=False)
class ShareDetector(Detector):
    latents: Mapping[HookPoint, tuple[int, ...]]

    @classmethod
    def fit(
        cls,
        model: LanguageModel,
        saes: SAEs,
        sets: ForgetSets,
        latents: Mapping[HookPoint, tuple[int, ...]],
        percentile: float = 99.0,
    ) -> "ShareDetector":
        """The threshold is this percentile of the prompts to keep."""
        _check_percentile(percentile)
        if not latents or not set(latents) <= set(saes):
            raise MismatchError(
                f"A detector of latents at {sorted(map(str, latents))} needs an SAE of each; there "
                f"are those of {sorted(map(str, saes))}."
            )
        own = cls({point: saes[point] for point in latents}, np.inf, latents)
        kept = own.scores(model, list(_by_prompt(sets.retain)))
        return cls(own.saes, float(np.percentile(kept, percentile)), latents)

    def scores(self, model: LanguageModel, prompts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        # A token counts once, at however many hook points a latent is active in it.
        fired: list[list[np.ndarray]] = [[] for _ in prompts]
        for point, latents, text in encoded(model, self.saes, prompts):
            is_chosen = np.isin(latents.indices.cpu().numpy(), self.latents[point])
            is_active = is_chosen & (latents.values.detach().cpu().numpy() > 0)
            any_fired = np.bincount(
                latents.rows.cpu().numpy()[is_active], minlength=latents.n_rows
            ).astype(bool)
            for place in np.unique(text):
                fired[place].append(any_fired[text == place])
        return np.array([np.mean(np.any(rows, axis=0)) if rows else 0.0 for rows in fired])


@dataclass(frozen=True, eq=False)
class LearnedDetector(Detector):
    weights: Float[np.ndarray, " features"]
    bias: float

    @classmethod
    def fit(
        cls,
        model: LanguageModel,
        saes: SAEs,
        sets: ForgetSets,
        penalty: float = 0.1,
        percentile: float = 99.0,
    ) -> "LearnedDetector":
        """Both sides weigh the same. The threshold is this percentile of the prompts to keep, each
        scored by a detector that was learnt from texts of other forms than its own: scores of what
        was learnt from are too clear to set a threshold by.

        `penalty` is that of the squared weights, for latents in units of their largest value.
        """
        _check_percentile(percentile)
        if not penalty > 0:
            raise ConfigError(f"The penalty of a learned detector is above 0, got {penalty}.")
        forget, retain = _by_prompt(sets.forget), _by_prompt(sets.retain)
        latents = strongest(model, saes, [*forget, *retain])
        label = np.repeat([1, 0], [len(forget), len(retain)])
        fold = np.concatenate([_folds(forget.values()), _folds(retain.values())])
        kept = np.full(len(label), np.nan)
        for number in np.unique(fold):
            is_mine = fold == number
            weights, bias = _learnt(latents[~is_mine], label[~is_mine], penalty)
            kept[is_mine] = latents[is_mine] @ weights + bias
        threshold = float(np.percentile(kept[label == 0], percentile))
        return cls(saes, threshold, *_learnt(latents, label, penalty))

    def scores(self, model: LanguageModel, prompts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """Log odds."""
        return strongest(model, self.saes, prompts) @ self.weights + self.bias

    def state(self) -> Arrays:
        """Arrays that, with the same SAEs, `from_state` makes the same detector of."""
        return {"weights": self.weights, "numbers": np.array([self.bias, self.threshold])}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], saes: SAEs) -> "LearnedDetector":
        weights, (bias, threshold) = state["weights"], state["numbers"]
        if len(weights) != sum(sae.d_sae for sae in saes.values()):
            raise MismatchError(
                f"A detector of {len(weights)} latents was learnt with other SAEs than those of "
                f"{', '.join(map(str, saes))}."
            )
        return cls(saes, float(threshold), weights, float(bias))


def detection_table(detector: Detector, model: LanguageModel, sets: ForgetSets) -> pl.DataFrame:
    """Share of prompts that are flagged, with intervals over groups: of texts to forget and of
    texts to keep, those that were learnt from and those that were held out.
    """
    parts: dict[tuple[str, str], Sequence[Passage]] = {
        ("forget", "learnt"): sets.forget,
        ("forget", "held out"): sets.forget_held_out,
        ("retain", "learnt"): sets.retain,
        ("retain", "held out"): sets.retain_held_out,
    }
    rows = []
    for (side, part), passages in parts.items():
        groups = {prompt: one.group for prompt, one in _by_prompt(passages).items()}
        if not groups:
            continue
        flags = detector.flags(model, list(groups))
        _, numbers = np.unique(list(groups.values()), return_inverse=True)
        share, low, high = clustered_share_interval(flags, numbers)
        rows.append(
            {
                "side": side,
                "part": part,
                "n": len(groups),
                "n_groups": len(set(groups.values())),
                "flagged": share,
                "flagged_low": low,
                "flagged_high": high,
            }
        )
    return pl.DataFrame(rows).with_columns(pl.col("flagged_low", "flagged_high").fill_nan(None))


def _learnt(
    latents: csr_array, label: Int[np.ndarray, " texts"], penalty: float
) -> tuple[Float[np.ndarray, " features"], float]:
    """Weights and bias of the log odds."""
    from sklearn.linear_model import LogisticRegression

    assert latents.shape is not None
    largest = np.zeros(latents.shape[1])
    np.maximum.at(largest, latents.indices, latents.data)
    scale = np.where(largest > 0, largest, 1.0)
    is_seen = np.flatnonzero(largest > 0)
    scaled = csr_array((latents.data / scale[latents.indices], latents.indices, latents.indptr))
    scaled.resize(latents.shape)
    fitted = LogisticRegression(C=1 / penalty, class_weight="balanced", max_iter=5000)
    fitted.fit(scaled[:, is_seen], label)
    # A latent that never was active has learnt nothing.
    weights = np.zeros(len(scale))
    weights[is_seen] = np.ravel(fitted.coef_) / scale[is_seen]
    return weights, float(np.ravel(fitted.intercept_)[0])


def _folds(passages: Iterable[Passage]) -> Int[np.ndarray, " texts"]:
    """Texts of one form together, others in turn."""
    forms = [one.form for one in passages]
    number = {form: place for place, form in enumerate(sorted(set(forms) - {""}))}
    n_folds = max(MIN_FOLDS, len(number))
    return np.array([number.get(form, place % n_folds) for place, form in enumerate(forms)])


def _by_prompt(passages: Sequence[Passage]) -> dict[str, Passage]:
    """The same prompt with another reply is no other prompt."""
    return {one.prompt: one for one in passages}


def _check_percentile(percentile: float) -> None:
    if not 0 < percentile <= 100:
        raise ConfigError(f"A percentile is above 0 and at most 100, got {percentile}.")
