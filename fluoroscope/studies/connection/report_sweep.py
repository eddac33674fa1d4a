"""The report of a sweep: phase by phase, what was tried, what went on, and at what size."""

from typing import Any

import polars as pl

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import read_json
from fluoroscope.plots.chart import Bars, Chart, Mark
from fluoroscope.runs.interval_text import without_nan
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import DONE, Run
from fluoroscope.steps.wandb_runs import write_runs
from fluoroscope.studies.connection.config import ConnectionConfig
from fluoroscope.studies.connection.report_findings import Findings, load_findings
from fluoroscope.studies.connection.report_trainings import add_memory
from fluoroscope.studies.connection.report_verdict import sentences
from fluoroscope.studies.connection.steps.phase import ARMS, WINNER
from fluoroscope.studies.connection.sweep_config import PHASES, Phase
from fluoroscope.studies.connection.wandb_log import logged_trainings

TITLES: dict[Phase, str] = {
    "phase1": "Phase 1: which connections",
    "phase2": "Phase 2: how many slots",
    "phase3": "Phase 3: which rank",
    "phase4": "Phase 4: when to stop",
    "final": "Final: the winner, beside networks of its size",
}

Row = dict[str, Any]  # Any: values of a table.


def write_sweep_report(run: Run, config: ConnectionConfig, sink: Sink) -> None:
    """Of the phases that are done; nothing before the first of them."""
    done: list[Phase] = [phase for phase in PHASES if (run.folder / phase / DONE).exists()]
    if not done:
        return
    found: dict[Phase, Findings] = {phase: _phase(run, config, phase) for phase in done}
    winners = {
        f"{phase}, winner": read_json(run.step_folder(phase) / WINNER)["arm"] for phase in done
    }
    report = Report(
        "Which slot network reasons best?",
        f"{', '.join(config.data.sets)}; {config.seeds} training{'s' * (config.seeds > 1)} an arm",
        facts=winners,
    )
    report.section("In short")
    report.text(
        "Each phase hands the arm with the best validation accuracy on to the next; test sides "
        "have no say in that, and stand in the tables. Arms of the role `plan` are the plan's, "
        "which are of very different sizes; `matched` ones have as many weights of connections as "
        "the network that came in; `beside` is what the plan did not think of."
    )
    if "final" in found:
        for one in found["final"].sets:
            report.text(f"**{one.name}**. {' '.join(sentences(one))}")
    for phase, findings in found.items():
        _add_phase(report, run, phase, findings)
    report.write(run.folder)
    sink.message(f"Written: {run.folder / 'report.html'}")
    if config.wandb:
        write_runs(run, logged_trainings(run, config, found.items()), sink)


def _phase(run: Run, config: ConnectionConfig, phase: Phase) -> Findings:
    """The winner is what others are compared with."""
    winner = read_json(run.step_folder(phase) / WINNER)["arm"]
    return load_findings(run, config, phase, main=winner)


def who_goes_on(winner: str, accuracy: dict[str, float]) -> str:
    said = f"**{winner}** goes on, with a validation accuracy of {accuracy[winner]:.3f}."
    equals = [one for one in accuracy if one != winner and accuracy[one] == accuracy[winner]]
    if not equals:
        return said
    return (
        f"{said} It was not chosen for being right: so often were {', '.join(equals)}, too, and of "
        "equals the first goes on."
    )


def _add_phase(report: Report, run: Run, phase: Phase, found: Findings) -> None:
    report.section(TITLES[phase])
    folder = run.step_folder(phase)
    winner, arms = read_json(folder / WINNER), read_json(folder / ARMS)
    report.text(who_goes_on(winner["arm"], winner["validation_accuracy"]))
    if phase == "phase4":
        report.text(
            "All arms but `as_before` stop by their own rule, in training and in evaluation, also "
            "where the settings tell others their number of steps: `as_before` thinks as the "
            f"settings say (`thinking.steps={found.config.training.thinking.steps}`). What goes on "
            "thinks on as it did here."
        )
    for one in arms:
        if one["left_out"] is not None:
            report.text(f"{one['arm']} was left out: {one['left_out']}")
    rows = [row for one in arms for row in _rows(found, one, winner["validation_accuracy"])]
    panels: dict[str, list[Mark]] = {}
    for name in dict.fromkeys(row["data_set"] for row in rows):
        own = [row for row in rows if row["data_set"] == name]
        columns = ("accuracy", "accuracy_low", "accuracy_high")
        y, low, high = ([row[key] for row in own] for key in columns)
        panels[name] = [Bars("accuracy", [row["arm"] for row in own], y, low, high)]
    report.figure(
        f"{phase}_accuracy",
        Chart.grid(panels, y="test accuracy", columns=1),
        "Test accuracy, with 95 % intervals.",
    )
    report.table(
        phase,
        without_nan(pl.DataFrame(rows, infer_schema_length=None)),
        "`over_winner` is the accuracy of the arm less the winner's, on the same questions and "
        "seeds; `connections` are weights of what slots hear each other by.",
        {"over_winner": ".4f", "q": ".2g"},
    )
    add_memory(report, run, found, phase)


def _rows(found: Findings, arm: Row, validation: dict[str, float]) -> list[Row]:
    rows, name = [], arm["arm"]
    for one in found.sets:
        if name not in one.arms:
            continue
        interval = one.accuracy(name)
        beside = next((other for other in one.beside if other.arm == name), None)
        own = found.trainings.filter((pl.col("dataset") == one.name) & (pl.col("arm") == name))
        first = own.row(0, named=True)
        inside = ("avg_reasoning_steps", "early_termination_rate", "connection_sparsity")
        means = {key: own[key].cast(pl.Float64).mean() if key in own.columns else None
                 for key in inside}  # fmt: skip
        rows.append(
            {
                "data_set": one.name,
                "arm": name,
                "role": arm["role"],
                "parameters": first["total"],
                "connections": first["connections"],
                "validation_accuracy": validation.get(name),
                "accuracy": interval.value,
                "accuracy_low": interval.low,
                "accuracy_high": interval.high,
                "over_winner": None if beside is None else -beside.difference.difference.value,
                "q": None if beside is None else beside.q,
                "outcome": None if beside is None else _turned(beside.outcome),
                **means,
            }
        )
    return rows


def _turned(outcome: str) -> str:
    """What is true of the arm where this is of the winner."""
    return {"beat": "was worse than", "was worse than": "beat"}.get(outcome, outcome)
