"""The report of a plug-in run: what the layer is worth, first; then what that rests on."""

from collections.abc import Mapping

import polars as pl

from fluoroscope.core.sink import Sink
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.steps.wandb_runs import write_runs
from fluoroscope.studies.plugin.config import PluginConfig
from fluoroscope.studies.plugin.form import BASE
from fluoroscope.studies.plugin.report_accuracy import add_accuracy, add_differences
from fluoroscope.studies.plugin.report_findings import Findings, load_findings
from fluoroscope.studies.plugin.report_layers import add_choice, add_read
from fluoroscope.studies.plugin.report_sweep import add_sweep
from fluoroscope.studies.plugin.report_trainings import add_curves
from fluoroscope.studies.plugin.report_verdict import add_verdict
from fluoroscope.studies.plugin.seed_layout import short_name, write_seed_layout
from fluoroscope.studies.plugin.wandb_log import logged_trainings


def write_report(run: Run, config: PluginConfig, sink: Sink) -> None:
    """Also the plan's own files and, where asked for, those of Weights & Biases."""
    found = load_findings(run, config)
    encoder = short_name(config.model.source)
    borrowed = f"A layer of {short_name(config.llm.source)} in {encoder}"
    report = Report(
        f"{encoder} alone" if config.main_form is None else borrowed,
        f"{', '.join(config.datasets)}; {config.seeds} training{'s' * (config.seeds > 1)} an arm",
        facts=_facts(found),
    )
    add_verdict(report, found)
    add_accuracy(report, found)
    add_differences(report, found)
    add_sweep(report, run, found)
    if config.chooses:
        add_choice(report, run, found)
    if config.reads_llm:
        add_read(report, run, found)
    add_curves(report, found)
    _add_data(report, found)
    report.write(run.folder)
    for folder in write_seed_layout(run, config):
        sink.message(f"Written: {folder}")
    if config.outputs.wandb:
        write_runs(run, logged_trainings(run, config, found), sink)


def _facts(found: Findings) -> Mapping[str, str | float | int]:
    facts: dict[str, str | float | int] = {}
    for one in found.sets[:2]:
        facts[f"{one.name}, accuracy"] = round(float(one.judged[one.main.key].right.mean()), 3)
        if one.layer is not None:
            facts[f"{one.name}, layer"] = one.layer
        for other in found.of_set(one.name):
            if other.arm.name == BASE:
                facts[f"{one.name}, over base"] = f"{other.interval.value:+.3f}"
    return facts


def _add_data(report: Report, found: Findings) -> None:
    report.section("What was learnt and judged")
    config, rows, left_out = found.config, [], []
    for one in found.sets:
        sides = one.about["sides"]
        for label in one.about["classes"]:
            counts = {f"n_{side}": by_class.get(label, 0) for side, by_class in sides.items()}
            rows.append({"data_set": one.name, "class": label, **counts})
        left_out += [(one.name, why, n) for why, n in one.about["left_out"].items()]
        origins = ", ".join(f"{side}: {of}" for side, of in one.about["origins"].items())
        report.text(
            f"**{one.name}** ({one.about['task']}): where its sides are from: {origins}. The test "
            f"side has {one.n:,} examples in {one.side.draws.n_groups:,} groups; no group is on "
            "two sides."
            if config.split == "sound"
            else f"**{one.name}** ({one.about['task']}): where its sides are from: {origins}. "
            "Sides are the plan's own, which hold some texts twice."
        )
    frame = pl.DataFrame(rows, infer_schema_length=None)
    n_read = f" Texts are cut at {config.max_length} tokens."
    report.table("classes", frame, f"Examples by class and side.{n_read}")
    if left_out:
        schema = ["data_set", "reason", "examples"]
        report.table(
            "left_out",
            pl.DataFrame(left_out, schema=schema, orient="row"),
            "What was not used, and why.",
        )
