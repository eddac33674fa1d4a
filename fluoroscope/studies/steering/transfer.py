"""Several steering runs side by side: what is found on one task, judged on others; and over seeds.

A run judges its main vector on its own task and on those of `evaluate.others`, so that runs of
several tasks give a matrix. Runs that differ in their seed alone are one experiment done again.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from fluoroscope.core.config import canonical_json
from fluoroscope.interventions.replies.comparing import SeedSpread, compare, over_seeds, shift_of
from fluoroscope.plots.chart import Axis, Bars, Chart, Heatmap, Panel, Reference
from fluoroscope.runs.compare import compare_runs, run_names
from fluoroscope.runs.interval_text import without_nan
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.steps.replies_table import replies_of
from fluoroscope.studies.steering.report_findings import (
    COMPARED,
    Findings,
    load_findings,
)
from fluoroscope.studies.steering.steps.evaluate import UNSTEERED

_NUMBERS = ("before", "after", "difference", "difference_low", "difference_high", "p", "n")
_TRANSFER_SCHEMA = {
    "run": pl.String,
    "found_on": pl.String,
    "judged_on": pl.String,
    "recipe": pl.String,
    "strength": pl.Float64,
    **{name: pl.Int64 if name == "n" else pl.Float64 for name in _NUMBERS},
    "shift": pl.String,
}


def compare_steering(runs: Sequence[Path], report: Report) -> None:
    """Of runs that are evaluated."""
    opened = [Run.open(folder) for folder in runs]
    found = dict(
        zip(run_names(runs), (load_findings(run, run.config) for run in opened), strict=True)
    )
    _add_transfer(report, found)
    for names in seed_groups(found):
        _add_seeds(report, {name: found[name] for name in names})
    compare_runs(runs, report)


def transfer_table(found: Mapping[str, Findings]) -> pl.DataFrame:
    """A row for each run and task: its main vector there, minus the unsteered model."""
    rows = []
    for name, one in found.items():
        margin = one.config.evaluate.margin
        for task in [one.task, *(other.name for other in one.config.evaluate.others)]:
            row = one.result(one.main, task)
            rows.append(
                {
                    "run": name,
                    "found_on": one.task,
                    "judged_on": task,
                    "recipe": one.main,
                    "strength": row["strength"],
                    **{number: row[number] for number in _NUMBERS},
                    "shift": shift_of(row["difference_low"], row["difference_high"], margin),
                }
            )
    return pl.DataFrame(rows, schema=_TRANSFER_SCHEMA)


def seed_groups(found: Mapping[str, Findings]) -> list[list[str]]:
    """Names of runs that differ in nothing but the seed, and have different ones."""
    groups: dict[str, dict[int, str]] = {}
    for name, one in found.items():
        settings = json.loads(one.config.model_dump_json(exclude={"seed", "threads"}))
        groups.setdefault(canonical_json(settings), {}).setdefault(one.config.seed, name)
    return [list(names.values()) for names in groups.values() if len(names) > 1]


def seeds_table(found: Mapping[str, Findings]) -> pl.DataFrame:
    """A row for each recipe: mean, standard deviation and t-interval over the seeds."""
    first = next(iter(found.values()))
    rows = []
    for name in first.named(*COMPARED, "control"):
        spreads = _spreads(name, list(found.values()))
        row: dict[str, str | int | float] = {"recipe": name, "n_seeds": len(found)}
        for number, spread in spreads.items():
            row |= {
                number: spread.mean,
                f"{number}_low": spread.low,
                f"{number}_high": spread.high,
                f"{number}_sd": spread.sd,
            }
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def picks_over_seeds(found: Mapping[str, Findings]) -> pl.DataFrame:
    """A row a latent of the main recipe: in how many of the runs it was picked."""
    parts = [
        one.picks.filter((pl.col("recipe") == one.main) & pl.col("latent").is_not_null())
        for one in found.values()
    ]
    key = ["hook_point", "latent"]
    counted = pl.concat([part.select(key).unique() for part in parts]).group_by(key).len("n_runs")
    return counted.with_columns(n_seeds=pl.lit(len(found))).sort(
        "n_runs", *key, descending=[True, False, False]
    )


def _spreads(recipe: str, found: Sequence[Findings]) -> dict[str, SeedSpread]:
    comparisons = []
    for one in found:
        before = one.said(UNSTEERED)
        compared = compare(
            replies_of(before),
            replies_of(one.said(recipe)),
            before["group"].to_list(),
            one.config.seed,
        )
        comparisons.append(compared)
    gains = [
        compared._replace(difference=one.gain(recipe))
        for compared, one in zip(comparisons, found, strict=True)
    ]
    return {**over_seeds(comparisons), "gain": over_seeds(gains)["difference"]}


def _add_transfer(report: Report, found: Mapping[str, Findings]) -> None:
    table = transfer_table(found)
    report.section("Transfer")
    report.text(
        "Rows are what the main vector of a run was found on, columns what it was judged on: the "
        "difference of the mean score to the unsteered model. On its own task it is meant to help, "
        "where it was found; elsewhere it may help, harm, or do nothing."
    )
    if any(one.towards is not None for one in found.values()):
        report.text(
            "Where a score is aimed at (`strength.towards`) a larger difference is not better; see "
            "the gain in the reports of these runs."
        )
    tasks = list(dict.fromkeys(table["judged_on"]))
    rows = list(dict.fromkeys(table["run"]))
    cells = {(row["run"], row["judged_on"]): row["difference"] for row in table.to_dicts()}
    values = [[cells.get((run, task), float("nan")) for task in tasks] for run in rows]
    labels = [f"{found[run].task} ({run})" for run in rows]
    heat = Heatmap(values, tasks, labels, "difference of the score", ramp="diverging")
    report.figure(
        "transfer_matrix", Chart([Panel([heat])]), "Nothing stands where none was judged."
    )
    report.table(
        "transfer",
        without_nan(table),
        "95 % intervals over the groups of each task; `shift` says whether the difference lies "
        "within the run's margin, beyond it, or nobody can tell.",
        {"p": ".2g"},
    )


def _add_seeds(report: Report, found: Mapping[str, Findings]) -> None:
    first, table = next(iter(found.values())), seeds_table(found)
    name = "".join(letter if letter.isalnum() else "-" for letter in next(iter(found)))
    report.section(f"Over {len(found)} seeds: {first.main} on {first.task}")
    report.text(
        f"{', '.join(found)} differ in their seed alone, which draws splits, shuffles and random "
        "controls. Mean, standard deviation and 95 % interval (Student's t) over seeds tell how "
        "much the seed matters; where seeds share test samples they do not tell what other samples "
        "would say. `gain` is towards the aim where there is one."
    )
    ends = (table[column].to_list() for column in ("gain", "gain_low", "gain_high"))
    value, low, high = ends
    bars = Bars("gain", table["recipe"].to_list(), value, low, high)
    chart = Chart([Panel([bars], references=[Reference(0.0)])], y=Axis("gain, mean over seeds"))
    report.figure(f"seeds_gain_{name}", chart, "95 % intervals over seeds, by Student's t.")
    report.table(f"seeds_{name}", without_nan(table), "No interval of a ratio that few seeds have.")
    picks = picks_over_seeds(found)
    if len(picks):
        report.table(f"seeds_picks_{name}", picks, "In how many runs a latent was picked.")
