"""The report of a steering run: what a reader wants first, first."""

import polars as pl

from fluoroscope.runs.report import Report
from fluoroscope.runs.run import DONE, Run
from fluoroscope.studies.steering.config import SteeringConfig
from fluoroscope.studies.steering.report_findings import Findings, load_findings
from fluoroscope.studies.steering.report_latents import add_latents
from fluoroscope.studies.steering.report_methods import add_methods, add_other_tasks
from fluoroscope.studies.steering.report_samples import add_samples
from fluoroscope.studies.steering.report_strength import add_ablations, add_curve, add_strength
from fluoroscope.studies.steering.report_truth import add_truth
from fluoroscope.studies.steering.report_verdict import add_verdict
from fluoroscope.studies.steering.steps.truth import TRUTH


def write_report(run: Run, config: SteeringConfig) -> None:
    title = f"Steering {config.model.name.rstrip('/').rpartition('/')[2]} on {config.task.name}"
    subtitle = f"{config.method}, {len(config.points)} layers with an SAE"
    found = load_findings(run, config)
    report = Report(title, subtitle, facts=_facts(found))
    add_verdict(report, found)
    if (run.folder / TRUTH / DONE).exists():
        add_truth(report, run, found)
    add_methods(report, found)
    add_other_tasks(report, found)
    add_latents(report, run, found)
    add_samples(report, found)
    add_strength(report, found)
    add_curve(report, found)
    add_ablations(report, found)
    _add_data(report, found)
    report.write(run.folder)


def _facts(found: Findings) -> dict[str, str | float | int]:
    row = found.result(found.main)
    facts: dict[str, str | float | int] = {
        "score, unsteered": round(row["before"], 3),
        "score, steered": round(row["after"], 3),
        "gain": round(found.gain(found.main).value, 3),
        "strength": row["strength"],
    }
    sides = found.tasks.get(found.task, {}).get("samples", {})
    if sides:
        facts["train / val. / test"] = " / ".join(
            str(sides[side]) for side in ("train", "validation", "test")
        )
    return facts


def _add_data(report: Report, found: Findings) -> None:
    if not found.tasks:
        return
    report.section("What was judged")
    rows, left_out = [], []
    for name, facts in found.tasks.items():
        sides = {f"{side}_samples": n for side, n in facts["samples"].items()}
        groups = {f"{side}_groups": n for side, n in facts["groups"].items()}
        n_left_out = sum(facts["left_out"].values())
        rows.append(
            {"task": name, "kind": facts["kind"], "way": facts["way"], **sides, **groups,
             "left_out": n_left_out}
        )  # fmt: skip
        left_out += [(name, reason, n) for reason, n in facts["left_out"].items()]
    report.table("tasks", pl.DataFrame(rows), "Groups are never on two sides.")
    if left_out:
        schema = ["task", "reason", "samples"]
        frame = pl.DataFrame(left_out, schema=schema, orient="row")
        report.table("left_out", frame, "What could not be used, and why.")
    judges = [facts["judge"] for facts in found.tasks.values() if facts["judge"]]
    if judges:
        report.text(" ".join(judges))
