"""`final_report.json`, `confusion_matrix.png` and `roc_curve.png`: the whole on one page.

The plan's targets are set beside what was found, as passed or not; they decide nothing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fluoroscope.core.storage import read_json
from fluoroscope.plots.matplotlib_renderer import save_chart
from fluoroscope.runs.run import DONE, Run
from fluoroscope.steps.evaluate_saes import QUALITY
from fluoroscope.studies.hallucination.charts import THRESHOLD, confusion_chart
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.detection.scores import (
    METRICS,
    Scored,
    over_resamples,
    percentile_interval,
)
from fluoroscope.studies.hallucination.method_charts import roc_of_methods
from fluoroscope.studies.hallucination.methods import BASELINE, COMBINED, TRACKING
from fluoroscope.studies.hallucination.seed_files.writing import (
    CONFUSION_MATRIX,
    FINAL_REPORT,
    ROC_CURVE,
    figure_json,
    model_name,
    write_plain,
)
from fluoroscope.studies.hallucination.steps.detect import read_scores
from fluoroscope.studies.hallucination.steps.evaluate import EVALUATE, HEADLINE, METHODS, NOISE
from fluoroscope.studies.hallucination.steps.features import readable_answers

TARGETS: Mapping[str, float] = {"auroc": 0.90, "f1": 0.85}
"""What the plan expects, each to be above."""

MAX_LOSS, ACTIVE = 0.01, (50, 100)
"""The plan's SAEs: reconstruction loss, and active latents."""


def write_evaluation(
    run: Run, config: HallucinationConfig, out: Path, missing: Mapping[str, str]
) -> list[Path]:
    """`missing` are files that this run could not give, with the reason."""
    methods = read_scores(run, config)
    shown = {name: methods[name] for name in (BASELINE, TRACKING, COMBINED)}
    report = {**final_report(run, config, methods[COMBINED]), "missing": dict(missing)}
    paths = [write_plain(out / FINAL_REPORT, report)]
    charts = {
        CONFUSION_MATRIX: confusion_chart(methods[COMBINED]),
        ROC_CURVE: roc_of_methods(shown),
    }
    for name, chart in charts.items():
        save_chart(chart, out / name)
        paths.append(out / name)
    return paths


def final_report(
    run: Run, config: HallucinationConfig, combined: Scored
) -> dict[str, Any]:  # Any: JSON values.
    folder = run.shard_folder(EVALUATE, "all")
    table = pl.read_parquet(folder / METHODS).filter(pl.col("method") == COMBINED)
    figures = table.row(0, named=True)
    labels = readable_answers(run)["label"]
    return {
        "run": run.name,
        "model": model_name(config),
        "n_layers": config.shape.n_layers,
        "d_model": config.shape.d_model,
        "data": config.data.model_dump(mode="json"),
        "n_answers": len(labels),
        "n_groups": int(combined.groups.max()) + 1,
        "n_made_up": int((labels == 1).sum()),
        "tracking": {
            **config.tracking.model_dump(mode="json"),
            "layers": [str(point) for point in config.points],
            "d_sae": config.widths,
        },
        "headline": read_json(folder / HEADLINE),
        "noise": read_json(folder / NOISE),
        "detection": figure_json(figures, METRICS),
        "class_accuracy": class_accuracy(combined, config.seed),
        "quality_assessment": [*_of_detection(figures), *_of_saes(run, config)],
        "targets": {
            **{name: f"above {value:.2f}" for name, value in TARGETS.items()},
            "reconstruction_loss": f"below {MAX_LOSS}",
            "active_latents": f"{ACTIVE[0]} to {ACTIVE[1]}",
        },
    }


def class_accuracy(rows: Scored, seed: int) -> dict[str, Any]:  # Any: JSON values.
    """Of the true and of the made-up answers, the share that is told right, with its interval."""
    is_right = (rows.scores >= THRESHOLD) == rows.labels
    n_groups = int(rows.groups.max()) + 1
    found = {}
    for name, is_kind in (("factual", ~rows.labels), ("hallucinated", rows.labels)):
        right = np.bincount(rows.groups, (is_right & is_kind).mean(axis=0), minlength=n_groups)
        sums = np.column_stack([right, np.bincount(rows.groups, is_kind, minlength=n_groups)])

        def shares(weights: np.ndarray, of: np.ndarray = sums) -> np.ndarray:
            told, all_of_kind = (weights @ of).T
            return np.where(all_of_kind > 0, told / np.maximum(all_of_kind, 1), np.nan)[:, None]

        value = float(shares(np.ones((1, n_groups)))[0, 0])
        draws = over_resamples(rows, seed, 2000, shares)[:, 0]
        found[name] = percentile_interval(value, draws, n_groups)._asdict()
    return found


def _of_detection(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "what": name,
            "value": figures[name],
            "target": f"above {target:.2f}",
            "passed": figures[name] > target,
        }
        for name, target in TARGETS.items()
    ]


def _of_saes(run: Run, config: HallucinationConfig) -> list[dict[str, Any]]:
    """By layer, where the run trained its SAEs. The plan's loss is in units of its raw
    activations; the share of variance unexplained says the same of any model.
    """
    if config.train is None or not (run.folder / QUALITY / DONE).exists():
        return []
    found = []
    for group in config.train.groups:
        quality = read_json(run.shard_folder(QUALITY, group) / "quality.json")
        for key, one in quality.items():
            fvu, l0 = one["fvu"][0], one["l0"][0]
            found += [
                {
                    "what": f"variance unexplained, {key}",
                    "value": fvu,
                    "target": f"below {MAX_LOSS}",
                    "passed": fvu < MAX_LOSS,
                },
                {
                    "what": f"active latents, {key}",
                    "value": l0,
                    "target": f"{ACTIVE[0]} to {ACTIVE[1]}",
                    "passed": ACTIVE[0] <= l0 <= ACTIVE[1],
                },
            ]
    return found
