"""What the report says of settings that were tried, of fine-tuning, and of teaching again."""

import numpy as np
import polars as pl

from fluoroscope.plots.chart import Axis, Chart, Line, Mark, Reference, Scatter
from fluoroscope.runs.interval_text import without_nan
from fluoroscope.runs.report import Report
from fluoroscope.studies.unlearning.judging import EVERY_CATEGORY
from fluoroscope.studies.unlearning.plans import KINDS, UNTREATED_NAME
from fluoroscope.studies.unlearning.relearning import NOT_TAUGHT
from fluoroscope.studies.unlearning.report_findings import Findings


def add_relearning(report: Report, found: Findings) -> None:
    if found.curves is None:
        return
    report.section("Teaching it again")
    spec = found.config.relearn
    report.text(
        f"Each is fine-tuned on {spec.share:.0%} of what was forgotten, clamping left on, for "
        f"{spec.training.n_iterations} steps at rate {spec.training.learning_rate:g}. What was "
        "only hidden comes back fast, also of what is **not taught again**. A clamp that stays on "
        "holds as long as its detector does; taking it off gives everything back at once, as the "
        "weights have forgotten nothing."
    )
    if not found.has_samples:
        marks: list[Mark] = [
            Line(name, own["iteration"], own["perplexity"], own["perplexity_low"],
                 own["perplexity_high"], markers=True)
            for name, own in _by_plan(found.curves)
        ]  # fmt: skip
        chart = Chart.single(*marks, x="step", y=Axis("perplexity of held-out texts", log=True))
        report.figure("relearning", chart, "Bands are 95 % intervals over documents.")
        report.table("relearning_steps", without_nan(found.curves))
        return
    curves = found.curves.filter(pl.col("category") == EVERY_CATEGORY)
    panels: dict[str, list[Mark]] = {}
    for of in curves["of"].unique(maintain_order=True):
        panels[str(of)] = [
            Line(name, own["iteration"], own["accuracy"], markers=True)
            for name, own in _by_plan(curves.filter(pl.col("of") == of))
        ]
    by_chance = found.sets["samples"]["forget"]["chance"]
    y = Axis("accuracy", limits=(0, 1.05))
    lines = [Reference(by_chance, "chance")]
    report.figure(
        "relearning",
        Chart.grid(panels, "step", y, lines),
        f"Accuracy against steps of teaching; {NOT_TAUGHT} are people whose facts were left out.",
    )
    report.table(
        "relearning_steps",
        without_nan(curves.drop("category", "side")),
        "With intervals over people, where there are enough of them.",
        {"accuracy": ".3f", "accuracy_low": ".3f", "accuracy_high": ".3f", "chance": ".3f"},
    )


def add_search(report: Report, found: Findings) -> None:
    report.section("What was tried")
    margin = found.config.clamp.margin
    report.text(
        f"Settings are those that forget most and lose at most {margin:g} of what is to be kept "
        "(accuracy, or the rise of perplexity), on what was learnt from; of equal ones the gentler "
        "one. `left` is accuracy above chance, or the inverse of the perplexity ratio."
    )
    tried = found.tried
    marks: list[Mark] = []
    for kind in KINDS:
        own = tried.filter(pl.col("kind") == kind)
        labels = [
            f"{r['selection']}, {r['n']} at {r['hook_points']} to -{r['strength']:g}"
            for r in own.iter_rows(named=True)
        ]
        marks.append(Scatter(kind, np.clip(own["lost"].to_numpy(), None, 2), own["left"], labels))
    chart = Chart.single(
        *marks,
        x="lost of what is to be kept",
        y="left of what is to be forgotten",
        references=[Reference(margin, "margin", axis="x")],
    )
    report.figure("tried", chart, "A point a setting, on the validation side.")
    shares = ("forget", "retain", "left", "lost", "forget_flagged", "retain_flagged")
    formats = {n: ".3f" for n in shares if tried.schema[n].is_float()}
    report.table("settings", without_nan(_typed(tried)), "All that was tried.", formats)
    _add_fine_tuning(report, found)


def _add_fine_tuning(report: Report, found: Findings) -> None:
    if not found.looks:
        return
    report.subsection("Fine-tuning")
    report.text(
        "Every look at the validation side; the weights of the look with the least shortfall (left "
        "+ lost) are kept, and training ends when several looks are no better. It learns from the "
        "texts that it looks at, so what it does to other wordings is for the table above to say."
    )
    panels: dict[str, list[Mark]] = {}
    for name, looks in found.looks.items():
        steps = [look["iteration"] for look in looks]
        panels[name] = [
            Line(
                "left of what is to be forgotten",
                steps,
                [one["left"] for one in looks],
                markers=True,
            ),
            Line("lost of what is to be kept", steps, [one["lost"] for one in looks], markers=True),
        ]
    chart = Chart.grid(panels, "step", "", [Reference(0.0, "")])
    report.figure("fine_tuning", chart, "Forgotten and kept is both at 0.")
    rows = [{"fine-tuning": name, **look} for name, looks in found.looks.items() for look in looks]
    report.table("looks", without_nan(_typed(pl.DataFrame(rows, infer_schema_length=None))))
    unfinished = [
        name
        for name, looks in found.looks.items()
        if looks[-1]["is_kept"] and looks[-1]["shortfall"] > found.config.clamp.margin
    ]
    if unfinished:
        report.text(
            f"The last look was the best one of {', '.join(unfinished)}: **more steps may forget "
            "more**, and the comparison is not fair to it."
        )


def _by_plan(curves: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    groups = curves.sort("iteration").group_by("plan", maintain_order=True)
    found = {str(key[0]): own for key, own in groups}
    order = [name for name in curves["plan"].unique(maintain_order=True) if name != UNTREATED_NAME]
    return [(name, found[name]) for name in order]


def _typed(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col(pl.Null).cast(pl.Float64))
