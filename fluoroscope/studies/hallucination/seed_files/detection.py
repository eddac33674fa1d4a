"""`hallucination_scores.json`, `classifications.csv` and `detection_metrics.json`.

Every score is of an answer whose question its detector has not seen. Where the cross-validation was
repeated, a score is the mean over repeats, and its interval goes from the lowest to the highest
(null where there is one): how far it depends on which other questions a detector learnt from.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from fluoroscope.core.storage import read_json, write_csv
from fluoroscope.runs.run import Run
from fluoroscope.studies.hallucination.charts import THRESHOLD
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.detection.calibration import fit_calibrator
from fluoroscope.studies.hallucination.detection.scores import METRICS, Scored, scored
from fluoroscope.studies.hallucination.detection.scores import metrics as all_metrics
from fluoroscope.studies.hallucination.methods import COMBINED
from fluoroscope.studies.hallucination.seed_files.writing import (
    CLASSIFICATIONS,
    DETECTION_METRICS,
    SCORES,
    figure_json,
    rows_json,
    write_lines,
    write_plain,
)
from fluoroscope.studies.hallucination.steps.answers import read_answer_records
from fluoroscope.studies.hallucination.steps.detect import read_scores
from fluoroscope.studies.hallucination.steps.evaluate import (
    AGAINST,
    CALIBRATION,
    EVALUATE,
    HEADLINE,
    METHODS,
    NOISE,
)
from fluoroscope.studies.hallucination.steps.features import readable_answers

_OF_FOLD = ("auroc", "auprc", "accuracy", "precision", "recall", "f1")


def write_scores(run: Run, config: HallucinationConfig, out: Path) -> list[Path]:
    """What each text got."""
    methods = read_scores(run, config)
    texts = _texts(run)
    return [
        write_lines(out / SCORES, scores_json(texts, methods)),
        _write_classifications(texts, methods[COMBINED], out / CLASSIFICATIONS),
    ]


def scores_json(
    texts: pl.DataFrame, methods: Mapping[str, Scored]
) -> list[dict[str, Any]]:  # Any: JSON values.
    """`texts` has id, group_id, dataset, prompt, completion and label of each row of the scores."""
    combined = methods[COMBINED]
    n_repeats, probability = len(combined.scores), combined.scores.mean(axis=0)
    low, high = combined.scores.min(axis=0), combined.scores.max(axis=0)
    calibrated = out_of_fold_calibrated(combined)
    means = {name: rows.scores.mean(axis=0) for name, rows in methods.items()}
    return [
        {
            **text,
            "probability": float(probability[row]),
            "interval": {
                "low": float(low[row]) if n_repeats > 1 else None,
                "high": float(high[row]) if n_repeats > 1 else None,
                "n_repeats": n_repeats,
            },
            "calibrated": None if calibrated is None else float(calibrated[row]),
            "predicted": bool(probability[row] >= THRESHOLD),
            "scores": {name: float(values[row]) for name, values in means.items()},
        }
        for row, text in enumerate(texts.iter_rows(named=True))
    ]


def out_of_fold_calibrated(rows: Scored) -> Float[np.ndarray, " n"] | None:
    """Each score through a logistic curve that was fitted to the scores of the other folds (Platt
    1999), averaged over repeats; None where another fold has one label only.
    """
    found = np.zeros(rows.scores.shape)
    for own, folds, mended in zip(rows.scores, rows.folds, found, strict=True):
        for fold in np.unique(folds):
            is_here = folds == fold
            if len(np.unique(rows.labels[~is_here])) < 2:
                return None
            curve = fit_calibrator(own[~is_here], rows.labels[~is_here], "platt")
            mended[is_here] = curve(own[is_here])
    return found.mean(axis=0)


def write_detection_metrics(run: Run, config: HallucinationConfig, out: Path) -> Path:
    """All figures of all methods; at the top, as in the plan, those of baseline + tracking."""
    folder = run.shard_folder(EVALUATE, "all")
    table = pl.read_parquet(folder / METHODS)
    methods = {row["method"]: row for row in table.iter_rows(named=True)}
    figures = [name for name in METRICS if f"{name}_low" in table.columns]
    headline = methods[COMBINED]
    plan = ("accuracy", "auroc", "precision", "recall", "f1")
    return write_plain(
        out / DETECTION_METRICS,
        {
            "method": COMBINED,
            **{name: headline[name] for name in plan},
            "positive": "made up",
            "intervals": "95 %, over groups",
            "methods": {name: figure_json(row, figures) for name, row in methods.items()},
            "against": rows_json(pl.read_parquet(folder / AGAINST)),
            "headline": read_json(folder / HEADLINE),
            "noise": read_json(folder / NOISE),
            "calibration": read_json(folder / CALIBRATION),
            "per_fold": per_fold(read_scores(run, config)[COMBINED], config.seed),
        },
    )


def per_fold(rows: Scored, seed: int) -> list[dict[str, Any]]:  # Any: JSON values.
    """Figures of each fold of each repeat, without intervals: they have few groups."""
    found = []
    for repeat, (own, folds) in enumerate(zip(rows.scores, rows.folds, strict=True)):
        for fold in np.unique(folds).tolist():
            here = folds == fold
            labels, groups = rows.labels[here], rows.groups[here]
            about = {
                "repeat": repeat,
                "fold": fold,
                "n": int(here.sum()),
                "n_groups": len(np.unique(groups)),
                "n_made_up": int(labels.sum()),
            }
            figures: dict[str, float | None] = dict.fromkeys(_OF_FOLD)
            if 0 < labels.sum() < len(labels):
                values = all_metrics(scored(own[here], labels, groups), seed, n_resamples=1)
                figures = {name: values[name].value for name in _OF_FOLD}
            found.append({**about, **figures})
    return found


def _texts(run: Run) -> pl.DataFrame:
    records = {record.id: record for record in read_answer_records(run)}
    rows = [records[name] for name in readable_answers(run)["id"]]
    return pl.DataFrame(
        {
            "id": [one.id for one in rows],
            "group_id": [one.group_id for one in rows],
            "dataset": [one.dataset for one in rows],
            "prompt": [one.prompt for one in rows],
            "completion": [one.completion for one in rows],
            "label": [one.label for one in rows],
        }
    )


def _write_classifications(texts: pl.DataFrame, rows: Scored, path: Path) -> Path:
    """`fold` is that of the first repeat; every row was tested and never trained on, so `split` is
    `test` for all.
    """
    score = rows.scores.mean(axis=0)
    frame = texts.select("id", pl.col("group_id").alias("group"), "dataset", "label").with_columns(
        pl.Series("score", score),
        pl.Series("pred", (score >= THRESHOLD).astype(np.int8)),
        pl.Series("fold", rows.folds[0]),
        pl.lit("test").alias("split"),
    )
    write_csv(path, frame)
    return path
