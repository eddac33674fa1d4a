"""The report of a connection run: who answered best, first; then what that rests on."""

from collections.abc import Mapping

import polars as pl

from fluoroscope.core.sink import Sink
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.steps.wandb_runs import write_runs
from fluoroscope.studies.connection.config import ConnectionConfig
from fluoroscope.studies.connection.report_accuracy import add_accuracy, add_beside, add_depth
from fluoroscope.studies.connection.report_findings import Findings, load_findings
from fluoroscope.studies.connection.report_network import add_networks
from fluoroscope.studies.connection.report_trainings import add_memory, add_sizes, add_trainings
from fluoroscope.studies.connection.report_verdict import add_verdict
from fluoroscope.studies.connection.steps.train import TRAIN
from fluoroscope.studies.connection.wandb_log import logged_trainings


def write_report(run: Run, config: ConnectionConfig, sink: Sink) -> None:
    found = load_findings(run, config)
    names = ", ".join(one.name for one in found.sets)
    report = Report(
        "Does a slot network reason?",
        f"{names}; {config.seeds} training{'s' * (config.seeds > 1)} an arm",
        facts=_facts(found),
    )
    add_verdict(report, found)
    add_accuracy(report, found)
    add_beside(report, found)
    add_depth(report, found)
    add_networks(report, run, found)
    add_sizes(report, run, found)
    add_trainings(report, found)
    add_memory(report, run, found)
    _add_questions(report, found)
    report.write(run.folder)
    sink.message(f"Written: {run.folder / 'report.html'}")
    if config.wandb:
        write_runs(run, logged_trainings(run, config, [(TRAIN, found)]), sink)


def _facts(found: Findings) -> Mapping[str, str | float | int]:
    facts: dict[str, str | float | int] = {}
    for one in found.sets[:3]:
        facts[f"{one.name}, {one.main}"] = round(one.accuracy(one.main).value, 3)
    return facts


def _add_questions(report: Report, found: Findings) -> None:
    report.section("What was asked")
    rows, left_out = [], []
    for one in found.sets:
        about = one.about
        cut, unknown = about["cut"], about["unknown_tokens"]
        rows.append(
            {
                "data_set": one.name,
                "kind": about["kind"],
                **{f"n_{side}": n for side, n in about["sides"].items()},
                "vocabulary": about["vocab_size"],
                "longest_text": about["max_source"],
                "longest_answer": about["max_target"],
                "cut_texts": cut["test"]["source"],
                "cut_answers": cut["test"]["target"],
                "unknown_tokens": unknown["test"],
            }
        )
        left_out += [(one.name, why, n) for why, n in about["left_out"].items()]
        report.text(" ".join([f"**{one.name}**:", *about["notes"]]) if about["notes"] else "")
    report.table(
        "questions",
        pl.DataFrame(rows, infer_schema_length=None),
        "Questions by side. Texts that are too long are cut and stay; `cut_texts`, `cut_answers` "
        "and `unknown_tokens` are shares of the test side.",
    )
    if left_out:
        schema = ["data_set", "reason", "questions"]
        frame = pl.DataFrame(left_out, schema=schema, orient="row")
        report.table("left_out", frame, "What was not used, and why.")
