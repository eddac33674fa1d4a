"""What an anatomy run found, loaded once for all parts of its report."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fluoroscope.core.storage import read_json
from fluoroscope.core.tensors import read_tensors
from fluoroscope.features.statistics import LatentMoments
from fluoroscope.models.families import find_family
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.position_ablation import describe_ablation
from fluoroscope.runs.run import Run
from fluoroscope.studies.anatomy.plans import AnatomyConfig, Reading, layer_names
from fluoroscope.studies.anatomy.steps.losses import LOSSES_STEP, POSITIONS, TABLE
from fluoroscope.studies.anatomy.steps.statistics import (
    READINGS,
    STATISTICS,
    load_statistics,
    text_moments,
)

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Look:
    """One reading of all layers; lists have an entry a layer."""

    latents: list[Arrays]
    positions: list[Arrays]
    summaries: list[dict[str, Any]]  # Any: JSON values.

    def moments(self, which: str = "text") -> list[LatentMoments]:
        return [text_moments(one, which) for one in self.latents]

    def position(self, name: str) -> list[np.ndarray]:
        """NaN at positions that no sequence has."""
        return [
            np.where(one["n_tokens"] > 0, one[name], np.nan).astype(float) for one in self.positions
        ]

    def summary(self, name: str) -> list[list[float]]:
        """Estimates with their intervals."""
        return [[np.nan if part is None else part for part in one[name]] for one in self.summaries]


class Findings:
    def __init__(self, run: Run, config: AnatomyConfig) -> None:
        self.run, self.config = run, config
        self.points: list[HookPoint] = config.points
        self.names = layer_names(self.points)
        self.readings = config.readings
        self.first = self.readings[0]

    @cached_property
    def looks(self) -> dict[str, Look]:
        found = {}
        for reading in self.readings:
            parts = [load_statistics(self.run, reading, point) for point in self.points]
            found[reading.key] = Look(*(list(column) for column in zip(*parts, strict=True)))
        return found

    @property
    def clean(self) -> Look:
        return self.looks[self.first.key]

    def described(self, reading: Reading) -> str:
        """What a caption calls a reading."""
        match reading.ablation:
            case None if reading.slice == self.first.slice:
                return "clean"
            case None:
                return f"clean, {reading.slice} sequences"
            case "reconstructed":
                return "SAEs spliced in"
            case "positions_removed":
                return describe_ablation(find_family(self.config.shape.family, ""), "removed")
            case "positions_shuffled":
                return describe_ablation(find_family(self.config.shape.family, ""), "shuffled")

    @property
    def same_slice(self) -> dict[str, Reading]:
        """Description -> reading, of the first slice: clean, and with each ablation."""
        own = [reading for reading in self.readings if reading.slice == self.first.slice]
        return {self.described(reading): reading for reading in own}

    @cached_property
    def own_losses(self) -> Arrays:
        """The model's own, by reading; empty of a model that predicts no next token."""
        folder = self.run.step_folder(STATISTICS)
        return {k: t.numpy() for k, t in read_tensors(folder / READINGS).items()}

    @property
    def has_losses(self) -> bool:
        return bool(self.own_losses)

    @cached_property
    def losses(self) -> dict[str, Any]:  # Any: JSON values.
        """Hook point -> what is lost with its reconstruction in place, with intervals."""
        return read_json(self.run.step_folder(LOSSES_STEP) / TABLE)

    @cached_property
    def losses_by_position(self) -> Arrays:
        folder = self.run.step_folder(LOSSES_STEP)
        return {k: t.numpy() for k, t in read_tensors(folder / POSITIONS).items()}

    def loss_estimates(self, name: str) -> list[list[float]]:
        """Of each layer: value, low, high."""
        rows = [self.losses[str(point)][name] for point in self.points]
        return [[np.nan if part is None else part for part in row] for row in rows]

    def loss_curve(self, key: str, arrays: Arrays | None = None) -> np.ndarray:
        """Mean loss at each position; NaN where nothing is predicted."""
        found = self.losses_by_position if arrays is None else arrays
        return np.where(found[f"{key}/n"] > 0, found[f"{key}/mean"], np.nan)
