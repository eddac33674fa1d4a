"""ILM: the seed's choice of a layer by what a probe, Fisher's ratio and the silhouette see in it.

    fisher = mean over pairs of classes |c_i - c_j|^2 / sum over classes of mean |x - c|^2
    mixed  = (alpha probe + beta fisher + gamma silhouette) / (alpha + beta + gamma)
    final  = score (1 - depth_bias l / (L - 1))

`code` scores whole states, of length 1, as the seed's code does; principal components are in its
tables alone, and layers that `layer_stride` leaves out score 0. Its defects are kept: depth
rewards a negative score, and is worth more than most differences between layers (the decision page
`choosing-a-layer` has numbers).

`manual` follows the five steps of the seed's manual: components first, and the three scores of
those that go along best with the label. It does not say how many rows may see the label; here the
components of a probe are picked by the rows that it learns from. Layers left out score -inf.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_score
from sklearn.model_selection import StratifiedKFold, train_test_split

from fluoroscope.core.seeding import derive_seed, stream
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.studies.plugin.selection.features import LayerFeatures
from fluoroscope.studies.plugin.selection.ilm_config import IlmConfig

Style = Literal["code", "manual"]

_HELD_OUT = 0.2
_N_FOLDS, _N_REPEATS = 5, 3


class IlmScores(NamedTuple):
    """NaN where a layer was not scored."""

    probe: Float[np.ndarray, " layers"]
    """Accuracy on a held-out fifth."""

    probe_se: Float[np.ndarray, " layers"]
    """Binomial."""

    fisher: Float[np.ndarray, " layers"]
    silhouette: Float[np.ndarray, " layers"]
    mixed: Float[np.ndarray, " layers"]

    robust: Float[np.ndarray, " layers"]
    """Accuracy of folds over that of shuffled labels; NaN but in the mode of that name."""

    depth_factor: Float[np.ndarray, " layers"]

    final: Float[np.ndarray, " layers"]
    """The score of the mode times the depth factor; what chooses, and the seed's `effects`."""

    correlations: Float[np.ndarray, "layers pcs"]
    """|r| of each principal component with the label, the largest over classes (one against the
    rest) where there are several; NaN beyond the rank."""

    @property
    def best(self) -> int:
        """The first of equals."""
        return int(self.final.argmax())


def ilm_scores(
    features: LayerFeatures,
    config: IlmConfig,
    seed: int,
    style: Style = "code",
    sink: Sink = SILENT,
) -> IlmScores:
    """Scores of all layers, by `config.n_samples` of the rows where there are more. Rows count in
    the order of their ids, so that theirs plays no part.
    """
    features = features.by_id()
    features = features.take(drawn(features.labels, config, seed))
    n_layers = features.n_layers
    parts = np.full((n_layers, 5), np.nan)
    correlations = np.full((n_layers, config.n_pcs), np.nan)
    for layer in range(0, n_layers, config.layer_stride):
        rows = _spanned(_unit_rows(features.layer(layer)))
        pcs = _components(rows, config.n_pcs)
        correlations[layer, : pcs.shape[1]] = label_correlations(pcs, features.labels)
        if style == "manual":
            train, _ = _split(features.labels, seed)
            along = label_correlations(pcs[train], features.labels[train])
            rows = pcs[:, np.argsort(-along, kind="stable")[: config.top_pc]]
            if rows.shape[1] == 0:
                # Equal states have no components, and one of zeros says as much.
                rows = np.zeros((len(rows), 1))
        parts[layer] = _parts(rows, features.labels, config, seed)
        sink.progress(layer + 1, n_layers, "layers")
    probe, probe_se, fisher, silhouettes, robust = parts.T
    mixed = (config.alpha * probe + config.beta * fisher + config.gamma * silhouettes) / (
        config.alpha + config.beta + config.gamma
    )
    score = {
        "probe": probe,
        "fisher": fisher,
        "silhouette": silhouettes,
        "mixed": mixed,
        "robust": robust,
    }[config.score_mode]
    depth_factor = 1 - config.depth_bias * np.arange(n_layers) / max(1, n_layers - 1)
    left_out = 0.0 if style == "code" else -np.inf
    final = np.where(np.isnan(score), left_out, score * depth_factor)
    return IlmScores(
        probe, probe_se, fisher, silhouettes, mixed, robust, depth_factor, final, correlations
    )


def drawn(labels: Int[np.ndarray, " n"], config: IlmConfig, seed: int) -> list[int]:
    """Rows of a draw: of each class as many, where it is stratified, as there is room for (all of
    a smaller class); of all alike otherwise.
    """
    if config.n_samples >= len(labels):
        return list(range(len(labels)))
    order = stream(seed, "samples of ilm").permutation(len(labels))
    if not config.is_stratified:
        return sorted(order[: config.n_samples].tolist())
    classes = np.unique(labels)
    each = config.n_samples // len(classes)
    parts = [order[labels[order] == one][:each] for one in classes]
    return sorted(np.concatenate(parts).tolist())


def fisher_ratio(rows: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"]) -> float:
    """0 where all rows are the same."""
    groups = [rows[labels == label] for label in np.unique(labels)]
    centres = np.stack([group.mean(axis=0) for group in groups])
    first, second = np.triu_indices(len(groups), k=1)
    between = float(((centres[first] - centres[second]) ** 2).sum(axis=1).mean())
    within = sum(
        float(((group - centre) ** 2).sum(axis=1).mean())
        for group, centre in zip(groups, centres, strict=True)
    )
    if _is_constant(rows):
        return 0.0
    return between / within if within > 0 else np.inf


def silhouette(rows: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"]) -> float:
    """Mean Euclidean silhouette, -1 to 1; 0 where all rows are the same."""
    return 0.0 if _is_constant(rows) else float(silhouette_score(rows, labels))


def label_correlations(
    columns: Float[np.ndarray, "n k"], labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " k"]:
    """|r| of each column with the label, or the largest with a class; 0 of a constant one."""
    classes = np.unique(labels)
    wanted = classes[1:] if len(classes) == 2 else classes
    truth = (labels[:, None] == wanted).astype(np.float64)
    truth -= truth.mean(axis=0)
    centred = columns - columns.mean(axis=0)
    lengths = np.sqrt((centred**2).sum(axis=0)[:, None] * (truth**2).sum(axis=0))
    along = np.abs(centred.T @ truth)
    return np.divide(along, lengths, out=np.zeros_like(along), where=lengths > 0).max(axis=1)


def _parts(
    rows: np.ndarray, labels: np.ndarray, config: IlmConfig, seed: int
) -> tuple[float, float, float, float, float]:
    probe, error = _probe(rows, labels, seed)
    robust = np.nan
    if config.score_mode == "robust":
        robust = _selectivity(rows, labels, config.weighs_confidence, seed)
    return probe, error, fisher_ratio(rows, labels), silhouette(rows, labels), robust


def _probe(rows: np.ndarray, labels: np.ndarray, seed: int) -> tuple[float, float]:
    """Accuracy on a fifth, and its standard error."""
    train, test = _split(labels, seed)
    said = _fitted(rows[train], labels[train]).predict(rows[test])
    accuracy = float(np.mean(said == labels[test]))
    return accuracy, (accuracy * (1 - accuracy) / len(test)) ** 0.5


def _selectivity(rows: np.ndarray, labels: np.ndarray, weighs_confidence: bool, seed: int) -> float:
    """By how much folds know labels better than shuffled ones (Hewitt and Liang 2019,
    arXiv:1909.03368), three times over; what to do with confidence is our reading.
    """
    gains = []
    for repeat in range(_N_REPEATS):
        shuffled = stream(seed, "shuffled labels", repeat).permutation(labels)
        true, confidence = _folded(rows, labels, derive_seed(seed, "folds", repeat))
        false, _ = _folded(rows, shuffled, derive_seed(seed, "folds", repeat))
        weight = 0.5 + 0.5 * confidence if weighs_confidence else np.ones_like(confidence)
        gains.append((true - false) * weight)
    return float(np.concatenate(gains).mean())


def _folded(rows: np.ndarray, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy of each fold, and the mean probability of the class that is said."""
    folds = StratifiedKFold(_n_folds(labels), shuffle=True, random_state=seed % 2**32)
    found = np.zeros((2, folds.get_n_splits()))
    for fold, (train, test) in enumerate(folds.split(rows, labels)):
        said = _fitted(rows[train], labels[train])
        chances = said.predict_proba(rows[test])
        found[0, fold] = (said.classes_[chances.argmax(axis=1)] == labels[test]).mean()
        found[1, fold] = chances.max(axis=1).mean()
    return found[0], found[1]


def _n_folds(labels: np.ndarray) -> int:
    return min(_N_FOLDS, int(np.unique(labels, return_counts=True)[1].min()))


def _fitted(rows: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    return LogisticRegression(max_iter=300, C=1.0).fit(rows, labels)


def _split(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that a probe learns from, and a fifth that it is judged by."""
    index = np.arange(len(labels))
    n_held = max(int(np.ceil(_HELD_OUT * len(labels))), len(np.unique(labels)))
    train, test = train_test_split(
        index, test_size=n_held, stratify=labels, random_state=seed % 2**32
    )
    return np.asarray(train), np.asarray(test)


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(lengths, 1e-12)


def _spanned(rows: np.ndarray) -> np.ndarray:
    """The same rows in coordinates of their span: no distance, product or score is another."""
    if rows.shape[1] <= len(rows):
        return rows
    return np.asarray(np.linalg.qr(rows.T, mode="r")).T


def _components(rows: np.ndarray, n_pcs: int) -> np.ndarray:
    """Rows along their first principal components, as many as there are."""
    left, values, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    return (left * values)[:, : min(n_pcs, int((values > 1e-10 * max(values[0], 1e-300)).sum()))]


def _is_constant(rows: np.ndarray) -> bool:
    # Equal rows differ by rounding.
    return bool(np.ptp(rows, axis=0).max() <= 1e-12 * np.abs(rows).max())
