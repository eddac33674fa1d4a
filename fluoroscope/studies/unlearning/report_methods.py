"""What the report says of plans beside each other: forgetting, keeping, side effects, people."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from fluoroscope.interventions.replies.comparing import shift_of
from fluoroscope.plots.chart import Axis, Bars, Chart, Mark, Panel, Reference, Scatter
from fluoroscope.runs.interval_text import without_nan
from fluoroscope.runs.report import Report
from fluoroscope.studies.unlearning.judging import EVERY_CATEGORY
from fluoroscope.studies.unlearning.plans import UNTREATED_NAME, Role
from fluoroscope.studies.unlearning.report_findings import Findings

_ROLES: Mapping[Role, str] = {
    "untreated": "untreated",
    "main": "main",
    "method": "other clamping",
    "control": "controls",
    "fine-tuned": "fine-tuned",
}
_ENDS = ("", "_low", "_high")


def add_methods(report: Report, found: Findings) -> None:
    report.section("Methods beside each other")
    report.text(
        "`conditional` clamps in texts that the learned detector flags, `share` in those that "
        "DSG's detector flags, `static` in all; each at the settings that forget most and still "
        "keep the others on the validation side. `everywhere` is the main clamp in every text. "
        "Controls: `zero` sets the same latents to 0; `random` clamps others that are as frequent, "
        "and shows what any clamp of this size does. Fine-tuning learns from the same texts. "
        "Intervals are of 95 %, over people (or documents)."
    )
    report.figure("forgetting", _plane(found), _plane_caption(found))
    report.figure(
        "accuracies" if found.has_samples else "ratios", _bars(found), _bars_caption(found)
    )
    table = methods_table(found)
    report.table("methods", without_nan(table), "Held-out questions and texts.", _even(table))
    if found.has_samples:
        _add_categories(report, found)


def methods_table(found: Findings) -> pl.DataFrame:
    rows = []
    for name, plan in found.plans.items():
        row: dict[str, Any] = {"plan": name, "role": plan.role}  # Any: values of a table.
        settings = found.settings.get(plan.settings_of)
        if settings is not None:
            row |= {
                "at": ", ".join(settings["hook_points"]),
                "latents": settings["n"],
                "set_to": 0.0 if plan.is_zero else -settings["strength"],
            }
        for side in ("forget", "retain"):
            asked, change = found.of(name, side), found.change(name, side)
            if asked is not None:
                row |= {f"{side}{end}": asked[f"accuracy{end}"] for end in _ENDS}
                row[f"{side}_verdict"] = asked["verdict"]
            if change is not None:
                row[f"{side}_flagged"] = change["flagged"]
            if not found.has_samples:
                moved = found.moved(name, side)
                row |= {f"{side}_ratio{end}": moved[f"perplexity_ratio{end}"] for end in _ENDS}
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(
        pl.col(pl.Null).cast(pl.Float64)
    )


def add_contrasts(report: Report, found: Findings) -> None:
    if not len(found.contrasts):
        return
    report.section("The main one against the others")
    report.text("\n\n".join(f"Against *{name}*: {said}" for name, said in found.statement.items()))
    columns = [
        "against", "set", "n", "n_groups", *(f"after{end}" for end in _ENDS),
        *(f"before{end}" for end in _ENDS), *(f"difference{end}" for end in _ENDS), "p",
    ]  # fmt: skip
    names = {f"after{end}": f"main{end}" for end in _ENDS}
    names |= {f"before{end}": f"other{end}" for end in _ENDS}
    table = found.contrasts.select(columns).rename(names)
    report.table(
        "contrasts",
        without_nan(table),
        "Main minus other, paired question by question. Below 0 on `forget` it forgets more, above "
        "0 on `retain` it keeps more.",
        _even(table),
    )


def add_side_effects(report: Report, found: Findings) -> None:
    report.section("Side effects")
    margin = found.config.evaluate.margin
    others = [task.name for task in found.config.evaluate.others]
    if others:
        report.text(
            f"Tasks that nothing was to change. A task is **within** if the whole interval of its "
            f"difference is within {margin:g}, **beyond** if none of it is, else it is **open**."
        )
        table = other_tasks(found, others)
        report.table("other_tasks", without_nan(table), "Treated minus untreated.", _even(table))
    report.text(
        "**KL** (nats a token) from the untreated model's predictions, and perplexity over what it "
        "was, on held-out texts. On texts to forget a change is what is wanted."
    )
    names = [f"{key}{end}" for key in ("kl", "perplexity_ratio") for end in _ENDS]
    table = found.drift.select("plan", "texts", *names, "n_texts", "n_positions")
    report.table(
        "drift", without_nan(table), "Held-out texts, each treated as its prompt asks for."
    )


def other_tasks(found: Findings, others: Sequence[str]) -> pl.DataFrame:
    margin, rows = found.config.evaluate.margin, []
    for name in found.plans:
        for task in others:
            row = found.change(name, task)
            if row is None or name == UNTREATED_NAME:
                continue
            keys = ["before", "after", *(f"difference{end}" for end in _ENDS), "n", "n_groups"]
            low, high = row["difference_low"], row["difference_high"]
            rows.append(
                {
                    "plan": name,
                    "task": task,
                    **{key: row[key] for key in keys},
                    "flagged": row["flagged"],
                    "shift": shift_of(low, high, margin),
                }
            )
    return pl.DataFrame(rows, infer_schema_length=None)


def add_detectors(report: Report, found: Findings) -> None:
    report.section("What detectors flag")
    text = (
        "The learned detector is a logistic regression on the largest value of every latent of "
        f"{len(found.config.points)} layers in the prompt; its threshold is the "
        f"{found.config.clamp.percentile:g}th percentile of prompts to keep, each scored by a "
        "detector that learnt from other wordings."
    )
    if found.config.people is not None:
        text += (
            " To keep: the other well known people, people of whom little or nothing is known, and "
            "texts about other things."
        )
    report.text(text)
    report.table("detector", without_nan(found.flags), "The learned detector.", _even(found.flags))
    if not len(found.results):
        return
    own = [name for name, plan in found.plans.items() if plan.where == "share"]
    shown = found.results.filter(pl.col("plan").is_in([found.main, *own]))
    table = shown.select("plan", "set", "n", "n_groups", *(f"flagged{end}" for end in _ENDS))
    report.table(
        "flagged", without_nan(table), "Questions of each set that are treated.", _even(table)
    )


def add_people(report: Report, found: Findings) -> None:
    if not found.has_samples:
        return
    report.section("Person by person")
    shown = [UNTREATED_NAME, found.main, *found.named("fine-tuned")]
    static = [name for name in found.plans if name.startswith(("static-", "everywhere"))]
    columns = [*shown[:2], *static, *shown[2:]]
    wide = found.people.pivot("plan", index=["set", "group", "n"], values="accuracy")
    flagged = found.people.filter(pl.col("plan") == found.main).select("set", "group", "flagged")
    wide = wide.select("set", "group", "n", *columns).join(
        flagged, on=["set", "group"], how="left", maintain_order="left"
    )
    report.table(
        "people",
        wide.sort("set", "group").rename({"group": "person", "n": "questions"}),
        "Accuracy of each person's questions, and the share of them that the detector flags.",
    )


def _add_categories(report: Report, found: Findings) -> None:
    table = found.accuracy.filter(pl.col("category") != EVERY_CATEGORY)
    if not len(table):
        return
    shown = [UNTREATED_NAME, found.main, *found.named("fine-tuned")]
    kept = table.filter(pl.col("plan").is_in([*shown, "everywhere"]))
    report.table(
        "relations", without_nan(kept), "By what is asked, beside its own chance.", _even(kept)
    )


def _plane(found: Findings) -> Chart:
    marks: list[Mark] = []
    for role, label in _ROLES.items():
        names = found.named(role)
        if names:
            x = [found.keeping(name).value for name in names]
            y = [found.forgetting(name).value for name in names]
            marks.append(Scatter(label, x, y, names))
    if not found.has_samples:
        axes = (Axis("perplexity of texts to keep, over before", log=True),
                Axis("perplexity of texts to forget, over before", log=True))  # fmt: skip
        return Chart([Panel(marks, references=[Reference(1.0, "as before")])], *axes)
    by_chance = found.sets["samples"]["forget"]["chance"]
    return Chart(
        [Panel(marks, references=[Reference(by_chance, "chance")])],
        Axis("accuracy on people to keep", limits=(0, 1.05)),
        Axis("accuracy on people to forget", limits=(0, 1.05)),
    )


def _plane_caption(found: Findings) -> str:
    corner = (
        "Wanted is the lower right corner: at chance on the ones, right on the others."
        if found.has_samples
        else "Wanted is the upper left corner: unlikely texts to forget, the others as before."
    )
    return f"A point a plan, controls draw by draw. {corner}"


def _bars(found: Findings) -> Chart:
    names = [name for name, plan in found.plans.items() if not plan.draw]
    bars, lines = [], []
    for label, read in (("to forget", found.forgetting), ("to keep", found.keeping)):
        shown: list[tuple[str, float, float, float]] = []
        for name in names:
            one = read(name)
            low, high = (one.value if np.isnan(end) else end for end in (one.low, one.high))
            shown.append((name, one.value, low, high))
        for method, draws in found.draws.items():
            values = [read(name).value for name in draws]
            shown.append(
                (f"{method} ({len(draws)})", float(np.mean(values)), min(values), max(values))
            )
        labels = [one[0] for one in shown]
        value, low, high = ([one[place] for one in shown] for place in (1, 2, 3))
        bars.append(Bars(label, labels, value, low, high))
    if found.has_samples:
        lines = [Reference(found.sets["samples"]["forget"]["chance"], "chance")]
        return Chart([Panel(bars, references=lines)], y=Axis("accuracy", limits=(0, 1.05)))
    lines = [Reference(1.0, "as before")]
    return Chart([Panel(bars, references=lines)], y=Axis("perplexity over before", log=True))


def _bars_caption(found: Findings) -> str:
    what = "Accuracy" if found.has_samples else "Perplexity of held-out texts over what it was"
    return (
        f"{what} with 95 % intervals; random latents as the mean of their draws, from the least to "
        "the most."
    )


def _even(table: pl.DataFrame) -> dict[str, str]:
    """Shares and differences with three decimals, p as it is."""
    shares = {name for name, kind in table.schema.items() if kind.is_float()}
    return {name: ".2g" if name == "p" else ".3f" for name in table.columns if name in shares}
