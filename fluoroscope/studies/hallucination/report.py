"""The report of a hallucination study: does tracking tell anything, and what do simpler things?"""

from collections.abc import Sequence

import polars as pl

from fluoroscope.core.storage import read_json
from fluoroscope.plots.chart import Axis, Bars, Chart, Line, Panel, Reference
from fluoroscope.runs.report import Gate, Report
from fluoroscope.runs.run import DONE, Run
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.steps.answers import ANSWERS, LEFT_OUT, read_answer_records
from fluoroscope.studies.hallucination.steps.evaluate import (
    AGAINST,
    CALIBRATION,
    COVERAGE,
    EVALUATE,
    HEADLINE,
    METHODS,
    NOISE,
    RELIABILITY,
)
from fluoroscope.studies.hallucination.steps.features import COMBINED
from fluoroscope.studies.hallucination.steps.read import READ, UNREAD
from fluoroscope.studies.hallucination.steps.validate_tracker import TABLE, VALIDATE

FIGURES = ("auroc", "auprc", "accuracy", "precision", "recall", "f1", "brier", "pair_accuracy")


def write_report(run: Run, config: HallucinationConfig) -> None:
    """Of the steps that are done; a part of a study is told as far as it goes."""
    report = Report(
        f"Does {config.model.name.rstrip('/').rpartition('/')[2]} make it up?",
        f"{config.data.name}, {config.data.answers} answers; {config.tracking.tracker} over "
        f"{len(config.points)} layers",
        facts=_facts(run),
    )
    if _is_done(run, EVALUATE):
        _add_verdict(report, run)
        _add_methods(report, run)
        _add_calibration(report, run)
    if _is_done(run, VALIDATE):
        _add_trackers(report, run)
    if _is_done(run, ANSWERS):
        _add_data(report, run)
    report.write(run.folder)


def _is_done(run: Run, step: str) -> bool:
    return (run.folder / step / DONE).exists()


def _facts(run: Run) -> dict[str, str | float | int]:
    if not _is_done(run, ANSWERS):
        return {}
    records = read_answer_records(run)
    made_up = sum(record.label for record in records) / len(records)
    facts: dict[str, str | float | int] = {
        "answers": len(records),
        "groups": len({record.group_id for record in records}),
        "made up": f"{made_up:.0%}",
    }
    if _is_done(run, EVALUATE):
        methods = _evaluated(run, METHODS).filter(pl.col("method") == COMBINED)
        facts["AUROC"] = f"{methods['auroc'][0]:.3f}"
    return facts


def _evaluated(run: Run, file: str) -> pl.DataFrame:
    return pl.read_parquet(run.shard_folder(EVALUATE, "all") / file)


def _add_verdict(report: Report, run: Run) -> None:
    folder = run.shard_folder(EVALUATE, "all")
    said, noise = read_json(folder / HEADLINE), read_json(folder / NOISE)
    methods = _evaluated(run, METHODS)
    best = methods.sort("auroc", descending=True, maintain_order=True)["method"][0]
    report.section("Does tracking tell anything?")
    report.text(
        f"**{said['sentence']}** For that p the columns of tracking were exchanged between groups "
        f"{said['n_exchanges']} times. The highest AUROC of all "
        f"methods is that of *{best}*. Every score is of an answer that its detector was not "
        "trained on, nor on any other of its group; intervals are over groups."
    )
    found = methods.filter(pl.col("method") == COMBINED)
    value, low, high = noise["auroc"]
    gates = [
        Gate("AUROC of noise", value, f"interval {low:.3f} to {high:.3f} holds 0.5", True),
        Gate(
            "AUROC", found["auroc"][0], "above 0.90, as the seed expects", found["auroc"][0] > 0.9
        ),
        Gate("F1", found["f1"][0], "above 0.85, as the seed expects", found["f1"][0] > 0.85),
    ]
    report.gates(gates, caption="Noise must be at chance; the seed's figures of the whole.")


def _add_methods(report: Report, run: Run) -> None:
    methods = _evaluated(run, METHODS)
    report.section("Methods")
    report.text(
        "From what an answer looks like, over what the model's probabilities say, to what is read "
        "inside it. **style** counts characters, words and hedges; **uncertainty** are "
        "probabilities and entropies of the answer's tokens; **agreement of samples** are "
        "EigenScore, semantic entropy and similarity of further answers; **probe** reads the "
        "residual stream at the answer's last token; **latents** are the largest activations of "
        "SAE latents, without tracking; **baseline** is style, uncertainty and agreement together."
    )
    bars = Bars(
        "AUROC", methods["method"].to_list(), methods["auroc"], methods["auroc_low"],
        methods["auroc_high"],
    )  # fmt: skip
    chart = Chart(
        [Panel([bars], references=[Reference(0.5, "chance")])], y=Axis("AUROC", limits=(0, 1))
    )
    report.figure("auroc", chart, "95 % intervals over groups.")
    columns = [
        name
        for figure in FIGURES
        for name in (figure, f"{figure}_low", f"{figure}_high")
        if figure in ("auroc",) or name == figure
    ]
    report.table(
        "methods", _shown(methods.select("method", *columns)), "Of answers that are made up."
    )
    report.table(
        "against",
        _shown(_evaluated(run, AGAINST)),
        "Baseline + tracking minus each method, paired over the same groups; p after Holm.",
    )


def _add_calibration(report: Report, run: Run) -> None:
    error = read_json(run.shard_folder(EVALUATE, "all") / CALIBRATION)
    bins, coverage = _evaluated(run, RELIABILITY), _evaluated(run, COVERAGE)
    report.section("How far scores can be believed")
    report.text(
        f"Expected calibration error {error['value']:.3f}; scores that say exactly what is so "
        f"would have {error['if_calibrated']:.3f} (95 % below {error['if_calibrated_95']:.3f})."
    )
    lines: Sequence[Line] = [
        Line("made up", bins["score"], bins["share"], bins["low"], bins["high"], markers=True),
        Line("as said", [0, 1], [0, 1], style="dashed"),
    ]
    chart = Chart.single(*lines, x=Axis("score"), y=Axis("share made up", limits=(0, 1)))
    report.figure("reliability", chart, "Of baseline + tracking, in bins of equal mass.")
    curve = Line("risk", coverage["coverage"], coverage["risk"])
    chart = Chart.single(curve, x=Axis("share of answers given"), y=Axis("share of them made up"))
    report.figure("risk_coverage", chart, "The answers least likely to be made up are given first.")


def _add_trackers(report: Report, run: Run) -> None:
    found = pl.read_parquet(run.step_folder(VALIDATE) / TABLE)
    report.section("Trackers on known tracks")
    report.text(
        "Scenes of planted features that turn a little from layer to layer, are missed, split and "
        "stand among clutter. GOSPA adds up what is missed, false and switched (less is better); "
        "`less_gospa` is how much less one has than the next in the list, on the same scenes. "
        "`optimum` sees all layers at once. Where an interval holds 0, the two are not told apart."
    )
    report.table("trackers", _shown(found), "95 % intervals over scenes.")


def _add_data(report: Report, run: Run) -> None:
    left_out = pl.read_parquet(run.step_folder(ANSWERS) / LEFT_OUT)
    report.section("What was judged")
    rows = [(r.category or "(none)", r.label_source, r.label) for r in read_answer_records(run)]
    frame = pl.DataFrame(rows, schema=["category", "label_source", "label"], orient="row")
    counts = frame.group_by("category", "label_source").agg(
        answers=pl.len(), made_up=pl.col("label").sum()
    )
    report.table("answers", counts.sort("category", "label_source"), "Answers by kind.")
    reasons = left_out.group_by("reason").len("answers").sort("reason")
    if len(reasons):
        report.table("left_out", reasons, "What could not be used, and why.")
    if _is_done(run, READ):
        unread = pl.read_parquet(run.step_folder(READ) / UNREAD)
        if len(unread):
            report.table("unread", unread, "Answers that the model could not read.")


def _shown(frame: pl.DataFrame) -> pl.DataFrame:
    floats = [name for name, kind in frame.schema.items() if kind.is_float()]
    return frame.with_columns(pl.col(floats).fill_nan(None))
