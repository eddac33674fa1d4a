"""Detectors of made-up answers, and an evaluation that cannot be fooled."""

from typing import TYPE_CHECKING

from fluoroscope.core.registry import Registry

if TYPE_CHECKING:
    from fluoroscope.studies.hallucination.detection.detectors import Detector

_HOME = "fluoroscope.studies.hallucination.detection.detectors"

DETECTORS: "Registry[type[Detector]]" = Registry(
    "detector",
    {
        "forest": f"{_HOME}:Forest",
        "boosting": f"{_HOME}:Boosting",
        "logistic": f"{_HOME}:Logistic",
        "memory": f"{_HOME}:Memory",
        "mlp": f"{_HOME}:Perceptron",
        "words": f"{_HOME}:Words",
        "best layer": "fluoroscope.studies.hallucination.detection.best_layer:BestLayer",
    },
)
