"""What the report says of the policy beside other ways to act: value, parts, other tasks."""

import polars as pl

from fluoroscope.plots.chart import Axis, Bars, Chart, Panel, Reference
from fluoroscope.runs.interval_text import without_nan
from fluoroscope.runs.report import Report
from fluoroscope.studies.policy.config import EXACT
from fluoroscope.studies.policy.judging import (
    ACTIVE,
    CONTROL,
    EVERYWHERE,
    NEVER,
    ORACLE,
    POLICY,
    STATIC,
    UNIFORM,
)
from fluoroscope.studies.policy.report_findings import Findings, Row, label_of, mode_name
from fluoroscope.studies.policy.steps.evaluate import FROM_TABLE, FROM_TEXTS

_COLUMNS = ("return", "gain", "of_optimum", "behind")
_ROUND = {"paid": ".4f", "kl": ".3f", "score": ".3f", "return": ".3f", "gain": ".3f"}


def add_value(report: Report, found: Findings) -> None:
    report.section("What it is worth beside the optimum")
    aim = (
        f"A score is worth 1 - ((score - {found.config.towards:g}) / d)^2, with d the larger of "
        f"{found.config.towards:g} and {1 - found.config.towards:g}: 1 where it is as wanted."
        if found.config.towards is not None
        else "A score is worth itself."
    )
    price = found.config.learn.training.price
    report.text(
        f"{aim} The **return** is that less what acting costs ({price:g} for each action"
        + _kl_price(found)
        + "). **Gain** is over never acting; `of_optimum` is the share of what the best action of "
        "each sample gains; `behind` is by how much the policy returns more, paired over the same "
        "samples. The static action and the multiple of the most active candidate were chosen on "
        "the training side. Intervals are of 95 %, over groups; `sd_over_trainings` is how far "
        "trainings differ by their seed. A policy is told as it is sampled, and with its likeliest "
        "action alone."
    )
    if found.config.is_enumerated:
        report.text(
            "Nothing is drawn here: every action of every sample was tried, and a policy's value "
            "is a sum over what it may do."
        )
        _add_rows(report, found, FROM_TABLE, "values")
    if found.config.text_modes:
        report.subsection("In generated replies")
        report.text(
            "Here the policy chooses at every token of replies that are generated, as many to each "
            "sample as to the others and under the same luck. The best action of each reply is not "
            "known. `acting` is the share of tokens."
        )
        _add_rows(report, found, FROM_TEXTS, "values_in_replies")


def add_parts(report: Report, found: Findings) -> None:
    """By what tells samples apart: does it act where it should, and rest where it may?"""
    if len(found.parts) < 2:
        return
    report.section("Where it acts")
    report.text(
        "A static vector moves all prompts; a policy can leave alone those that need nothing. "
        "`acting` is the probability of doing anything at a prompt."
    )
    shown = found.parts[:6]
    report.figure("scores_by_part", _parts_chart(found, shown), "Mean scores, 95 % intervals.")
    frames = [
        _with_labels(found.rows(found.task, found.source, part)).select(
            pl.col("part"), "way", "n", *_ends("score"), *_ends("acting"), *_ends("gain"), "kl"
        )
        for part in found.parts
    ]
    report.table("parts", without_nan(pl.concat(frames)), "By part of the task.", _rounded(frames))


def add_others(report: Report, found: Findings) -> None:
    tasks = [task.name for task in found.config.evaluate.others]
    if not tasks:
        return
    report.section("Tasks that acting is not meant for")
    frames = []
    for task in tasks:
        rows = _with_labels(found.rows(task, FROM_TABLE)).filter(pl.col("method") != ORACLE)
        never = float(rows.filter(method=NEVER)["score"][0])
        frames.append(
            rows.with_columns(difference=pl.col("score") - never).select(
                "task", "way", "n", *_ends("score"), "difference", *_ends("acting"), "kl",
                *_counts(rows),
            )
        )  # fmt: skip
    together = pl.concat(frames, how="diagonal_relaxed")
    report.table(
        "other_tasks",
        without_nan(together),
        "Mean scores of the test sides, and how often anything is done there.",
        {"score": ".3f", "difference": ".3f", "acting": ".3f", "kl": ".3f"},
    )


def _add_rows(report: Report, found: Findings, source: str, name: str) -> None:
    rows = _with_labels(found.rows(found.task, source))
    report.figure(
        name + "_chart",
        _value_chart(rows),
        "Mean return with 95 % intervals; lines: never acting, and the optimum.",
    )
    kept = ["way", "n", "n_groups", "worth", "paid", *(c for x in _COLUMNS for c in _ends(x))]
    table = rows.select(
        *kept, *_ends("score"), *_ends("acting"), "kl", "sd_over_trainings", *_counts(rows)
    )
    empty = [column for column in table.columns if table[column].null_count() == len(table)]
    table = without_nan(table.drop(empty))
    report.table(name, table, "The test side.", _rounded([table]))
    seeds = found.values.filter(task=found.task, source=source, part=EVERYWHERE)
    seeds = seeds.filter(pl.col("seed").is_not_null())
    each = _with_labels(seeds).select(
        "way",
        "set",
        "seed",
        *_ends("return"),
        *_ends("of_optimum"),
        *_ends("acting"),
        *_counts(seeds),
    )
    empty = [column for column in each.columns if each[column].null_count() == len(each)]
    report.table(f"{name}_by_training", without_nan(each.drop(empty)), "Every training by itself.")


def _counts(rows: pl.DataFrame) -> list[str]:
    names = ("n_changed", "n_better", "n_worse", *_ends("side_effect"))
    return [name for name in names if name in rows.columns]


def _with_labels(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(way=pl.Series([label_of(row) for row in rows.iter_rows(named=True)]))


def _ends(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"


def _rounded(frames: list[pl.DataFrame]) -> dict[str, str]:
    return {name: form for name, form in _ROUND.items() if name in frames[0].columns}


_SHORT = {
    NEVER: "never",
    UNIFORM: "random",
    STATIC: "static",
    ACTIVE: "most active",
    CONTROL: "control",
    POLICY: "policy",
    ORACLE: "optimum",
}
"""Of what figures show; the policy is shown as it is sampled."""


def _short(row: Row) -> str:
    name = _SHORT[row["method"]]
    is_texts = row["mode"] not in ("", EXACT)
    return f"{name}, {mode_name(row['mode'])}" if is_texts else name


def _value_chart(rows: pl.DataFrame) -> Chart:
    rows = rows.filter(pl.col("method").is_in(list(_SHORT)))
    bars = Bars(
        "return",
        [_short(row) for row in rows.iter_rows(named=True)],
        rows["return"],
        _or(rows["return_low"], rows["return"]),
        _or(rows["return_high"], rows["return"]),
    )
    references = [
        Reference(float(rows.filter(method=name)["return"][0]))
        for name in (NEVER, ORACLE)
        if name in rows["method"].to_list()
    ]
    return Chart([Panel([bars], references=references)], y=Axis("return"))


def _parts_chart(found: Findings, parts: list[str]) -> Chart:
    """A panel for each part: never acting, static, policy."""
    panels = []
    aims = [] if found.config.towards is None else [Reference(found.config.towards, "aimed at")]
    for part in parts:
        rows = found.rows(found.task, found.source, part)
        chosen = rows.filter(pl.col("method").is_in([NEVER, STATIC, POLICY]))
        bars = Bars(
            "score",
            [_short(row) for row in chosen.iter_rows(named=True)],
            chosen["score"],
            _or(chosen["score_low"], chosen["score"]),
            _or(chosen["score_high"], chosen["score"]),
        )
        panels.append(Panel([bars], part, aims))
    return Chart(panels, y=Axis("mean score"), columns=2)


def _or(ends: pl.Series, values: pl.Series) -> pl.Series:
    """An interval that is not known is drawn as none."""
    return ends.cast(pl.Float64).fill_nan(None).fill_null(values)


def _kl_price(found: Findings) -> str:
    weight = found.config.learn.training.kl_weight
    return f", {weight:g} for a nat of KL" if weight else ""
