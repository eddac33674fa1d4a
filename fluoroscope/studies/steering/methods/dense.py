"""Directions from activations, without an SAE: what latents have to compare with.

- `caa`: the mean activation of successes less that of failures (Rimsky et al. 2024,
  arXiv:2312.06681, there of pairs; also DiffMean of AxBench, arXiv:2501.17148).
- `probe`: the gradient of a logistic regression of success on standardised activations, its
  penalty chosen by folds of whole groups.
- `pca`: the first principal component of activations less the mean of the other side, as repeng
  makes control vectors (representation engineering, arXiv:2310.01405). The rows are not centred
  again, which would take out the very difference that they are about.

All have norm 1 and point to success. What is added at strength 1 is the distance between the means
of both sides along the direction, and `clamp` moves to the mean of the successes. Where the recipe
names no layers the method uses one, the best of one trial each on the validation side.

Axes: n training samples, d_model.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from scipy.sparse.linalg import svds
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import derive_seed, stream
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.studies.steering.material import Material
from fluoroscope.studies.steering.methods.base import Method, points_of, successes
from fluoroscope.studies.steering.methods.trials import N_FOLDS, Trials
from fluoroscope.studies.steering.plans import Part, Plan
from fluoroscope.studies.steering.recipes import Recipe

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""What `C` (the inverse of the penalty) of the probe is chosen from."""

Facts = Mapping[str, float | None]
Activations = Float[np.ndarray, "n d_model"]
Sides = Bool[np.ndarray, " n"]
Groups = Shaped[np.ndarray, " n"]


class Dense(Method):
    """One direction a layer."""

    needs_validation = True
    reads_latents = False

    @abstractmethod
    def direction(
        self, x: Activations, success: Sides, groups: Groups, seed: int
    ) -> tuple[Float[np.ndarray, " d_model"], Facts]:
        """Of any norm and either sign, and what is to be said of it."""

    def plan(self, recipe: Recipe, material: Material) -> Plan:
        success = successes(recipe, material)
        groups = np.array(material.groups(recipe.samples))
        parts = []
        for point in points_of(recipe, material):
            x = material.dense(point, recipe.samples).astype(np.float64)
            seed = derive_seed(material.seed, recipe.method, str(point))
            found, facts = self.direction(x, success, groups, seed)
            parts.append(dense_part(point, _turned(found, x, success), x, success, facts))
        if recipe.layers is not None or len(parts) == 1:
            return Plan(recipe, parts)
        return _best(parts, recipe, material)


class CAA(Dense):
    about = "The mean activation of successes less that of failures."

    def direction(
        self, x: Activations, success: Sides, groups: Groups, seed: int
    ) -> tuple[Float[np.ndarray, " d_model"], Facts]:
        return x[success].mean(axis=0) - x[~success].mean(axis=0), {}


class Probe(Dense):
    about = "The direction by which a logistic regression tells successes from failures."

    def direction(
        self, x: Activations, success: Sides, groups: Groups, seed: int
    ) -> tuple[Float[np.ndarray, " d_model"], Facts]:
        scaler = StandardScaler().fit(x)
        penalty, auroc = _penalty(x, success, groups, seed)
        model = LogisticRegression(C=penalty, max_iter=1000).fit(scaler.transform(x), success)
        return np.ravel(model.coef_) / np.asarray(scaler.scale_), {"C": penalty, "auroc": auroc}


class PCA(Dense):
    about = "The first principal component of activations less the mean of the other side."

    def direction(
        self, x: Activations, success: Sides, groups: Groups, seed: int
    ) -> tuple[Float[np.ndarray, " d_model"], Facts]:
        high, low = x[success].mean(axis=0), x[~success].mean(axis=0)
        rows = x - np.where(success[:, None], low, high)
        start = stream(seed, "svd").normal(size=min(rows.shape))
        if min(rows.shape) < 2:
            return rows[0], {}
        _, size, right = svds(rows, k=1, v0=start)
        # What scipy gives may be None by its types, where vectors are not asked for.
        return np.asarray(right)[0], {"share": float(size[0] ** 2 / (rows**2).sum())}


def dense_part(
    point: HookPoint,
    direction: Float[np.ndarray, " d_model"],
    x: Activations,
    success: Sides,
    facts: Facts,
) -> Part:
    """A direction with what is added of it, and where `clamp` moves to."""
    along = x @ (direction / np.linalg.norm(direction))
    target = float(along[success].mean())
    distance = target - float(along[~success].mean())
    unit = torch.from_numpy(direction / np.linalg.norm(direction)).float()
    return Part(point, unit, distance, target, facts=facts)


def _turned(
    direction: Float[np.ndarray, " d_model"], x: Activations, success: Sides
) -> Float[np.ndarray, " d_model"]:
    """Towards success."""
    along = x @ direction
    distance = along[success].mean() - along[~success].mean()
    if not np.isfinite(distance) or distance == 0:
        raise ConfigError(
            "Activations of successes and of failures have the same mean along the direction that "
            "was found, so that it leads nowhere. Take more samples, or another method or layer."
        )
    return direction if distance > 0 else -direction


def _penalty(
    x: Activations, success: Sides, groups: Groups, seed: int
) -> tuple[float, float | None]:
    """The C with the least log loss in folds of whole groups, and the AUROC there.

    The middle one, and no AUROC, where too few groups have either side.
    """
    n_groups = min(len(np.unique(groups[side])) for side in (success, ~success))
    if n_groups < 2:
        return PENALTIES[len(PENALTIES) // 2], None
    n_folds = min(N_FOLDS, n_groups)
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed % 2**32)
    found = []
    for penalty in PENALTIES:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=1000))
        p = np.asarray(
            cross_val_predict(model, x, success, groups=groups, cv=folds, method="predict_proba")
        )[:, 1]
        found.append((log_loss(success, p), penalty, float(roc_auc_score(success, p))))
    _, penalty, auroc = min(found)
    return penalty, auroc


def _best(parts: Sequence[Part], recipe: Recipe, material: Material) -> Plan:
    """The part that comes nearest to what is sought on the validation side."""
    trials = Trials(recipe, material)
    scores = [trials.scores([part]) for part in parts]
    best = trials.best(scores)
    gain = trials.gain(scores[best])
    chosen = replace(parts[best], facts={**parts[best].facts, "validation_gain": gain.value})
    note = (
        f"{chosen.point} is the best of {len(parts)} layers on the validation side at strength "
        f"{trials.strength:g}: {gain}."
    )
    return Plan(recipe, [chosen], note=note)
