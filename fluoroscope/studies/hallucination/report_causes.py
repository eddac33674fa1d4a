"""The part of a hallucination report about causes: does the answer hang on its tracks?"""

import polars as pl

from fluoroscope.core.storage import read_json
from fluoroscope.plots.chart import Axis, Bars, Chart, Panel, Reference
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.studies.hallucination.causes import CONTROLS, EDITS, ITSELF, ROLES
from fluoroscope.studies.hallucination.causes_statistics import ANSWERS, CHANGE
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.steps.causes import (
    CAUSES,
    COMPARISONS,
    EFFECTS,
    LEFT_OUT,
    MEANS,
    VERDICT,
)


def add_causes(report: Report, run: Run, config: HallucinationConfig) -> None:
    """Of a run whose step `causes` is done."""
    folder = run.step_folder(CAUSES)
    found = {name: pl.read_parquet(folder / name) for name in (EFFECTS, MEANS, COMPARISONS)}
    sources = _sources(found[EFFECTS])
    report.section("Do tracks decide the answer?")
    report.text(f"**{read_json(folder / VERDICT)['sentence']}** {_about(config, found, sources)}")
    if len(sources):
        report.figure(
            "causes",
            _chart(found[MEANS]),
            "Mean change of the gap, with 95 % intervals over groups; controls are averaged within "
            "an answer.",
        )
        columns = pl.col(pl.Float64).fill_nan(None)
        report.table(
            "causes_compared",
            found[COMPARISONS].with_columns(columns),
            "Of each track minus its controls in the same answer, in nats; p by sign flips, which "
            "takes differences to be symmetric; with skewed ones it is too small (7 to 14 of 100 "
            f"at 5, simulated). `p_holm` is after Holm over all {len(found[COMPARISONS])}.",
        )
        report.table("causes_means", found[MEANS].with_columns(columns), "What is compared.")
        report.table("rivals", sources, "With whom answers compete.")
    left_out = pl.read_parquet(folder / LEFT_OUT)
    if len(left_out):
        reasons = left_out.group_by("reason").len("answers").sort("reason")
        report.table("causes_left_out", reasons, "Answers whose tracks could not be edited.")


def _about(
    config: HallucinationConfig, found: dict[str, pl.DataFrame], sources: pl.DataFrame
) -> str:
    boost = f"{config.causes.boost:g}"
    n = int(sources["answers"].sum()) if len(sources) else 0
    return (
        f"In {n} answers, each of another group, all latents of a track were set to 0 (ablate) or "
        f"to {boost} times what they were (boost), at the last position of the prompt, where the "
        "answer is drawn. The **winning** track is the strongest of those that are there in the "
        "last layer of the SAEs, by existence x strength in that layer, and the **losing** the "
        "next; what is measured has no part in the choice. The gap is log p(answer) - log p(rival) "
        "at the first token at which the two differ, exact and in nats. If both tracks compete for "
        "the answer, ablating the winning or boosting the losing lowers it, and boosting the "
        "winning or ablating the losing raises it. **Other tracks** are those of the same position "
        f"whose layers are most nearly the same (on average {_points(found, CONTROLS[0])} points, "
        f"beside {_points(found, ITSELF)}); as the winning track is stronger than they are, its "
        "edits are larger. **Elsewhere** is as large a change in the same layers, along latents "
        "that are active at other tokens and not here. `size` is how far the gap moves, in "
        "whichever direction."
    )


def _points(found: dict[str, pl.DataFrame], kind: str) -> str:
    part = found[EFFECTS].filter(kind=kind)["n_points"]
    return f"{part.mean():.1f}" if len(part) else "0"


def _sources(effects: pl.DataFrame) -> pl.DataFrame:
    names = {label: name for name, label in ANSWERS.items()}
    answers = effects.unique("id").with_columns(
        pl.col("label").replace_strict(names, return_dtype=pl.String).alias("label")
    )
    return (
        answers.group_by("label", "rival_source")
        .agg(
            pl.len().alias("answers"),
            (pl.col("n_shared") > 0).sum().alias("begin_alike"),
        )
        .sort("label", "rival_source")
    )


def _chart(means: pl.DataFrame) -> Chart:
    """A panel for each kind of answers and edit."""
    panels = []
    for answers in ANSWERS:
        for edit in EDITS:
            part = means.filter(answers=answers, edit=edit, measure=CHANGE)
            bars = [
                Bars(kind, list(ROLES), mine["mean"], mine["low"], mine["high"])
                for kind in (ITSELF, *CONTROLS)
                for mine in [part.filter(kind=kind)]
            ]
            panels.append(Panel(bars, f"{answers}, {edit}", [Reference(0.0)]))
    return Chart(panels, y=Axis("change of the gap (nats)"), columns=2)
