"""`tracking_results.json` and `tracking_summary.json`: what the tracks of each text are like.

    {"sample_id", "question", "is_factual", "stats": {...},
     "metrics": {the 26 of the plan, and ours},
     "metrics_at_draw": {the same where the answer is drawn}}

`metrics` and `stats` are means over the answer's tokens: the plan had one number for the last
token, or for the largest activations of all of them.
"""

from pathlib import Path
from typing import Any

import polars as pl

from fluoroscope.runs.run import Run
from fluoroscope.steps.subject import sae_choices
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.metrics.describe import METRICS
from fluoroscope.studies.hallucination.seed_files.writing import (
    TRACKING_RESULTS,
    TRACKING_SUMMARY,
    model_name,
    plain,
    write_lines,
    write_plain,
)
from fluoroscope.studies.hallucination.steps.answers import read_answer_records
from fluoroscope.studies.hallucination.steps.features import readable_answers
from fluoroscope.studies.hallucination.steps.read import READ, UNREAD
from fluoroscope.studies.hallucination.steps.track import METRICS_FILE, TRACK


def write_tracking_results(run: Run, config: HallucinationConfig, out: Path) -> list[Path]:
    samples = tracking_results(run)
    return [
        write_lines(out / TRACKING_RESULTS, samples),
        write_plain(out / TRACKING_SUMMARY, _summary(run, config)),
    ]


def tracking_results(run: Run) -> list[dict[str, Any]]:  # Any: JSON values.
    found = pl.read_parquet(run.step_folder(TRACK) / METRICS_FILE)
    names = list(METRICS)
    order = readable_answers(run).select("id", "label")
    means = found.filter(pl.col("position") >= 0).group_by("id").agg(pl.col(names).mean())
    drawn = found.filter(pl.col("position") == -1).select("id", *names)
    of_answer, at_draw = (
        order.join(part, on="id", how="left", maintain_order="left").select(names).to_dicts()
        for part in (means, drawn)
    )
    prompts = {record.id: record.prompt for record in read_answer_records(run)}
    return [
        {
            "sample_id": name,
            "question": prompts[name],
            "is_factual": label == 0,
            "stats": _stats(mine),
            "metrics": plain(mine),
            "metrics_at_draw": plain(drawn_here),
        }
        for (name, label), mine, drawn_here in zip(
            order.iter_rows(), of_answer, at_draw, strict=True
        )
    ]


def _stats(metrics: dict[str, float | None]) -> dict[str, float | None]:
    """The plan's; every track was born once, and has died or is alive in the last layer."""
    births, deaths = metrics["total_births"], metrics["total_deaths"]
    alive = None if births is None or deaths is None else births - deaths
    return {
        "total_births": births,
        "total_deaths": deaths,
        "total_tracks": births,
        "alive_tracks": alive,
        "dead_tracks": deaths,
        "max_concurrent": metrics["max_concurrent_tracks"],
        "survival_rate": metrics["survival_rate"],
    }


def _summary(run: Run, config: HallucinationConfig) -> dict[str, Any]:  # Any: JSON values.
    labels = readable_answers(run)["label"]
    return {
        "model": model_name(config),
        "total_samples": len(labels),
        "factual_samples": int((labels == 0).sum()),
        "hallucinated_samples": int((labels == 1).sum()),
        "unread_samples": len(pl.read_parquet(run.step_folder(READ) / UNREAD)),
        "config": config.tracking.model_dump(mode="json"),
        "layers": [str(point) for point in config.points],
        "saes": [sae.provenance() for sae in sae_choices(run, config)],
        "includes_recon_error": False,
    }
