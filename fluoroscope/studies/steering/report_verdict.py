"""What a steering run comes to in words: the headline, and what a reader must hold against it.

Caveats follow rules, each a function of its own; none is written by hand.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from fluoroscope.core.intervals import MIN_UNITS, Interval
from fluoroscope.interventions.replies.comparing import ALL_SAMPLES
from fluoroscope.runs.interval_text import between
from fluoroscope.runs.report import Report
from fluoroscope.studies.steering.report_findings import (
    Findings,
)

FEW_GROUPS = 20
"""Groups below which an interval over them says little."""

MANY_BY_FORM = 0.5
"""Share of the better replies that only had to become readable."""


def add_verdict(report: Report, found: Findings) -> None:
    report.section("What steering does")
    report.text("\n\n".join(headline(found)))
    said = caveats(found)
    if said:
        report.text("**To be held against it**\n\n" + "\n".join(f"- {one}" for one in said))
    else:
        report.text("None of the rules that look for weaknesses has found one.")


def headline(found: Findings) -> list[str]:
    """Paragraphs with the numbers that a reader wants first."""
    row = found.result(found.main)
    if not row["strength"]:
        return [
            f"**{found.main} found nothing that helps**: its strength is 0, so the model replies "
            f"to {found.task} as it does unsteered (score {row['before']:.3f})."
        ]
    change = between(row["difference"], row["difference_low"], row["difference_high"])
    said = [
        f"**{found.main}**, at strength {row['strength']:g} (chosen on the validation side), moves "
        f"the mean score on **{found.task}** from {row['before']:.3f} to {row['after']:.3f}: "
        f"**{change}**, p = {row['p']:.2g}, on {row['n']} test samples in "
        f"{row['n_groups']} groups.",
        *_towards(found),
    ]
    if found.counts_stereotypes:
        before, after = (
            between(1 - row[when], _less(row[f"{when}_high"]), _less(row[f"{when}_low"]), "")
            for when in ("before", "after")
        )
        said.append(
            f"As a stereotype ratio (1 less the score): from {before} to {after}; 0.5 is neither "
            "for nor against the stereotype."
        )
    beside = [*_controls(found), *_ceiling(found), *_others(found)]
    return [" ".join(said), " ".join(beside)] if beside else [" ".join(said)]


def caveats(found: Findings) -> list[str]:
    rules: Sequence[Callable[[Findings], str]] = (
        _nothing_helped, _no_gain, _controls_do_as_well, _by_form, _overshoots, _lost_elsewhere,
        _costs_language, _picks_by_chance, _few_groups, _judge, _instruction_does_as_well,
    )  # fmt: skip
    return [said for said in (rule(found) for rule in rules) if said]


def gain_words(gain: Interval) -> str:
    return between(gain.value, gain.low, gain.high)


def is_above_zero(gain: Interval) -> bool:
    """Whether it is more than nothing, as far as can be told; no interval tells nothing."""
    return gain.low > 0


def distance(found: Findings, recipe: str, when: str = "after") -> float:
    """The mean distance of the parts' mean scores from what is aimed at."""
    own = _parts(found, recipe)
    return float(np.mean([abs(row[when] - (found.towards or 0.0)) for row in own]))


def _parts(found: Findings, recipe: str) -> list[dict]:
    at = (pl.col("recipe") == recipe) & (pl.col("task") == found.task)
    return found.parts.filter(at & (pl.col("category") != ALL_SAMPLES)).to_dicts()


def _towards(found: Findings) -> list[str]:
    if found.towards is None:
        return []
    gain = found.gain(found.main)
    return [
        f"More is not better here: the aim is {found.towards:g} in each part by itself. The mean "
        f"distance of the parts from it goes from {distance(found, found.main, 'before'):.3f} to "
        f"{distance(found, found.main):.3f}, a gain of **{gain_words(gain)}**. All gains below "
        "are meant like this."
    ]


def _controls(found: Findings) -> list[str]:
    said = []
    for method, names in found.draws.items():
        values = [found.gain(name).value for name in names]
        said.append(
            f"The control *{method}*, {_dose(found, method)}, gains {np.mean(values):+.3f} in the "
            f"mean of {len(names)} draws ({min(values):+.3f} to {max(values):+.3f})."
        )
    return said


def _dose(found: Findings, method: str) -> str:
    """How strong its draws are, and beside what."""
    pattern = found.pattern(method)
    strength = found.result(found.draws[method][0])["strength"]
    who = "it" if pattern == found.main else f"*{pattern}*"
    if strength == found.result(pattern)["strength"]:
        return f"as strong as {who}"
    return f"matched to {who} and at strength {strength:g}"


def _ceiling(found: Findings) -> list[str]:
    return [
        f"The ceiling (*{name}*, the direction that was planted) gains "
        f"{gain_words(found.gain(name))}."
        for name in found.named("ceiling")
    ]


def _others(found: Findings) -> list[str]:
    names = found.named("method")
    if not names:
        return []
    best = max(names, key=lambda name: found.gain(name).value)
    ahead = found.gain(found.main, best)
    told = "cannot be told apart"
    if ahead.low > 0 or ahead.high < 0:
        told = f"{'does better' if ahead.low > 0 else '**does worse**'}"
    verb = f"{found.main} {told}" + (" from it" if told.startswith("cannot") else " than that")
    return [
        f"Of {len(names)} other methods *{best}* gains most, {gain_words(found.gain(best))}: "
        f"{verb} ({gain_words(ahead)})."
    ]


def _nothing_helped(found: Findings) -> str:
    idle = [name for name in found.named("method") if not found.result(name)["strength"]]
    if not found.result(found.main)["strength"]:
        row = found.chosen.filter(pl.col("recipe") == found.main).row(0, named=True)
        return (
            f"{found.main} is judged at strength 0: {row['note'] or 'nothing admissible helped'}."
        )
    return f"Methods judged at strength 0, as nothing helped: {', '.join(idle)}." if idle else ""


def _no_gain(found: Findings) -> str:
    if not found.result(found.main)["strength"]:
        return ""
    gain = found.gain(found.main)
    if is_above_zero(gain):
        return ""
    if gain.high < 0:
        return f"On the test side {found.main} **does harm**: {gain_words(gain)}."
    return f"Whether {found.main} gains anything **cannot be told**: {gain_words(gain)}."


def _controls_do_as_well(found: Findings) -> str:
    equal = {
        method: sum(not is_above_zero(found.gain(found.main, name)) for name in names)
        for method, names in found.draws.items()
    }
    said = [
        f"{n} of {len(found.draws[method])} draws of {method}" for method, n in equal.items() if n
    ]
    if not said:
        return ""
    others = sorted({found.pattern(method) for method, n in equal.items() if n} - {found.main})
    dose = f" They are as strong as {', '.join(others)}, not as {found.main}." if others else ""
    return (
        f"**Controls do as well, as far as can be told**: {' and '.join(said)}. What is gained "
        f"need not come from what was picked.{dose}"
    )


def _by_form(found: Findings) -> str:
    row = found.result(found.main)
    n, better = row["n_better_by_form"], row["n_better"]
    if not better or n / better < MANY_BY_FORM:
        return ""
    return (
        f"{n} of the {better} replies that score higher **could not be read before**: this is a "
        "gain of form, perhaps not of knowledge."
    )


def _overshoots(found: Findings) -> str:
    """A part that is further from the aim than it was, by more than the margin."""
    if found.towards is None:
        return ""
    margin, aim = found.config.evaluate.margin, found.towards
    far = [
        f"{row['category']} ({row['before']:.3f} to {row['after']:.3f})"
        for row in _parts(found, found.main)
        if abs(row["after"] - aim) > abs(row["before"] - aim) + margin
    ]
    return f"Further from {aim:g} than before: {', '.join(far)}." if far else ""


def _lost_elsewhere(found: Findings) -> str:
    margin = found.config.evaluate.margin
    lost, unclear = [], []
    for task in found.config.evaluate.others:
        row = found.result(found.main, task.name)
        low, high = _ends(row, "difference")
        change = f"{task.name} ({between(row['difference'], low, high)})"
        if high < -margin:
            lost.append(change)
        elif not low >= -margin:
            unclear.append(change)
    said = f"Lost by more than {margin:g}: {', '.join(lost)}. " if lost else ""
    if unclear:
        said += (
            f"Whether more than {margin:g} is lost elsewhere **cannot be told** of "
            f"{', '.join(unclear)}."
        )
    return said.strip()


def _costs_language(found: Findings) -> str:
    row, most = found.result(found.main), found.config.strength.guard.max_perplexity_ratio
    low, _ = _ends(row, "perplexity_ratio")
    if not low > most:
        return ""
    return (
        f"The perplexity of test texts rises {row['perplexity_ratio']:.2f} times, above the "
        f"{most:g} that was allowed on the validation side."
    )


def _picks_by_chance(found: Findings) -> str:
    own = found.picks.filter((pl.col("recipe") == found.main) & pl.col("latent").is_not_null())
    alpha = found.config.collect.alpha
    chance = own.filter(pl.col("q").is_null() | pl.col("q").is_nan() | (pl.col("q") >= alpha))
    if not len(chance):
        return ""
    names = [f"{p}:{j}" for p, j in zip(chance["hook_point"], chance["latent"], strict=True)]
    return (
        f"{len(chance)} of its {len(own)} latents **may be chance** (q not below {alpha:g}): "
        f"{', '.join(names)}."
    )


def _few_groups(found: Findings) -> str:
    n = found.result(found.main)["n_groups"]
    if n >= FEW_GROUPS:
        return ""
    none = ", too few for an interval" if n < MIN_UNITS else ""
    return f"The test side has {n} groups{none}; other groups may say something else."


def _judge(found: Findings) -> str:
    return found.tasks.get(found.task, {}).get("judge", "")


def _instruction_does_as_well(found: Findings) -> str:
    """To ask costs nothing but tokens."""
    equal = [n for n in found.named("prompt") if not is_above_zero(found.gain(found.main, n))]
    return f"To ask for it in words ({', '.join(equal)}) does as well." if equal else ""


def _ends(row: dict, name: str) -> tuple[float, float]:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return (math.nan if low is None else low), (math.nan if high is None else high)


def _less(value: float | None) -> float | None:
    return None if value is None else 1 - value
