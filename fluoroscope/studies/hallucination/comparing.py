"""Several hallucination runs side by side: of models, of trackers, of data sets.

Of the same data set each method's AUROC is compared pairwise with the first run, over the
questions that both were asked (`pairing.py`); of different ones, detectors of one run are tried on
the answers of the other (`transfer.py`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from fluoroscope.plots.chart import Axis, Bars, Chart, Heatmap, Panel, Reference
from fluoroscope.runs.compare import add_facts, add_settings, run_names
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.runs.terminal import duration, size
from fluoroscope.runs.usage import step_usage
from fluoroscope.studies.hallucination.detection.comparisons import holm
from fluoroscope.studies.hallucination.detection.scores import Scored, auroc
from fluoroscope.studies.hallucination.methods import COMBINED, TRACKING, WORDS_APART, methods
from fluoroscope.studies.hallucination.pairing import compare_paired, shared_questions
from fluoroscope.studies.hallucination.steps.detect import read_scores
from fluoroscope.studies.hallucination.steps.evaluate import EVALUATE
from fluoroscope.studies.hallucination.steps.features import readable_answers
from fluoroscope.studies.hallucination.transfer import (
    OF_SAMPLES,
    data_name,
    subject,
    transfer,
)

NOT_PAIRED = "not paired"
_SCHEMA = {
    "method": pl.String,
    "one": pl.String,
    "other": pl.String,
    "difference": pl.Float64,
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
    "p": pl.Float64,
    "p_holm": pl.Float64,
    "n_compared": pl.Int64,
    "one_auroc": pl.Float64,
    "one_auroc_low": pl.Float64,
    "one_auroc_high": pl.Float64,
    "other_auroc": pl.Float64,
    "other_auroc_low": pl.Float64,
    "other_auroc_high": pl.Float64,
    "n_groups": pl.Int64,
    "paired_by": pl.String,
}
_HOW = {
    "answers": "the same answers in the same folds",
    "questions": "the questions that both were asked, each run with its own answers or folds",
}


def compare_hallucination(folders: Sequence[Path], report: Report) -> None:
    """Of runs that are evaluated, for only those have shown that noise tells nothing."""
    runs = [Run.open(folder) for folder in folders]
    for run in runs:
        run.step_folder(EVALUATE)
    names = run_names(folders)
    report.section("Methods")
    _add_all_scores(report, runs, names)
    for run, name in zip(runs[1:], names[1:], strict=True):
        if data_name(run) == data_name(runs[0]):
            _add_paired(report, run, runs[0], name, names[0])
        else:
            report.text(
                f"{name} ({data_name(run)}) and {names[0]} ({data_name(runs[0])}) are of different "
                "data, so their scores stand side by side and are not paired."
            )
    _add_transfer(report, runs, names)
    report.section("Sizes and costs")
    report.table("sizes", sizes(runs, names), "Time over all starts; latents of tracked layers.")
    add_facts(folders, report)
    add_settings(folders, report)


def paired_table(one: Run, other: Run, names: tuple[str, str]) -> pl.DataFrame:
    """A row for each method that both have: `one` minus `other`, p after Holm over methods."""
    shared = shared_questions(one, other)
    seed, n_resamples = other.config.seed, other.config.detection.resamples
    first, second = read_scores(one, one.config), read_scores(other, other.config)
    rows = []
    # Groups of the other words are merged by what their texts share, in each run by itself.
    for method in (name for name in first if name in second and name != WORDS_APART):
        found = compare_paired(first[method], second[method], shared, seed, n_resamples)
        row: dict[str, object] = {"method": method, "one": names[0], "other": names[1]}
        row |= {"n_groups": shared.n_groups, "paired_by": NOT_PAIRED}
        if found is None:
            row |= _numbers("one_auroc", auroc(first[method], seed, n_resamples))
            row |= _numbers("other_auroc", auroc(second[method], seed, n_resamples))
        else:
            comparison, row["paired_by"] = found
            row |= _numbers("one_auroc", comparison.one)
            row |= _numbers("other_auroc", comparison.other)
            row |= _numbers("difference", comparison.difference) | {"p": comparison.p}
        rows.append(row)
    p = np.array([row.get("p", np.nan) for row in rows], float)
    for row, adjusted in zip(rows, holm(p), strict=True):
        row |= {"p_holm": float(adjusted), "n_compared": int((~np.isnan(p)).sum())}
    return pl.DataFrame(rows, schema=_SCHEMA)


def sizes(runs: Sequence[Run], names: Sequence[str]) -> pl.DataFrame:
    """The seed's table of a small model against a medium one; the ratio is to the first run."""
    found = [_sizes(run) for run in runs]
    rows = []
    for quantity in found[0]:
        values = [numbers[quantity] for numbers in found]
        ratios = [
            f"{value / values[0]:.3g}\u00d7" if value is not None and values[0] else "-"
            for value in values[1:]
        ]
        rows.append((quantity, *(_said(quantity, value) for value in values), *ratios))
    of = ["ratio"] if len(runs) == 2 else [f"{name} ratio" for name in names[1:]]
    schema = dict.fromkeys(("quantity", *names, *of), pl.String)
    return pl.DataFrame(rows, schema=schema, orient="row")


def _sizes(run: Run) -> dict[str, float | None]:
    config, used = run.config, step_usage(run.folder)
    answers = readable_answers(run)
    return {
        "layers": config.shape.n_layers,
        "hidden size": config.shape.d_model,
        "parameters": config.shape.n_params,
        "tracked layers": len(config.points),
        "latents": sum(config.widths),
        "SAE batch": config.train.training.batch_size if config.train else None,
        "tokens SAEs learnt from": config.train.n_tokens if config.train else None,
        "tokens read at once": config.read.tile_tokens,
        "answers": len(answers),
        "groups": answers["group_id"].n_unique(),
        "time": _total(used["seconds"]),
        "disk": _total(used["disk_bytes"]),
        "peak memory": used["peak_bytes"].max(),  # pyright: ignore[reportReturnType] - of floats.
    }


def _total(column: pl.Series) -> float | None:
    return float(column.sum()) if column.is_not_null().any() else None


def _said(quantity: str, value: float | None) -> str:
    if value is None:
        return "-"
    match quantity:
        case "time":
            return duration(value)
        case "disk" | "peak memory":
            return size(value)
    return f"{value:,.0f}"


def _add_all_scores(report: Report, runs: Sequence[Run], names: Sequence[str]) -> None:
    report.text(
        "AUROC of every method in every run, out of fold, with 95 % intervals over its groups."
    )
    found = [read_scores(run, run.config) for run in runs]
    names_of_methods = list(dict.fromkeys(method for scores in found for method in scores))
    bars, columns = list[Bars](), dict[str, list[float | None]]()
    for run, name, scores in zip(runs, names, found, strict=True):
        values = [_interval(run, scores, method) for method in names_of_methods]
        columns |= {
            f"{name}{end}": [None if np.isnan(value[i]) else value[i] for value in values]
            for i, end in enumerate(("", "_low", "_high"))
        }
        value, low, high = (list(part) for part in zip(*values, strict=True))
        bars.append(Bars(name, names_of_methods, value, low, high))
    panel = Panel(bars, references=[Reference(0.5, "chance")])
    chart = Chart([panel], y=Axis("AUROC", limits=(0, 1)))
    report.figure("auroc", chart, "All answers of each run; 95 % intervals over groups.")
    frame = pl.DataFrame({"method": names_of_methods, **columns})
    report.table("auroc_of_runs", frame, "Where nothing stands a run has no such method.")


def _interval(run: Run, scores: Mapping[str, Scored], method: str) -> tuple[float, float, float]:
    if method not in scores:
        return (np.nan, np.nan, np.nan)
    return auroc(scores[method], run.config.seed, run.config.detection.resamples)


def _add_paired(report: Report, one: Run, other: Run, name: str, other_name: str) -> None:
    found = paired_table(one, other, (name, other_name))
    how = found["paired_by"][0] if len(found) else NOT_PAIRED
    n = found["n_groups"][0] if len(found) else 0
    if how == NOT_PAIRED:
        report.text(
            f"{name} and {other_name} share {n} groups of {data_name(one)}, too few to compare "
            "them on: the intervals stand side by side and are **not paired**."
        )
    else:
        row = found.filter(pl.col("method") == COMBINED).to_dicts()[0]
        report.text(
            f"{name} minus {other_name}, paired by {_HOW[how]}: {n} groups. {_verdict(row)}"
        )
    report.table(
        f"paired_{_file_name(name)}",
        _shown(found),
        "Of the shared questions alone; p after Holm over methods. Where two scores never differ "
        "there is no interval.",
    )


def _verdict(row: Mapping[str, float]) -> str:
    value, low, high = (row[f"difference{end}"] for end in ("", "_low", "_high"))
    if np.isnan(low):
        return f"With *{COMBINED}* the two score alike, so there is nothing to tell."
    numbers = f"{value:+.3f} [{low:+.3f}, {high:+.3f}], p after Holm {row['p_holm']:.2g}"
    if row["p_holm"] <= 0.05 and (low > 0 or high < 0):
        return f"With *{COMBINED}* the AUROC is **{'higher' if low > 0 else 'lower'}**: {numbers}."
    return f"With *{COMBINED}* the two are not told apart: {numbers}."


def _add_transfer(report: Report, runs: Sequence[Run], names: Sequence[str]) -> None:
    of_data: dict[str, tuple[Run, str]] = {}
    for run, name in zip(runs, names, strict=True):
        of_data.setdefault(data_name(run), (run, name))
    if len(of_data) < 2:
        return
    report.section("Transfer between data sets")
    own = [run for run, _ in of_data.values()]
    own_names = [name for _, name in of_data.values()]
    if len({subject(run) for run in own}) > 1:
        report.text(
            "Columns of different models, or of different SAEs, do not mean the same: detectors of "
            "one run are not tried on another."
        )
        return
    found = transfer(own, own_names)
    asked = {
        name: None for run in own for name in (*OF_SAMPLES, TRACKING) if name in methods(run.config)
    }
    left_out = [name for name in asked if name not in found["method"]]
    also = f" Not alike in these runs, and left out: {', '.join(left_out)}." if left_out else ""
    report.text(
        "A detector learns from all answers of one run and scores those of another, without the "
        "groups that the first has too (`n_groups_left_out`). Where a run is tried on itself the "
        f"score is out of fold.{also}"
    )
    report.figure("transfer_auroc", _transfer_chart(found), "AUROC: trained on \u2192 tested on.")
    report.table("transfer", _shown(found), "Intervals over the groups that are tested on.")


def _transfer_chart(found: pl.DataFrame) -> Chart:
    pair = pl.concat_str("trained_on", pl.lit(" \u2192 "), "tested_on")
    wide = found.with_columns(pair=pair).pivot("pair", index="method", values="auroc")
    pairs = [name for name in wide.columns if name != "method"]
    heat = Heatmap(
        wide.select(pairs).to_numpy(), pairs, wide["method"].to_list(), "AUROC", limits=(0, 1)
    )
    return Chart([Panel([heat])])


def _numbers(name: str, interval: tuple[float, float, float]) -> dict[str, float]:
    value, low, high = interval
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "_.-" else "-" for letter in name)


def _shown(frame: pl.DataFrame) -> pl.DataFrame:
    floats = [name for name, kind in frame.schema.items() if kind.is_float()]
    return frame.with_columns(pl.col(floats).fill_nan(None))
