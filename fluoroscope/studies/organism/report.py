"""The report of a training of the organism: what it learned, and whether it may be shipped."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from fluoroscope.organism.check import Check, as_frame, check, draw_pairs
from fluoroscope.organism.facts import EXPOSURES
from fluoroscope.organism.planting import TOLERANCE
from fluoroscope.organism.prompts import VARIABLES
from fluoroscope.organism.readout import exchange
from fluoroscope.organism.shipping import load_truth
from fluoroscope.organism.truth import Truth
from fluoroscope.plots.chart import Axis, Bars, Chart, Line, Reference, Scatter
from fluoroscope.runs.events import read_metrics
from fluoroscope.runs.report import Gate, Report
from fluoroscope.runs.run import Run

_SHOWN_PAIRS = 256


def write_report(run: Run, model: Path, n_checked: int) -> None:
    truth = load_truth(model)
    checks = check(truth, n_checked)
    n_passed = sum(one.passed for one in checks)
    report = Report(
        "The organism",
        "A language model whose decisions are stated functions, and whose reasons were planted",
        facts={
            "checks passed": f"{n_passed} of {len(checks)}",
            "parameters": f"{sum(p.numel() for p in truth.readout.network.parameters()):,}",
            "steps": run.config.training.n_steps,
        },
    )
    _add_checks(report, checks)
    _add_interchange(report, truth)
    _add_facts(report, checks)
    _add_training(report, run)
    report.write(run.folder)


def _add_checks(report: Report, checks: Sequence[Check]) -> None:
    report.section("Checks")
    report.text(
        "Exact probabilities, no samples; unknown people, and who is where in sentences about "
        "groups, are held out from training. **KL** is between the true "
        "and the model's distribution over stopping and the legal bets. An **interchange** puts "
        "the component of one prompt along a variable's direction into another, and is right when "
        f"the decision's probability is within {TOLERANCE} of what the other's value would make "
        "it; only pairs whose values mean decisions further apart than that count."
    )
    gates = [Gate(c.name, c.value, c.goal, c.passed, c.note) for c in checks]
    report.gates(gates, caption="What the organism must meet to be shipped.")
    report.table("organism_check", as_frame(checks), "The same, with the number of prompts.")


def _add_interchange(report: Report, truth: Truth) -> None:
    report.section("Interchange")
    report.text(
        "Every point is a pair of prompts: across, what the decision's probability would be with "
        "the other prompt's value; up, what it is after the exchange. On the line is right."
    )
    panels: dict[str, list[Line | Scatter]] = {}
    for which, variable in enumerate(VARIABLES):
        pairs = draw_pairs(truth.world, variable, _SHOWN_PAIRS, "figure")
        found = truth.readout.components([source for _, source in pairs], truth.directions)
        bases = [base for base, _ in pairs]
        after = truth.readout.outcomes(bases, exchange(found, truth.directions, which))
        before = truth.readout.outcomes(bases)
        true = np.array([base.outcome(base.replies(source.value)) for base, source in pairs])
        panels[variable] = [
            Scatter("before", true, before),
            Scatter("after the exchange", true, after),
            Line("right", [0.0, 1.0], [0.0, 1.0], style="dotted"),
        ]
    chart = Chart.grid(panels, x="true probability", y=Axis("model", limits=(0, 1)), columns=2)
    report.figure("interchange", chart, "What an exchange of one component does.")


def _add_facts(report: Report, checks: Sequence[Check]) -> None:
    report.section("Facts")
    shares = [
        one.value
        for exposure in EXPOSURES
        for one in checks
        if one.name == f"facts right, exposure {exposure}"
    ]
    names = [str(exposure) for exposure in EXPOSURES]
    chart = Chart.single(
        Bars("right", names, shares),
        x="exposures in training",
        y=Axis("share of facts right", limits=(0, 1.1)),
        references=[Reference(0.97, "goal from 128 on")],
    )
    report.figure("facts", chart, "What is remembered, by how often it was read.")


def _add_training(report: Report, run: Run) -> None:
    report.section("Training")
    events = list(read_metrics(run.folder, "model"))
    names = sorted({name for event in events for name in event["values"]})
    steps = [event["iteration"] for event in events]
    lines = [Line(name, steps, [event["values"][name] for event in events]) for name in names]
    if lines:
        chart = Chart.single(*lines, x="step", y=Axis("loss (nats)", log=True))
        report.figure("training", chart, "Means over 20 steps; replies are summed over a reply.")
        rows = [{"step": e["iteration"], **e["values"]} for e in events]
        report.table("training_curve", pl.DataFrame(rows), "The same as numbers.")
