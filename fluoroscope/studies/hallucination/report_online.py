"""The part of the report about the running score: how early does it know?"""

import polars as pl

from fluoroscope.plots.chart import Axis, Chart, Line, Panel, Reference
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.studies.hallucination.steps.online import (
    early_sentence,
    read_early,
    read_judged,
)

BOTH, ALONE = "uncertainty + tracks", "uncertainty"


def add_online(report: Report, run: Run) -> None:
    """AUROC before the first token, after each token, and after the last."""
    early, judged = read_early(run), read_judged(run)
    error = judged["last"]
    report.section("How early it is known")
    report.text(
        f"**{early_sentence(judged)}** A score is given after every token, from what is known by "
        "then: the uncertainty of the tokens so far, and the tracks at the prompt's end and at "
        "these tokens; samples and style are not among it. Folds are those of the other methods. "
        "Expected calibration error after the last token "
        f"{error['value']:.3f} (scores that say what is so would have {error['if_calibrated']:.3f},"
        f" 95 % below {error['if_calibrated_95']:.3f}). `fluoro hallucination watch` shows the "
        "score while the model writes."
    )
    if early.is_empty():
        return
    report.figure(
        "online_tokens",
        _chart(early),
        f"Of the answers that are that long: {early['answers'][0]} before the first token, "
        f"{early['answers'][-1]} after {early['tokens'][-1]}. Those that are left may be "
        "easier or harder. Bands: 95 % over groups, each moment by itself.",
    )
    report.table(
        "online",
        early,
        "`difference`: what tracks add to uncertainty, paired, with its interval. Moments with "
        "fewer than 10 groups of either label are left out.",
    )


def _chart(moments: pl.DataFrame) -> Chart:
    lines = [
        Line(
            name,
            moments["tokens"],
            moments[column],
            moments[f"{column}_low"],
            moments[f"{column}_high"],
            markers=True,
        )
        for name, column in ((BOTH, "auroc"), (ALONE, "uncertainty"))
    ]
    panel = Panel(lines, references=[Reference(0.5, "chance")])
    return Chart([panel], Axis("tokens of the answer that are known"), Axis("AUROC", limits=(0, 1)))
