"""The weighted-cost tracker that this study set out from, exactly as it was described.

    cost(i, j) = 0.6 (1 - cosine of their directions) + 0.2 |a_i - a_j| / (a_i + a_j) + 0.2 x 0

The third part was meant for the token position and is always 0. From layer to layer tracks that
are alive get detections by the assignment of least cost; pairs at or above the threshold are taken
apart again only then, so both stay without though they may have had others. A track without a
detection is dead at once, and a detection without a track begins one if its activation is above
the birth threshold. For comparison: activations are raw, so thresholds mean something else for
every latent, and with cosines of 0.2 to 0.5 as matches most pairs are chance.

`SeedCosts` makes links of a token whose scores are costs with a minus, not log-likelihood ratios;
`SeedCost` is the tracker for such links, and for no others.

Axes: n detections, d model width, l layers, s latents, t tracks that are alive, c detections of a
layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int32, Int64
from scipy.optimize import linear_sum_assignment

from fluoroscope.studies.hallucination.settings import Assignment, SeedCostSettings
from fluoroscope.studies.hallucination.tracking.detections import Detections
from fluoroscope.studies.hallucination.tracking.links import Links
from fluoroscope.studies.hallucination.tracking.trackers import Tracker
from fluoroscope.studies.hallucination.tracking.tracks import TrackSet

SEMANTIC, ACTIVATION, POSITION = 0.6, 0.2, 0.2
_SILENT, _LOUD = 1e-6, 0.1
_NOWHERE = 0.0
"""The cost of the position, whatever it is."""

_NEVER = -1.0
"""A miss has a score, but no link leaps over a layer."""


@dataclass(frozen=True, eq=False)
class SeedCosts:
    """Links by weighted costs, for the SAEs whose decoders are given."""

    directions: Sequence[Float[np.ndarray, "s d"]]
    """Of the latents of each layer."""

    settings: SeedCostSettings

    def links(self, detections: Detections) -> Links:
        """Every pair of detections in adjacent layers, or those that the assignment may take."""
        width = self.directions[0].shape[1]
        rows = np.zeros((len(detections), width), np.float64)
        for layer, decoder in enumerate(self.directions):
            here = detections.layers == layer
            rows[here] = decoder[detections.latents[here]]
        return cost_links(detections, rows, len(self.directions), self.settings)


def cost_links(
    detections: Detections,
    directions: Float[np.ndarray, "n d"],
    n_layers: int,
    settings: SeedCostSettings,
) -> Links:
    """Scores are costs with a minus, and births activations less the birth threshold."""
    starts = np.searchsorted(detections.layers, np.arange(n_layers + 1))
    activations = detections.activations
    targets: list[np.ndarray] = []
    scores: list[np.ndarray] = []
    counts = np.zeros(len(detections), np.int64)
    for layer in range(n_layers - 1):
        here = np.arange(starts[layer], starts[layer + 1])
        there = np.arange(starts[layer + 1], starts[layer + 2])
        costs = association_costs(
            directions[here], directions[there], activations[here], activations[there]
        )
        may = _may_join(detections.latents[here], detections.latents[there], settings.assignment)
        sources, columns = np.nonzero(may)
        counts[here] = may.sum(axis=1)
        targets.append(there[columns])
        # A latent that goes on by its number does so at any cost.
        is_free = settings.assignment == "feature_id"
        scores.append(np.zeros(len(sources)) if is_free else -costs[sources, columns])
    return Links(
        n_layers=n_layers,
        layers=detections.layers,
        strengths=detections.strengths,
        births=activations - settings.birth,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        targets=np.concatenate([*targets, np.zeros(0)]).astype(np.int32),
        scores=np.concatenate([*scores, np.zeros(0)]),
        miss=_NEVER,
        end=0.0,
        max_gap=1,
    )


@dataclass(frozen=True)
class SeedCost(Tracker):
    """For the links of `SeedCosts`; knows no probabilities, so existence is 1 for all tracks."""

    settings: SeedCostSettings

    def track(self, links: Links) -> TrackSet:
        """Layer by layer; a track without a detection is dead at once."""
        tracks: list[list[int]] = []
        alive: list[list[int]] = []
        starts = np.searchsorted(links.layers, np.arange(links.n_layers + 1))
        for layer in range(links.n_layers):
            here = np.arange(starts[layer], starts[layer + 1])
            found = self._matches(links, [track[-1] for track in alive], here)
            for row, column in found:
                alive[row].append(int(here[column]))
            gone = {column for _, column in found}
            births = [
                [int(detection)]
                for column, detection in enumerate(here)
                if column not in gone and links.births[detection] > 0
            ]
            alive = [alive[row] for row, _ in sorted(found)] + births
            tracks += births
        return _sure(sorted(tracks), links.n_layers)

    def _matches(
        self, links: Links, lasts: Sequence[int], here: Int64[np.ndarray, " c"]
    ) -> list[tuple[int, int]]:
        if not (len(lasts) and len(here)):
            return []
        costs = np.full((len(lasts), len(here)), np.inf)
        for row, last in enumerate(lasts):
            mine = slice(links.offsets[last], links.offsets[last + 1])
            costs[row, links.targets[mine] - here[0]] = -links.scores[mine]
        if self.settings.assignment == "greedy":
            return _greedy(costs, links.births[list(lasts)], self.settings.threshold)
        # What may not join costs more than anything that may, and is taken apart below.
        rows, columns = linear_sum_assignment(np.where(np.isinf(costs), 1e6, costs))
        is_near = costs[rows, columns] < self.settings.threshold
        return list(zip(rows[is_near].tolist(), columns[is_near].tolist(), strict=True))


def _may_join(
    before: Int32[np.ndarray, " t"], now: Int32[np.ndarray, " c"], assignment: Assignment
) -> Bool[np.ndarray, "t c"]:
    if assignment == "disabled":
        return np.zeros((len(before), len(now)), bool)
    if assignment == "feature_id":
        return before[:, None] == now
    return np.ones((len(before), len(now)), bool)


def association_costs(
    one: Float[np.ndarray, "t d"],
    other: Float[np.ndarray, "c d"],
    before: Float64[np.ndarray, " t"],
    now: Float64[np.ndarray, " c"],
) -> Float64[np.ndarray, "t c"]:
    """Of joining tracks with the directions `one` and last activations `before` to detections."""
    cosines = np.clip(_units(one) @ _units(other).T, -1, 1)
    together = np.maximum(before[:, None] + now, np.finfo(np.float64).tiny)
    change = np.abs(before[:, None] - now) / together
    change = np.where(before[:, None] <= _SILENT, (now > _LOUD).astype(np.float64), change)
    return SEMANTIC * (1 - cosines) + ACTIVATION * change + POSITION * _NOWHERE


def _units(directions: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    directions = directions.astype(np.float64)
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    return directions / np.where(length > 0, length, 1.0)


def _greedy(
    costs: Float64[np.ndarray, "t c"], before: Float64[np.ndarray, " t"], threshold: float
) -> list[tuple[int, int]]:
    left, found = costs.copy(), []
    for row in np.argsort(-before, kind="stable").tolist():
        column = int(left[row].argmin())
        if left[row, column] < threshold:
            found.append((row, column))
            left[:, column] = np.inf
    return found


def _sure(tracks: list[list[int]], n_layers: int) -> TrackSet:
    offsets = np.cumsum([0, *map(len, tracks)]).astype(np.int64)
    points = np.array([p for track in tracks for p in track], np.int32)
    return TrackSet(
        n_layers=n_layers,
        offsets=offsets,
        points=points,
        existence=np.ones(len(tracks)),
        parents=np.full(len(tracks), -1, np.int32),
        entropy=np.zeros(n_layers),
        margin=np.full(n_layers, np.inf),
    )
