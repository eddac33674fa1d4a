"""The report of a sweep: what edits did to the texts, beside what the controls did."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from fluoroscope.core.intervals import mean_interval
from fluoroscope.core.storage import write_parquet
from fluoroscope.features.effects import CHANGED, baseline_shares, effects
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
    _add_edits(report, found, config)
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
        rows.append((kind, condition, outcome, part.height, *mean_interval(size)))
    schema = ["kind", "condition", "outcome", "edits", "mean effect", "low", "high"]
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
    # Values that each latent has of its own are no common axis.
    common = [one.name for one in config.sweep.conditions if one.value is not None]
    found = found.filter(pl.col("condition").is_in(common))
    panels: dict[str, list[Line]] = {}
    for outcome in found["outcome"].unique(maintain_order=True):
        part = found.filter(pl.col("outcome") == outcome)
        panels[outcome] = _dose_lines(part, ("set", "random latent"))
        # What latents are set to and what they are multiplied with are no common axis either.
        panels[f"{outcome}, multiplied"] = _dose_lines(part, ("scale",))
    panels = {name: lines for name, lines in panels.items() if lines}
    if not panels:
        return
    report.section("Dose and response")
    nothing = [Reference(0.0)]
    chart = Chart.grid(panels, x="value", y="difference from the baseline", references=nothing)
    report.figure("doses", chart, "The mean over latents; bands hold the middle 80 % of latents.")


def _dose_lines(found: pl.DataFrame, kinds: Sequence[str]) -> list[Line]:
    lines = [_dose_line(kind, found.filter(pl.col("kind") == kind)) for kind in kinds]
    return [line for line in lines if line is not None]


def _dose_line(kind: str, part: pl.DataFrame) -> Line | None:
    doses = sorted(part["value"].drop_nulls().unique().to_list())
    if len(doses) < 2:
        return None
    groups = [part.filter(pl.col("value") == dose)["difference"].to_numpy() for dose in doses]
    return Line(
        kind,
        doses,
        [float(group.mean()) for group in groups],
        [float(np.quantile(group, 0.1)) for group in groups],
        [float(np.quantile(group, 0.9)) for group in groups],
        markers=True,
    )


def _add_edits(report: Report, found: pl.DataFrame, config: PatchConfig) -> None:
    report.section("Edits")
    of_latents = found.filter(pl.col("kind").is_in(["set", "scale"]))
    n_tests = int(found["q"].is_not_nan().sum())
    report.text(
        f"The {_SHOWN_EDITS} edits with the largest differences of each outcome, the strongest "
        "picked from many: their size is too large by that choice. "
        + (
            f"q is p after Benjamini-Hochberg over all {n_tests:,} tests of edits of latents. "
            if n_tests
            else "No outcome was named (`outcomes.NAME=REGEX`), so nothing is tested. "
        )
        + f"Intervals are over {found['unit'][0] if found.height else 'text'}s: effects hold "
        + (
            "for prompts like these."
            if found.height and found["unit"][0] == "prompt"
            else f"for these {len(config.sweep.prompts)} prompts; give ten or more to tell others."
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
    report.table("strongest", strongest.drop("cell").fill_nan(None), "The strongest edits.")


def _add_texts(report: Report, cells: pl.DataFrame, found: pl.DataFrame) -> None:
    report.section("Texts")
    outcome = found["outcome"][0] if found.height else CHANGED
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
