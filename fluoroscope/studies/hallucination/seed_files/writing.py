"""The plan's tree of results, by name.

    tracking/     hypothesis_trajectories.json, semantic_clusters.{json,npz},
                  feature_activations.safetensors, tracking_results.json, tracking_summary.json
    detection/    hallucination_scores.json, classifications.csv, detection_metrics.json
    evaluation/   final_report.json, confusion_matrix.png, roc_curve.png
    models/checkpoints/MODEL/   sae_layer_0_best.safetensors, sae_layer_0_history.json, ...

JSON has no NaN: what is not defined is null.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fluoroscope.core.storage import atomic_path, write_json
from fluoroscope.studies.hallucination.config import HallucinationConfig

TRAJECTORIES = "tracking/hypothesis_trajectories.json"
CLUSTERS, CLUSTER_ARRAYS = "tracking/semantic_clusters.json", "tracking/semantic_clusters.npz"
ACTIVATIONS = "tracking/feature_activations.safetensors"
TRACKING_RESULTS, TRACKING_SUMMARY = (
    "tracking/tracking_results.json",
    "tracking/tracking_summary.json",
)
SCORES, CLASSIFICATIONS = "detection/hallucination_scores.json", "detection/classifications.csv"
DETECTION_METRICS = "detection/detection_metrics.json"
FINAL_REPORT = "evaluation/final_report.json"
CONFUSION_MATRIX, ROC_CURVE = "evaluation/confusion_matrix.png", "evaluation/roc_curve.png"
CHECKPOINTS = "models/checkpoints"


def model_name(config: HallucinationConfig) -> str:
    """`openai-community/gpt2-medium` -> `gpt2-medium`."""
    return config.model.name.rstrip("/").rpartition("/")[2]


def plain(value: Any) -> Any:  # Any: nested JSON values, with NaN among them.
    """The same with null for every number that is none."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_plain(path: Path, value: Any) -> Path:  # Any: nested JSON values.
    write_json(path, plain(value))
    return path


def write_lines(path: Path, items: Iterable[Mapping[str, Any]]) -> Path:  # Any: JSON values.
    """A JSON list with one item a line, written as it is made: it may be larger than memory, and
    a program that reads lines needs no more of it than the comma cut off.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, item in enumerate(items):
            file.write(",\n" if number else "\n")
            file.write(json.dumps(plain(item), ensure_ascii=False, allow_nan=False))
        file.write("\n]\n")
    return path


def figure_json(row: Mapping[str, Any], figures: Sequence[str]) -> dict[str, Any]:
    """`auroc`, `auroc_low`, `auroc_high` of a table's row -> `auroc: {value, low, high}`."""
    return {
        name: {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}
        for name in figures
    }


def rows_json(frame: pl.DataFrame) -> list[dict[str, Any]]:  # Any: JSON values.
    return [plain(row) for row in frame.iter_rows(named=True)]
