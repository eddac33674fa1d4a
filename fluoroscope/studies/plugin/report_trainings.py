"""What the report says of the trainings: their curves, and where each ended."""

import polars as pl

from fluoroscope.plots.chart import Chart, Line, Mark
from fluoroscope.runs.report import Report
from fluoroscope.studies.plugin.report_findings import Findings, SetFindings, label_of
from fluoroscope.studies.plugin.steps.texts import set_key


def add_curves(report: Report, found: Findings) -> None:
    report.section("Trainings")
    by, choose_by = ["dataset", "arm", "layer", "seed"], found.config.training.choose_by
    ends = found.curves.group_by(by, maintain_order=True).agg(
        epochs=pl.len(),
        best_validation=pl.col(f"validation_{choose_by}").max()
        if choose_by != "loss"
        else pl.col("validation_loss").min(),
        is_stopped_early=pl.col("is_stopped_early").any(),
    )
    table = _same_kinds(found.trainings, by).join(
        _same_kinds(ends, by), on=by, nulls_equal=True, maintain_order="left"
    )
    n_early = int(table["is_stopped_early"].sum())
    report.text(
        f"{len(table)} trainings of at most {found.config.epochs} epochs; {n_early} ended before, "
        f"as the validation side was no better for {found.config.training.patience} epochs. "
        f"Weights are those of the epoch that is best there by {choose_by}."
        if n_early
        else f"{len(table)} trainings of {found.config.epochs} epochs, none of which ended early. "
        f"Weights are those of the epoch that is best on the validation side by {choose_by}."
    )
    for one in found.sets:
        for what in ("loss", "accuracy"):
            report.figure(
                f"curves_{what}.{file_name(one.name)}",
                _curves(found, one, what),
                f"{one.name}: {what} by epoch, a colour a seed; dashed on the training side (with "
                "dropout and label smoothing, over the epoch), solid on the validation side. A "
                "line that ends early is a training that did.",
            )
    report.table("trainings", table, "Where each training ended, and its best epoch.")


def _curves(found: Findings, one: SetFindings, what: str) -> Chart:
    panels: dict[str, list[Mark]] = {}
    for arm in found.named_arms(one):
        is_its = (
            (pl.col("dataset") == one.name)
            & (pl.col("arm") == arm.name)
            & pl.col("layer").eq_missing(pl.lit(arm.layer))
        )
        own, marks = found.curves.filter(is_its), list[Mark]()
        for seed in found.config.all_seeds:
            rows = own.filter(pl.col("seed") == seed)
            for side in ("train", "validation"):
                style = "dashed" if side == "train" else "solid"
                y = rows[f"{side}_{what}"]
                marks.append(Line(f"seed {seed}", rows["epoch"], y, style=style, markers=True))
        panels[label_of(arm)] = marks
    return Chart.grid(panels, x="epoch", y=what)


def _same_kinds(frame: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    numbers = [name for name in by if name in ("layer", "seed")]
    return frame.with_columns(pl.col(numbers).cast(pl.Int64))


def file_name(name: str) -> str:
    """A data set's name within that of a table or figure."""
    return "".join(c if c.isalnum() or c in "_-" else "_" for c in set_key(name)) or "set"
