"""The report of a hallucination study: does tracking tell anything, and what do simpler things?"""

import polars as pl

from fluoroscope.runs.report import Report
from fluoroscope.runs.run import DONE, Run
from fluoroscope.steps.evaluate_saes import QUALITY
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.methods import COMBINED
from fluoroscope.studies.hallucination.report_answers import add_answers, add_pair
from fluoroscope.studies.hallucination.report_causes import add_causes
from fluoroscope.studies.hallucination.report_detection import (
    add_calibration,
    add_errors,
    add_kinds,
    add_methods,
    add_verdict,
    evaluated,
)
from fluoroscope.studies.hallucination.report_online import add_online
from fluoroscope.studies.hallucination.report_saes import add_saes
from fluoroscope.studies.hallucination.report_trackers import add_trackers
from fluoroscope.studies.hallucination.steps.answers import ANSWERS, LEFT_OUT, read_answer_records
from fluoroscope.studies.hallucination.steps.causes import CAUSES
from fluoroscope.studies.hallucination.steps.evaluate import EVALUATE, METHODS
from fluoroscope.studies.hallucination.steps.online import ONLINE
from fluoroscope.studies.hallucination.steps.read import READ, UNREAD
from fluoroscope.studies.hallucination.steps.validate_tracker import VALIDATE


def write_report(run: Run, config: HallucinationConfig) -> None:
    """Of the steps that are done; a part of a study is told as far as it goes."""
    report = Report(
        f"Does {config.model.name.rstrip('/').rpartition('/')[2]} make it up?",
        f"{config.data.name}, {config.data.answers} answers; {config.tracking.tracker} over "
        f"{len(config.points)} layers",
        facts=_facts(run),
    )
    if _is_done(run, EVALUATE):
        add_verdict(report, run)
        add_methods(report, run, config)
        add_errors(report, run, config)
        add_kinds(report, run, config)
        add_calibration(report, run)
        add_answers(report, run, config)
        add_pair(report, run, config)
    if _is_done(run, ONLINE):
        add_online(report, run)
    if _is_done(run, CAUSES):
        add_causes(report, run, config)
    if config.train is not None and _is_done(run, QUALITY):
        add_saes(report, run, config.train)
    if _is_done(run, VALIDATE):
        add_trackers(report, run)
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
        methods = evaluated(run, METHODS).filter(pl.col("method") == COMBINED)
        facts["AUROC"] = f"{methods['auroc'][0]:.3f}"
    return facts


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
