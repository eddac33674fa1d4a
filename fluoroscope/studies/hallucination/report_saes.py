"""What the report says of the SAEs that the run trained: are they what the seed expects?"""

import polars as pl

from fluoroscope.core.storage import read_json
from fluoroscope.runs.report import Gate, Report
from fluoroscope.runs.run import Run
from fluoroscope.steps.evaluate_saes import QUALITY
from fluoroscope.steps.sae_training import SAETrainingConfig

MAX_LOSS, FEW, MANY = 0.01, 50, 100
"""What the seed expects: reconstruction loss below, active latents from and to."""


def add_saes(report: Report, run: Run, config: SAETrainingConfig) -> None:
    rows: list[dict[str, str | float | None]] = []
    gates: list[Gate] = []
    for plan in (plan for plans in config.groups.values() for plan in plans):
        file = run.shard_folder(QUALITY, plan.hook_point) / "quality.json"
        numbers = read_json(file)[plan.key]
        row: dict[str, str | float | None] = {"sae": plan.key}
        for name in ("fvu", "l0", "recovered_of_mean"):
            ends = numbers.get(name) or [None, None, None]
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
        rows.append(row | {"dead_fraction": numbers["dead_fraction"]})
        gates += seed_gates(plan.key, numbers["fvu"][0], numbers["l0"][0])
    table = pl.DataFrame(rows, infer_schema_length=None)
    report.section("The SAEs that were trained")
    report.text(
        f"The seed expects a reconstruction loss below {MAX_LOSS:g} and {FEW} to {MANY} active "
        "latents. Its loss is a mean squared error in the units of a layer's activations, so it "
        "can be met by a layer that is small. Here the error is set against the layer's "
        "variance: **fvu** is the squared error over the squared distance from the mean, on text "
        "that no SAE was trained on. **l0** is the mean number of active latents of a token, a "
        "count and no share."
    )
    report.gates(gates, "sae_gates", "By the values; intervals over documents are in the table.")
    report.table("saes", table, "On held-out text, with 95 % intervals over documents.")


def seed_gates(sae: str, fvu: float | None, l0: float | None) -> list[Gate]:
    # What could not be measured passes no gate: every comparison with NaN is false.
    loss, active = (float("nan") if value is None else value for value in (fvu, l0))
    return [
        Gate("fvu", loss, f"below {MAX_LOSS:g}, as the seed expects", loss < MAX_LOSS, sae),
        Gate("l0", active, f"{FEW} to {MANY}, as the seed expects", FEW <= active <= MANY, sae),
    ]
