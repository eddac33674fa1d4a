"""The part of the report that only the organism's can have: what was found against the truth."""

import polars as pl

from fluoroscope.runs.report import Gate, Report
from fluoroscope.runs.run import Run
from fluoroscope.studies.gambling.steps.truth import SCORES, TRUTH, read_facts


def add_truth(report: Report, run: Run) -> None:
    report.section("Ground truth")
    report.text(
        "This model is the organism: its player and the variable *risk* in its layer 3 were "
        "planted, so what was found can be judged. Effects of the parts of the prompt are set "
        "beside those of the stated player on the same luck. A declared latent **matches** if it "
        "tells risk on held-out texts, given balance, round and length (partial Spearman at least "
        "0.6, and in layer 3 a cosine of at least 0.5 with the planted direction), and is a "
        "**cause** if exchanging it between prompts that differ in risk alone moves the decision "
        "by at least 10 % of risk's own effect and that of every other variable by at most 2 %. "
        "No step looked at any of this."
    )
    facts = read_facts(run)
    judged = facts.filter(pl.col("passed").is_not_null())
    gates = [
        Gate(row["quantity"], row["value"], row["goal"], row["passed"])
        for row in judged.iter_rows(named=True)
    ]
    if gates:
        report.gates(gates, caption="What must hold for the study to be trusted.")
    report.table("ground_truth", facts, "Found against planted, with 95 % intervals.")
    scores_file = run.step_folder(TRUTH) / SCORES
    if scores_file.exists():
        scores = pl.read_parquet(scores_file)
        floats = [name for name, kind in scores.schema.items() if kind.is_float()]
        shown = scores.with_columns(pl.col(floats).fill_nan(None))
        report.table(
            "truth_scores", shown,
            "Every declared latent and set, beside the ceiling: the planted direction and "
            "supervised probes.",
        )  # fmt: skip
