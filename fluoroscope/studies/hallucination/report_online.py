"""The part of the report about the running score: how early does it know?"""

import polars as pl

from fluoroscope.core.storage import read_json
from fluoroscope.plots.chart import Axis, Chart, Line, Panel, Reference
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.studies.hallucination.steps.online import (
    JUDGED,
    ONLINE,
    early_sentence,
    read_early,
)

BOTH, ALONE = "uncertainty + tracks", "uncertainty"


def add_online(report: Report, run: Run) -> None:
    """AUROC before the first token, after each token, and after shares of the answer."""
    early, judged = read_early(run), read_json(run.step_folder(ONLINE) / JUDGED)
    error = judged["last"]
    report.section("How early it is known")
    report.text(
        f"**{early_sentence(early)}** A score is given after every token, from what is known by "
        "then: the uncertainty of the tokens so far, and the tracks at the prompt's end and at "
        "these tokens; samples and style are not among it. Folds are those of the other methods. "
        "Expected calibration error after the last token "
        f"{error['value']:.3f} (scores that say what is so would have {error['if_calibrated']:.3f},"
        f" 95 % below {error['if_calibrated_95']:.3f}). `fluoro hallucination watch` shows the "
        "score while the model writes."
    )
    if early.is_empty():
        return
    by_tokens = early.filter(pl.col("by") == "tokens")
    report.figure(
        "online_tokens",
        _chart(by_tokens, "tokens of the answer that are known"),
        f"Of the answers that are that long: {by_tokens['answers'][0]} before the first token, "
        f"{by_tokens['answers'][-1]} after {by_tokens['at'][-1]:.0f}. Those that are left may be "
        "easier or harder. Bands: 95 % over groups, each moment by itself.",
    )
    report.figure(
        "online_shares",
        _chart(early.filter(pl.col("by") == "share"), "share of the answer that is known"),
        "Of all answers at every share; how long an answer will be is known afterwards only.",
    )
    report.table(
        "online",
        early,
        "`difference`: what tracks add to uncertainty, paired, with its interval. Moments with "
        "fewer than 10 groups of either label are left out.",
    )


def _chart(moments: pl.DataFrame, x: str) -> Chart:
    lines = [
        Line(
            name,
            moments["at"],
            moments[column],
            moments[f"{column}_low"],
            moments[f"{column}_high"],
            markers=True,
        )
        for name, column in ((BOTH, "auroc"), (ALONE, "uncertainty"))
    ]
    panel = Panel(lines, references=[Reference(0.5, "chance")])
    return Chart([panel], Axis(x), Axis("AUROC", limits=(0, 1)))
