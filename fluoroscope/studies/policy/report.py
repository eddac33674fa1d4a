"""The report of a policy run: what it learnt and what that is worth, first."""

import polars as pl

from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.studies.policy.config import PolicyConfig
from fluoroscope.studies.policy.judging import NEVER, ORACLE, POLICY, STATIC
from fluoroscope.studies.policy.report_findings import Findings, is_done, load_findings
from fluoroscope.studies.policy.report_log import add_log
from fluoroscope.studies.policy.report_training import (
    add_candidates,
    add_cost,
    add_toy,
    add_training,
)
from fluoroscope.studies.policy.report_value import add_others, add_parts, add_value
from fluoroscope.studies.policy.report_verdict import add_verdict
from fluoroscope.studies.policy.steps.replay import REPLAY
from fluoroscope.studies.policy.steps.rewards import REWARDS, load_data
from fluoroscope.studies.policy.steps.toy import TOY


def write_report(run: Run, config: PolicyConfig) -> None:
    name = config.model.name.rstrip("/").rpartition("/")[2]
    title = f"When to steer {name} on {config.task.name}"
    found = load_findings(run, config)
    n = (len(found.actions) - 1) // len(config.candidates.multiples)
    subtitle = f"a policy over {n} latents and doing nothing, token by token"
    report = Report(title, subtitle, facts=_facts(found))
    add_verdict(report, found)
    add_parts(report, found)
    add_value(report, found)
    add_others(report, found)
    add_candidates(report, run, found)
    if is_done(run, REPLAY):
        add_log(report, run, found)
    add_training(report, found)
    if is_done(run, TOY):
        add_toy(report, run)
    add_cost(report, found)
    _add_data(report, run, config)
    report.write(run.folder)


def _facts(found: Findings) -> dict[str, str | float | int]:
    facts: dict[str, str | float | int] = {}
    for label, name in (
        ("return, never acting", NEVER),
        ("static", STATIC),
        ("policy", POLICY),
        ("optimum", ORACLE),
    ):
        row = found.row(name)
        if row is not None:
            facts[label] = round(row["return"], 3)
    return facts


def _add_data(report: Report, run: Run, config: PolicyConfig) -> None:
    report.section("What was judged")
    rows = []
    for name in config.tasks:
        data = load_data(run, config, name)
        sides = {f"{side}_samples": len(samples) for side, samples in data.sides.items()}
        groups = {
            f"{side}_groups": len({sample.group_id for sample in samples})
            for side, samples in data.sides.items()
        }
        rows.append({"task": name, "way": data.asking.way, **sides, **groups,
                     "left_out": len(data.left_out)})  # fmt: skip
    report.table("tasks", pl.DataFrame(rows), "Groups are never on two sides.")
    if is_done(run, REWARDS) and config.is_enumerated:
        report.text(
            "Rewards were enumerated: the action that is chosen at the prompt's end is held while "
            "an option's tokens are read, as static steering holds its own."
        )
