"""Trackers: what turns the links of one token into tracks. A new one is a file and a line here.

greedy     layer by layer, the likeliest link first
nearest    layer by layer, the best assignment of tracks to detections
jpda       layer by layer, the likeliest detection after all ways to assign them are summed
mht        several global hypotheses at a time, decided some layers later
optimum    the best set of tracks over all layers at once; needs the last layer to begin
seed_cost  the original's weighted costs, which need links of their own (`seed_cost.SeedCosts`)
"""

from abc import ABC, abstractmethod
from typing import Protocol

from fluoroscope.core.registry import Registry
from fluoroscope.studies.hallucination.tracking.detections import Detections
from fluoroscope.studies.hallucination.tracking.links import Links
from fluoroscope.studies.hallucination.tracking.tracks import TrackSet


class LinkModel(Protocol):
    """How likely detections of one token are one feature."""

    def links(self, detections: Detections) -> Links:
        """What may join them."""
        ...


class Tracker(ABC):
    """Joins detections into tracks; holds settings alone, so one serves for many tokens."""

    @abstractmethod
    def track(self, links: Links) -> TrackSet:
        """Tracks that share no detection, joined by links only; what is in none is clutter."""


SEED_COST = "seed_cost"
_HOME = "fluoroscope.studies.hallucination.tracking"

TRACKERS: Registry[type[Tracker]] = Registry(
    "tracker",
    {
        "greedy": f"{_HOME}.greedy:Greedy",
        "nearest": f"{_HOME}.nearest:Nearest",
        "jpda": f"{_HOME}.jpda:JPDA",
        "mht": f"{_HOME}.mht:MHT",
        "optimum": f"{_HOME}.optimum:Optimum",
        SEED_COST: f"{_HOME}.seed_cost:SeedCost",
    },
)
