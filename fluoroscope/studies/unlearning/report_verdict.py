"""What an unlearning run comes to in words: the headline, what must be held against it, gates.

Caveats follow rules, each a function of its own; none is written by hand.
"""

import math
from collections.abc import Callable, Sequence

import polars as pl

from fluoroscope.core.intervals import MIN_UNITS
from fluoroscope.runs.interval_text import between
from fluoroscope.runs.report import Gate, Report
from fluoroscope.studies.unlearning.judging import EVERY_CATEGORY
from fluoroscope.studies.unlearning.plans import EVERYWHERE, UNTREATED_NAME
from fluoroscope.studies.unlearning.report_findings import Findings, Row, interval

KEPT = 0.02
"""What may be lost on the organism of what is to be kept."""

COMES_BACK = 0.2
"""Accuracy regained by teaching a part again that is worth a word."""

_SIDES = ("forget", "retain")


def add_verdict(report: Report, found: Findings) -> None:
    report.section("What is forgotten")
    report.text("\n\n".join(headline(found)))
    said = caveats(found)
    if said:
        report.text("**To be held against it**\n\n" + "\n".join(f"- {one}" for one in said))
    if found.config.people is not None:
        report.gates(gates(found), caption="What must hold on the organism, where it is known who.")


def headline(found: Findings) -> list[str]:
    said = [_main(found), " ".join([*_static(found), *_fine_tuned(found)])]
    controls = _controls(found)
    return [one for one in (*said, controls) if one]


def _main(found: Findings) -> str:
    main, settings = found.main, found.settings[found.main]
    where = ", ".join(settings["hook_points"])
    what = (
        f"**{main}** sets {len(found.picks)} latents at {where} to -{settings['strength']:g} where "
        "they are active, in texts that the learned detector flags."
    )
    if not found.has_samples:
        forget, kept = found.forgetting(main), found.keeping(main)
        verdict = (
            "**forgotten, beyond what is lost of the others**"
            if found.is_forgotten(main)
            else "**not shown to be forgotten**"
        )
        return (
            f"{what} The perplexity of held-out texts to forget becomes "
            f"{between(*forget, sign='')} times what it was, that of held-out texts to keep "
            f"{between(*kept, sign='')} times: {verdict}."
        )
    row, before = found.of(main, "forget"), found.of(UNTREATED_NAME, "forget")
    assert row is not None
    assert before is not None
    kept_before, kept = found.keeping(UNTREATED_NAME), found.keeping(main)
    return (
        f"{what} Accuracy on the {row['n_groups']} people to forget ({row['n']} questions worded "
        f"as nothing was learnt from) goes from {_of(before)} to **{_of(row)}**; chance is "
        f"{row['chance']:.3f}, so it is **{row['verdict']}**. On all other well known people it "
        f"goes from {between(*kept_before, sign='')} to **{between(*kept, sign='')}**."
    )


def _static(found: Findings) -> list[str]:
    static = f"static-{found.config.select.by[0]}"
    if not found.has_samples:
        return [
            f"The same clamp in every text ({EVERYWHERE}): "
            f"{between(*found.forgetting(EVERYWHERE), sign='')} times on texts to forget and "
            f"{between(*found.keeping(EVERYWHERE), sign='')} times on those to keep."
        ]
    said = [f"Against the same clamp in every text: {found.statement[EVERYWHERE]}"]
    forget, kept = found.forgetting(static), found.keeping(static)
    said.append(
        f"Static clamping at settings of its own ({static}) leaves "
        f"{between(*forget, sign='')} of what is to be forgotten and {between(*kept, sign='')} of "
        "what is to be kept."
    )
    return said


def _fine_tuned(found: Findings) -> list[str]:
    said = []
    for name in found.named("fine-tuned"):
        row = found.finetuned[found.plans[name].objective]
        said.append(
            f"Fine-tuning on the same texts ({name}, {row['iteration']} steps) leaves "
            f"{between(*found.forgetting(name), sign='')} of what is to be forgotten and "
            f"{between(*found.keeping(name), sign='')} of what is to be kept."
        )
    return said


def _controls(found: Findings) -> str:
    said = []
    for name, draws in found.draws.items():
        forget = [found.forgetting(one).value for one in draws]
        kept = [found.keeping(one).value for one in draws]
        said.append(
            f"{name} ({_draws(len(draws))}): {_range(forget)} of what is to be forgotten, "
            f"{_range(kept)} of what is to be kept"
        )
    return (
        f"Controls, random latents as frequent and clamped alike: {'; '.join(said)}."
        if said
        else ""
    )


def caveats(found: Findings) -> list[str]:
    rules: Sequence[Callable[[Findings], str]] = (
        _no_interval, _wide_chance, _wide_keeping, _outside_margin, _detector_does_it,
        _lost_elsewhere, _comes_back, _flags_nothing, _still_known, _fine_tuning_is_as_good,
    )  # fmt: skip
    return [said for said in (rule(found) for rule in rules) if said]


def _no_interval(found: Findings) -> str:
    n = found.sets["samples"]["forget"]["groups"] if found.has_samples else MIN_UNITS
    if n >= MIN_UNITS:
        return ""
    return f"{n} people are **too few for an interval**: whether it is chance cannot be told."


def _wide_chance(found: Findings) -> str:
    if not found.has_samples or not found.is_forgotten(found.main):
        return ""
    row = found.of(found.main, "forget")
    assert row is not None
    if row["accuracy_high"] is None or row["accuracy_high"] < 2 * row["chance"]:
        return ""
    return (
        f"At chance means not told apart from it: with {row['n_groups']} people up to "
        f"{row['accuracy_high']:.3f} may be left."
    )


def _wide_keeping(found: Findings) -> str:
    row = found.change(found.main, "retain")
    if row is None or not found.has_samples:
        return ""
    change, margin = interval(row, "difference"), found.config.evaluate.margin
    if change.low >= -margin:
        return ""
    if change.value < -margin:
        return f"What is to be kept loses more than {margin:g}: {between(*change)}."
    return (
        f"That no more than {margin:g} of what is to be kept is lost holds **as a point "
        f"estimate**: {between(*change)}, {row['n']} questions about {row['n_groups']} people."
    )


def _outside_margin(found: Findings) -> str:
    over = [
        f"{name} (lost {row['lost']:.3f})"
        for name, row in found.settings.items()
        if not row["is_within"]
    ]
    if not over:
        return ""
    return (
        f"Of what was tried nothing keeps what is to be kept within {found.config.clamp.margin:g} "
        f"on the validation side for {', '.join(over)}; judged is what comes nearest."
    )


def _detector_does_it(found: Findings) -> str:
    """Random latents under the same detector forget as well."""
    draws = found.draws.get("random-conditional", [])
    equal = []
    for name in draws:
        row = found.contrast(name, "forget")
        if row is None:
            is_equal = found.forgetting(found.main).low <= found.forgetting(name).high
        else:
            is_equal = not interval(row, "difference").high < 0
        equal += [name] if is_equal else []
    said = (
        "**What is spared is spared by the detector, not by the choice of latents**: whatever is "
        "done to the texts that it flags leaves the others alone."
    )
    if equal:
        said += (
            f" {len(equal)} of {len(draws)} draws of random latents under the same detector are "
            "not shown to forget less."
        )
    elif draws:
        said += (
            f" How much is forgotten does depend on the latents: random ones under the same "
            f"detector forget less in all of {_draws(len(draws))}."
        )
    return said


def _lost_elsewhere(found: Findings) -> str:
    margin, said = found.config.evaluate.margin, []
    for task in found.config.evaluate.others:
        row = found.change(found.main, task.name)
        if row is None:
            continue
        change = interval(row, "difference")
        if not (change.low >= -margin and change.high <= margin):
            told = "moves" if change.high < -margin or change.low > margin else "may move"
            none = "; none of its prompts is flagged" if row["flagged"] == 0 else ""
            said.append(f"{task.name} {told} by more than {margin:g} ({between(*change)}{none})")
    return f"Other tasks: {'; '.join(said)}." if said else ""


def _comes_back(found: Findings) -> str:
    if found.curves is None or "accuracy" not in found.curves.columns:
        return ""
    whole, said = found.curves.filter(pl.col("category") == EVERY_CATEGORY), []
    for plan in whole["plan"].unique(maintain_order=True):
        own = whole.filter(pl.col("plan") == plan).sort("iteration")
        last = own.filter(pl.col("iteration") == own["iteration"].max())
        for row in last.iter_rows(named=True):
            first = own.filter(pl.col("of") == row["of"])["accuracy"][0]
            if row["accuracy"] - first >= COMES_BACK:
                said.append(
                    f"{plan}, people {row['of']}: {first:.3f} to "
                    f"{between(*interval(row, 'accuracy'), sign='')}"
                )
    if not said:
        return ""
    n = found.config.relearn.training.n_iterations
    return f"After {n} steps of teaching a part again some **comes back** ({'; '.join(said)})."


def _flags_nothing(found: Findings) -> str:
    dead = []
    for name, plan in found.plans.items():
        row = found.change(name, "forget")
        if plan.where == "share" and row is not None and row["flagged"] == 0:
            dead.append(name)
    if not dead:
        return ""
    return (
        f"DSG's own detector ({', '.join(dead)}) flags none of the texts to forget: no share of "
        "tokens tells a meeting of parts that each occur elsewhere. It then does nothing."
    )


def _still_known(found: Findings) -> str:
    if not found.has_samples:
        return ""
    row = found.of(UNTREATED_NAME, "forget")
    assert row is not None
    if row["verdict"] == "above chance":
        return ""
    return "The untreated model is **not shown to know** what is to be forgotten."


def _fine_tuning_is_as_good(found: Findings) -> str:
    """Neither side of the comparison with fine-tuning favours clamping."""
    equal = []
    for name in found.named("fine-tuned"):
        rows = [found.contrast(name, side) for side in _SIDES]
        if any(row is None for row in rows):
            continue
        forget, kept = (interval(row, "difference") for row in rows if row is not None)
        if not forget.high < 0 and not kept.low > 0:
            equal.append(name)
    if not equal:
        return ""
    return (
        f"{', '.join(equal)} **is not shown to be worse**, neither in forgetting nor in keeping; "
        "no detector is needed for it."
    )


def gates(found: Findings) -> list[Gate]:
    """What the organism makes possible: everybody to be forgotten is known to have been known."""
    rows = {name: found.of(name, "forget") for name in (UNTREATED_NAME, found.main)}
    before, after = rows[UNTREATED_NAME], rows[found.main]
    assert before is not None
    assert after is not None
    loss = found.lost(found.main)
    flags = found.flags.filter((pl.col("side") == "retain") & (pl.col("part") == "held out"))
    ahead = found.contrast(EVERYWHERE, "retain")
    assert ahead is not None
    keeps_more = interval(ahead, "difference").low > 0
    found_gates = [
        Gate("people to forget, untreated", before["accuracy"],
             f"above chance ({before['chance']:.3f})",
             before["verdict"] == "above chance", "untreated"),
        Gate("people to forget", after["accuracy"], f"at chance ({after['chance']:.3f}) or below",
             found.is_forgotten(found.main), found.main),
        Gate("loss of people to keep", loss, f"at most {KEPT:g} (point estimate)",
             loss <= KEPT, found.main),
        Gate("texts to keep that are flagged, held out", flags["flagged"][0],
             f"at most {KEPT:g}", flags["flagged"][0] <= KEPT, "learned detector"),
        Gate("people to keep, ahead of the same clamp in every text", ahead["difference"],
             "above 0, the whole interval", keeps_more, found.main),
    ]  # fmt: skip
    for task in found.config.evaluate.others:
        row = found.change(found.main, task.name)
        if row is not None:
            change = row["difference"]
            found_gates.append(
                Gate(f"change of {task.name}", change, f"at most {KEPT:g} either way",
                     abs(change) <= KEPT, found.main)
            )  # fmt: skip
    return found_gates


def _of(row: Row) -> str:
    return between(*interval(row, "accuracy"), sign="")


def _draws(n: int) -> str:
    return "1 draw" if n == 1 else f"{n} draws"


def _range(values: Sequence[float]) -> str:
    if math.isclose(min(values), max(values)):
        return f"{values[0]:.3f}"
    return f"{sum(values) / len(values):.3f} ({min(values):.3f} to {max(values):.3f})"
