"""What the report says of methods beside each other: gains, side effects, parts, other tasks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from fluoroscope.core.intervals import Interval
from fluoroscope.features.multiple_tests import benjamini_hochberg
from fluoroscope.interventions.replies.comparing import ALL_SAMPLES, shift_of
from fluoroscope.plots.chart import Axis, Bars, Chart, Panel, Reference
from fluoroscope.runs.interval_text import without_nan
from fluoroscope.runs.report import Report
from fluoroscope.studies.steering.report_findings import (
    COMPARED,
    Findings,
    role_of,
)
from fluoroscope.studies.steering.steps.evaluate import UNSTEERED

N_PARTS = 10
"""Parts of a task in the figure, the largest; the table has all of them."""

N_APART = 4
"""Parts that methods are shown by, where a score is aimed at."""

_SMALL = {"p": ".2g", "q": ".2g"}
_EVEN = {"score": ".3f", "difference": ".3f", "gain": ".3f", "main_ahead": ".3f", "after": ".3f"}
_COSTS = (
    "n_changed", "n_better", "n_worse", "side_effect", "side_effect_low", "side_effect_high",
    "n_better_by_form", "kl", "kl_low", "kl_high", "perplexity_ratio", "perplexity_ratio_low",
    "perplexity_ratio_high", "distinct_1", "distinct_2", "repetition", "unreadable_after",
)  # fmt: skip


def add_methods(report: Report, found: Findings) -> None:
    report.section("Methods beside each other")
    aim = (
        f"**Gain** is by how much the mean distance of the parts from {found.towards:g} shrinks."
        if found.towards is not None
        else "**Gain** is the difference of mean scores."
    )
    report.text(
        f"Each method picked its parts on the training side, and its strength on the validation "
        f"side; here are the {found.result(found.main)['n']} samples of the test side. {aim} "
        "`main_ahead` is what the main method gains beyond the other, paired over the same "
        "samples. Intervals are of 95 %, over groups; p is of the difference of scores, q after "
        f"Benjamini and Hochberg over the methods.{_controls(found)}"
    )
    table = methods_table(found)
    report.figure("scores", _methods_chart(found), _methods_caption(found))
    report.table("methods", without_nan(table), "The test side of the task.", _formats(table))
    if found.draws:
        report.table(
            "controls",
            without_nan(controls_table(found)),
            "Controls over their draws: mean, and the range from the least to the most. `as_good` "
            "counts the draws that the main method is not shown to be ahead of. `frequency` is the "
            "mean share of training samples in which the latents of the draws are active, beside "
            "those that they stand in for.",
        )
    report.subsection("What it costs")
    report.text(
        "The **side-effect ratio** is, of replies that changed and whose score moved, the share "
        "whose score fell (`n_worse`, beside `n_better`)"
        + (
            "; a fall may be what is wanted where the score was too high"
            if found.towards is not None
            else ""
        )
        + ". `n_better_by_form` could not be read before. **KL** (nats a token) and the ratio of "
        "**perplexity** are of next-token distributions on texts of the test side, steered "
        "everywhere; of what only asks there is none. `distinct_1` and `distinct_2` are shares of "
        "different words and pairs of words among all that is said."
    )
    names = [UNSTEERED, *found.named(*COMPARED, "control")]
    costs = pl.DataFrame(
        [{"recipe": name or "unsteered", **_picked(found.result(name), _COSTS)} for name in names],
        infer_schema_length=None,
    )
    report.table("side_effects", without_nan(costs), "Side effects, and whether it is language.")
    _add_parts(report, found)


def _controls(found: Findings) -> str:
    if not found.draws:
        return ""
    patterns = sorted({found.pattern(method) for method in found.draws})
    return (
        f" Controls change as much as {' or '.join(patterns)}, along what nobody picked: what they "
        "do, any change does."
    )


def methods_table(found: Findings) -> pl.DataFrame:
    """A row a method, and one a draw of a control."""
    names = found.named(*COMPARED, "control")
    notes = dict(zip(found.chosen["recipe"], found.chosen["note"], strict=True))
    sizes = dict(found.picks.group_by("recipe").len().iter_rows())
    rows = []
    for name in names:
        result = found.result(name)
        row: dict[str, Any] = {  # Any: values of a table.
            "recipe": name,
            "role": role_of(found.config.recipe(name), found.config),
            "strength": result["strength"],
            "n_parts": sizes.get(name, 0),
            **_picked(result, [f"{k}{end}" for k in ("after", "difference") for end in _ENDS]),
        }
        if found.counts_stereotypes:
            row |= {
                "stereotype_ratio": 1 - result["after"],
                "stereotype_ratio_low": _less(result["after_high"]),
                "stereotype_ratio_high": _less(result["after_low"]),
            }
        row |= {"p": result["p"], **_interval("gain", found.gain(name))}
        ahead = Interval(np.nan, np.nan, np.nan)
        row |= _interval("main_ahead", found.gain(found.main, name) if rows else ahead)
        rows.append({**row, "note": notes.get(name, "")})
    frame = pl.DataFrame(rows, infer_schema_length=None)
    is_tested = (frame["role"] != "control").to_numpy()
    q = benjamini_hochberg(np.where(is_tested, frame["p"].to_numpy(), np.nan))
    frame = frame.insert_column(frame.columns.index("p") + 1, pl.Series("q", q))
    return frame.rename({end: f"score{end.removeprefix('after')}" for end in _named("after")})


def controls_table(found: Findings) -> pl.DataFrame:
    rows = []
    for method, names in found.draws.items():
        scores = [found.result(name)["after"] for name in names]
        gains = [found.gain(name).value for name in names]
        n_equal = sum(not found.gain(found.main, name).low > 0 for name in names)
        rows.append(
            {
                "control": method,
                "matched_to": found.pattern(method),
                "draws": len(names),
                "mean_score": float(np.mean(scores)),
                "least_score": min(scores),
                "most_score": max(scores),
                "mean_gain": float(np.mean(gains)),
                "least_gain": min(gains),
                "most_gain": max(gains),
                "as_good": n_equal,
                "frequency": _frequency(found, names),
                "frequency_of_picks": _frequency(found, [found.pattern(method)]),
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def _frequency(found: Findings, recipes: Sequence[str]) -> float | None:
    """In the mean of their latents; none of directions."""
    own = found.picks.filter(pl.col("recipe").is_in(recipes))["frequency"].drop_nulls()
    return float(own.to_numpy().mean()) if len(own) else None


def add_other_tasks(report: Report, found: Findings) -> None:
    others = [task.name for task in found.config.evaluate.others]
    if not others:
        return
    margin = found.config.evaluate.margin
    report.section("Other tasks")
    report.text(
        f"What steering is not meant for should stay as it is. A task is **within** if the whole "
        f"interval of its difference has moved by at most {margin:g}, **beyond** if none of it "
        "has, else it is **open**: to find no difference does not show that there is none."
    )
    table = other_tasks_table(found, others, margin)
    report.table("other_tasks", without_nan(table), "Steered minus unsteered.", _formats(table))
    shown = table.filter(pl.col("recipe").is_in(found.named(*COMPARED)))
    bars = []
    for task in others:
        own = shown.filter(pl.col("task") == task)
        ends = (own[name] for name in _named("difference"))
        value, low, high = ends
        bars.append(Bars(task, own["recipe"].to_list(), value, low, high))
    lines = [Reference(-margin), Reference(margin, "margin")]
    chart = Chart([Panel(bars, references=lines)], y=Axis("difference of the score"))
    report.figure("other_tasks_change", chart, "95 % intervals over groups; lines are the margin.")


def other_tasks_table(found: Findings, tasks: Sequence[str], margin: float) -> pl.DataFrame:
    rows = []
    for name in found.named(*COMPARED, "control"):
        for task in tasks:
            row = found.result(name, task)
            numbers = ("before", *_named("after"), *_named("difference"), "p", "n", "n_groups")
            rows.append(
                {
                    "recipe": name,
                    "task": task,
                    **_picked(row, numbers),
                    "shift": shift_of(row["difference_low"], row["difference_high"], margin),
                }
            )
    return pl.DataFrame(rows, infer_schema_length=None)


def _add_parts(report: Report, found: Findings) -> None:
    own = found.parts.filter((pl.col("task") == found.task) & (pl.col("category") != ALL_SAMPLES))
    if own["category"].n_unique() < 2:
        return
    report.subsection("By part")
    if found.towards is None or own["category"].n_unique() > N_APART:
        _add_parts_chart(report, found, own)
    names = found.named(*COMPARED, "control")
    columns = (
        "recipe", "category", "n", "n_groups", "before", *_named("after"), *_named("difference"),
        "n_better", "n_worse", "p", "q",
    )  # fmt: skip
    table = own.filter(pl.col("recipe").is_in(names)).select(columns)
    report.table(
        "parts",
        without_nan(table),
        "q is after Benjamini and Hochberg over the parts of a recipe.",
        _formats(table),
    )


def _add_parts_chart(report: Report, found: Findings, own: pl.DataFrame) -> None:
    shown = [UNSTEERED, found.main, *found.named("ceiling")]
    main = own.filter(pl.col("recipe") == found.main).sort("n", descending=True)
    parts = main["category"].head(N_PARTS).to_list()
    bars = []
    for name in shown:
        mine = own.filter(pl.col("recipe") == name)
        rows = [mine.row(by_predicate=pl.col("category") == part, named=True) for part in parts]
        value, low, high = ([row[key] for row in rows] for key in _named("after"))
        bars.append(Bars(name or "unsteered", parts, value, low, high))
    lines = [Reference(found.towards, "aim")] if found.towards is not None else []
    chart = Chart([Panel(bars, references=lines)], y=Axis("score", limits=(0, 1)))
    report.figure(
        "score_of_parts", chart, f"Mean scores, 95 % intervals over groups; {N_PARTS} at most."
    )


def _methods_chart(found: Findings) -> Chart:
    """Parts apart where a score is aimed at, as one cannot make up for another."""
    own = found.parts.filter(pl.col("task") == found.task)
    parts, lines = [ALL_SAMPLES], []
    if found.towards is not None:
        largest = own.filter(
            (pl.col("recipe") == found.main) & (pl.col("category") != ALL_SAMPLES)
        ).sort("n", "category", descending=[True, False])
        parts, lines = (
            largest["category"].head(N_APART).to_list(),
            [Reference(found.towards, "aim")],
        )
    else:
        lines = [Reference(found.result(found.main)["before"], "unsteered")]
    bars = [_bars(found, part, own.filter(pl.col("category") == part)) for part in parts]
    return Chart([Panel(bars, references=lines)], y=Axis("score"))


def _methods_caption(found: Findings) -> str:
    where = " of each part" if found.towards is not None else ""
    return (
        f"Mean score{where} under each method, with 95 % intervals over groups; controls as the "
        "mean of their draws, from the least to the most."
    )


def _bars(found: Findings, part: str, rows: pl.DataFrame) -> Bars:
    by_name = {row["recipe"]: row for row in rows.iter_rows(named=True)}
    shown: list[tuple[str, float, float, float]] = []
    for name in (UNSTEERED, *found.named(*COMPARED)):
        row = by_name[name]
        value, low, high = (row["after"] if row[k] is None else row[k] for k in _named("after"))
        label = f"{name} (ceiling)" if found.roles.get(name) == "ceiling" else name or "unsteered"
        shown.append((label, value, low, high))
    for method, names in found.draws.items():
        values = [by_name[name]["after"] for name in names]
        label = f"{method} ({len(names)} draws)"
        shown.append((label, float(np.mean(values)), min(values), max(values)))
    labels, value, low, high = map(list, zip(*shown, strict=True))
    return Bars("score" if part == ALL_SAMPLES else part, labels, value, low, high)


_ENDS = ("", "_low", "_high")


def _formats(table: pl.DataFrame) -> dict[str, str]:
    """Of scores alike decimals; what is left finds its own."""
    even = {name: form for stem, form in _EVEN.items() for name in _named(stem)}
    return {name: form for name, form in {**_SMALL, **even}.items() if name in table.columns}


def _named(name: str) -> list[str]:
    return [f"{name}{end}" for end in _ENDS]


def _interval(name: str, found: Interval) -> dict[str, float]:
    return dict(zip(_named(name), found, strict=True))


def _picked(row: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:  # Any: as above.
    return {name: row[name] for name in names}


def _less(value: float | None) -> float | None:
    return None if value is None else 1 - value
