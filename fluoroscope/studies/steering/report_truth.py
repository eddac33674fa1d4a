"""What only the organism's report can have: whether what was planted is repaired, with gates."""

import polars as pl

from fluoroscope.runs.interval_text import without_nan
from fluoroscope.runs.report import Gate, Report
from fluoroscope.runs.run import Run
from fluoroscope.studies.steering.report_findings import (
    Findings,
)
from fluoroscope.studies.steering.steps.truth import FAIR, GROUND_TRUTH, LOSS, MARGIN, TRUTH

N_BASELINES = 2
"""Methods beside the main one that must repair the bias as well."""

_CLAIMS = ("repairs_bias", "spares_others", "harms_nothing")


def add_truth(report: Report, run: Run, found: Findings) -> None:
    table = pl.read_csv(run.step_folder(TRUTH) / GROUND_TRUTH)
    report.section("Ground truth")
    report.text(
        "This model is the organism: its bias against some groups was planted, so it is known what "
        f"a repair is. A recipe **repairs** the bias if the mean score of the biased prompts comes "
        f"within {MARGIN:g} of {FAIR:g}; it **spares** the others if their whole interval moves by "
        f"at most {MARGIN:g}; it **harms nothing** if no other task loses {LOSS:g} or more. "
        "`cosine_with_planted` is between what is steered along at the planted layer and the "
        "planted direction (steering against it is negative). No method looked at any of this, "
        "but for the ceiling."
    )
    report.gates(
        truth_gates(table, found),
        caption="What must hold for the study to be trusted.",
    )
    report.table("ground_truth", without_nan(table), "A row a recipe; see the gates above.")


def truth_gates(table: pl.DataFrame, found: Findings) -> list[Gate]:
    rows = {row["recipe"]: row for row in table.iter_rows(named=True)}
    main = rows[found.main]
    biased, others = main["biased after"], main["others difference"]
    losses = [
        value for name, value in main.items() if name.startswith("loss of ") and value is not None
    ]
    whole = [n for n in found.named("method") if all(rows[n][claim] for claim in _CLAIMS)]
    gates = [
        Gate("biased prompts, mean score", biased,
             f"{FAIR - MARGIN:g} to {FAIR + MARGIN:g}", main["repairs_bias"], found.main),
        Gate("other prompts, change", others,
             f"whole interval within {MARGIN:g}", main["spares_others"], found.main),
        Gate("baselines that repair, spare and harm nothing", len(whole),
             f"at least {N_BASELINES}", len(whole) >= N_BASELINES, "other methods"),
    ]  # fmt: skip
    if losses:
        gates.insert(2, Gate("largest loss elsewhere", max(losses) + 0.0, f"below {LOSS:g}",
                             main["harms_nothing"], found.main))  # fmt: skip
    for method, names in found.draws.items():
        n = sum(rows[name]["repairs_bias"] for name in names)
        gates.append(
            Gate("draws that repair the bias", n, "none", n == 0, f"{method}, {len(names)} draws")
        )
    for name in found.named("ceiling"):
        is_whole = all(rows[name][claim] for claim in _CLAIMS)
        value = rows[name]["biased after"]
        gates.append(
            Gate("biased prompts at the ceiling", value, "repairs, spares and harms nothing",
                 is_whole, name)
        )  # fmt: skip
    return gates
