"""The report of a sweep: what edits did to the texts, beside what the controls did."""

import numpy as np
import polars as pl

from fluoroscope.core.intervals import mean_interval
from fluoroscope.core.storage import write_parquet
from fluoroscope.features.effects import baseline_shares, effects
from fluoroscope.plots.chart import Chart, Line, Reference
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.steps.sweep import read_cells
from fluoroscope.studies.patch.config import PatchConfig

_SHOWN_EDITS, _SHOWN_TEXTS = 50, 6
_KINDS = ("set", "scale", "random latent", "reconstruction")


def write_report(run: Run, config: PatchConfig) -> None:
    cells = read_cells(run)
    found = effects(cells, config.outcomes)
    sweep = config.sweep
    report = Report(
        f"Patches of {config.model.name.rstrip('/').rpartition('/')[2]}",
        f"{sum(len(sae.latents) for sae in sweep.saes):,} latents of "
        f"{', '.join(sae.hook_point for sae in sweep.saes)}, edited at {sweep.positions}",
        facts={
            "texts": len(cells),
            "cells": cells.select("prompt", "cell").n_unique(),
            "prompts": len(sweep.prompts),
            "trials a cell": sweep.texts.trials,
        },
    )
    _add_kinds(report, found)
    _add_doses(report, found, config)
    _add_edits(report, found)
    if config.outcomes:
        report.section("Without edits")
        shares = baseline_shares(cells, config.outcomes)
        report.table("baseline", shares, "Shares of outcomes in the texts without edits.")
    _add_texts(report, cells, found)
    # All of them are too many for a page, and what a program reads.
    write_parquet(run.folder / "tables" / "effects.parquet", found)
    report.write(run.folder)


def _add_kinds(report: Report, found: pl.DataFrame) -> None:
    report.section("Edits and controls")
    report.text(
        "Every text is set beside the one that the same prompt and the same random numbers gave "
        "without an edit; **changed** is the share that differ from it in any letter. "
        "**reconstruction** puts the SAE's reconstruction in the place of the activation and edits "
        "nothing; **random latent** adds exactly as much as the edit of a latent does, along the "
        "decoder of another that is active as often. An effect of latents is what goes beyond "
        "these. Intervals (95 %) are over edits."
    )
    rows = []
    for (kind, condition, outcome), part in found.group_by(
        "kind", "condition", "outcome", maintain_order=True
    ):
        size = part["difference"].abs().to_numpy()
        # Sizes of differences of shares are neither below 0 nor above 1.
        mean, *ends = np.clip(mean_interval(size), 0, 1)
        rows.append((kind, condition, outcome, part.height, mean, *ends))
    schema = ["kind", "condition", "outcome", "edits", "mean size", "low", "high"]
    frame = (
        pl.DataFrame(rows, schema=schema, orient="row")
        .fill_nan(None)
        .sort(
            pl.col("outcome"),
            pl.col("kind").replace_strict({k: i for i, k in enumerate(_KINDS)}),
            maintain_order=True,
        )
    )
    report.table("kinds", frame, "The mean size of the difference from the baseline.")


def _add_doses(report: Report, found: pl.DataFrame, config: PatchConfig) -> None:
    charts: dict[str, Chart] = {}
    for name, kind, x in (("doses", "set", "set to"), ("factors", "scale", "multiplied with")):
        # Values that each latent has of its own are no common axis.
        shared = [c.name for c in config.sweep.conditions if c.kind == kind and c.value is not None]
        if len(shared) > 1:
            charts[name] = _dose_chart(found.filter(pl.col("condition").is_in(shared)), x)
    if not charts:
        return
    report.section("Dose and response")
    for name, chart in charts.items():
        report.figure(name, chart, "The mean over latents; bands hold the middle 80 % of latents.")


def _dose_chart(found: pl.DataFrame, x: str) -> Chart:
    panels: dict[str, list[Line]] = {}
    for (outcome, kind), part in found.group_by("outcome", "kind", maintain_order=True):
        panels.setdefault(str(outcome), []).append(_dose_line(str(kind), part))
    nothing = [Reference(0.0)]
    return Chart.grid(panels, x=x, y="difference from the baseline", references=nothing)


def _dose_line(kind: str, part: pl.DataFrame) -> Line:
    doses = sorted(part["value"].unique().to_list())
    groups = [part.filter(pl.col("value") == dose)["difference"].to_numpy() for dose in doses]
    return Line(
        kind,
        doses,
        [float(group.mean()) for group in groups],
        [float(np.quantile(group, 0.1)) for group in groups],
        [float(np.quantile(group, 0.9)) for group in groups],
        markers=True,
    )


def _add_edits(report: Report, found: pl.DataFrame) -> None:
    report.section("Edits")
    of_latents = found.filter(pl.col("kind").is_in(["set", "scale"]))
    n_tests = int(found["q"].is_not_nan().sum())
    report.text(
        f"The {_SHOWN_EDITS} edits with the largest differences of each outcome, the strongest "
        "picked from many: their size is too large by that choice. "
        + (
            "p is of the exact McNemar test over the texts of these prompts, q after "
            f"Benjamini-Hochberg over all {n_tests:,} tests of edits of latents. "
            if n_tests
            else "No outcome was named (`outcomes.NAME=REGEX`), so nothing is tested. "
        )
        + (
            "Intervals are over prompts: effects hold for prompts like these."
            if found["unit"][0] == "prompt"
            else "Intervals are over texts: effects hold for the prompts given; ten or more would "
            "tell of others."
        )
    )
    strongest = pl.concat(
        [
            of_latents.filter(pl.col("outcome") == outcome)
            .sort(pl.col("difference").abs(), descending=True, maintain_order=True)
            .head(_SHOWN_EDITS)
            for outcome in found["outcome"].unique(maintain_order=True)
        ]
    )
    shown = strongest.drop("cell").fill_nan(None)
    report.table("strongest", shown, "The strongest edits.", {"p": ".2g", "q": ".2g"})


def _add_texts(report: Report, cells: pl.DataFrame, found: pl.DataFrame) -> None:
    report.section("Texts")
    outcome = found["outcome"][0]
    order = (
        found.filter((pl.col("outcome") == outcome) & pl.col("kind").is_in(["set", "scale"]))
        .sort(pl.col("difference").abs(), descending=True, maintain_order=True)
        .head(_SHOWN_TEXTS)["cell"]
        .to_list()
    )
    without = cells.filter(pl.col("cell") == 0).select("prompt", "trial", "text")
    rows = []
    for cell in order:
        both = cells.filter(pl.col("cell") == cell).join(
            without, on=["prompt", "trial"], suffix=" without", maintain_order="left"
        )
        differing = both.filter(pl.col("text") != pl.col("text without"))
        if differing.height == 0:
            continue
        first = differing.row(0, named=True)
        edit = f"{first['hook_point']} latent {first['latent']}, {first['condition']}"
        rows.append((edit, first["prompt"], first["trial"], first["text without"], first["text"]))
    report.text(
        "The first text that each of the strongest edits changed, beside the one without it. All "
        "texts are in `sweep/cells.parquet`."
    )
    schema = ["edit", "prompt", "trial", "without", "with"]
    report.table("texts", pl.DataFrame(rows, schema=schema, orient="row"))
