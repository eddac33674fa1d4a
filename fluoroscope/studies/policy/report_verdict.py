"""What a policy run comes to in words: the headline, and what a reader must hold against it.

Caveats follow rules, each a function of its own; none is written by hand.
"""

from collections.abc import Callable, Sequence

from fluoroscope.core.intervals import MIN_UNITS
from fluoroscope.runs.interval_text import between
from fluoroscope.runs.report import Report
from fluoroscope.studies.policy.config import EXACT
from fluoroscope.studies.policy.judging import (
    ACTIVE,
    CONTROL,
    NEVER,
    ORACLE,
    POLICY,
    STATIC,
)
from fluoroscope.studies.policy.report_findings import Findings, Row, mode_name
from fluoroscope.studies.policy.steps.evaluate import FROM_TEXTS

FEW_GROUPS = 20
"""Groups below which an interval over them says little."""

_RESTS = 0.05
"""A part of whose prompts the policy acts at fewer is one that it leaves alone."""


_MOST = 0.5
"""Of the gain, from which random latents get most of it."""


def add_verdict(report: Report, found: Findings) -> None:
    report.section("What the policy learnt")
    report.text("\n\n".join(one for one in headline(found) if one))
    said = caveats(found)
    if said:
        report.text("**To be held against it**\n\n" + "\n".join(f"- {one}" for one in said))
    else:
        report.text("None of the rules that look for weaknesses has found one.")


def headline(found: Findings) -> list[str]:
    """Paragraphs with the numbers that a reader wants first."""
    row, never = found.known(POLICY), found.known(NEVER)
    n = found.config.learn.seeds
    price = found.config.learn.training.price
    first = (
        f"Trained by {_by(found)} ({n} trainings, whose mean is told), the policy gains "
        f"**{told(row, 'gain')}** over never acting on the {row['n']} test samples of "
        f"**{found.task}** ({row['n_groups']} groups): its return is {row['return']:.3f} beside "
        f"{never['return']:.3f}, a price of {price:g} for each action paid."
    )
    if row["of_optimum"] is not None:
        first += (
            f" That is **{percent(row, 'of_optimum')}** of what the best action of each sample "
            "would gain, which no policy can exceed."
        )
    return [first, _where(found), _beside(found), _texts(found)]


def _by(found: Findings) -> str:
    if found.main_mode == EXACT:
        return "the exact gradient over all actions of every training sample"
    return f"{mode_name(found.main_mode)} on generated replies"


def _where(found: Findings) -> str:
    """On which parts it acts, and what becomes of them, beside the best static action."""
    static = found.row(STATIC)
    said = []
    for part in found.parts[:4]:
        mine, never = found.known(POLICY, part), found.known(NEVER, part)
        rest = ""
        if static is not None:
            held = found.known(STATIC, part)
            rest = f"; the best static action moves it to {held['score']:.3f}"
        said.append(
            f"*{part}* (n = {mine['n']}): acts at {percent(mine, 'acting')}, mean score "
            f"{never['score']:.3f} -> {told(mine, 'score', '')}{rest}."
        )
    if not said:
        return ""
    aim = (
        "" if found.config.towards is None else f" The score aimed at is {found.config.towards:g}."
    )
    return f"Where it acts, and what becomes of the score:{aim}\n\n" + "\n".join(
        f"- {one}" for one in said
    )


def _beside(found: Findings) -> str:
    said = []
    for name, what in (
        (STATIC, "the best action that never rests"),
        (ACTIVE, "always taking the most active candidate, where one is active"),
        (CONTROL, "a policy trained alike on random latents"),
    ):
        row = found.row(name)
        if row is None:
            continue
        share = "" if row["of_optimum"] is None else f" ({percent(row, 'of_optimum')})"
        said.append(f"{what} gains {told(row, 'gain')}{share}")
    return f"Beside it, {'; '.join(said)}." if said else ""


def _texts(found: Findings) -> str:
    """What the policies that were trained by texts get in replies."""
    said = []
    for mode in found.config.text_modes:
        row = found.row(POLICY, mode=mode, source=FROM_TEXTS)
        static = found.row(STATIC, source=FROM_TEXTS)
        if row is None or static is None:
            continue
        parts = ", ".join(
            f"*{part}* {never['score']:.3f} -> {mine['score']:.3f}, acting at "
            f"{mine['acting']:.0%} of tokens"
            for part in found.parts[:4]
            if (mine := found.row(POLICY, part, mode, source=FROM_TEXTS))
            and (never := found.row(NEVER, part, source=FROM_TEXTS))
        )
        said.append(
            f"Trained by {mode_name(mode)} on generated replies, which show a policy only what "
            f"came of what it did, it gains {told(row, 'gain')} in {row['n']} x "
            f"{found.config.evaluate.replies} generated replies (static: {told(static, 'gain')}). "
            f"Mean scores: {parts}."
        )
    return " ".join(said)


def caveats(found: Findings) -> list[str]:
    rules: Sequence[Callable[[Findings], str | None]] = (
        _gains_nothing,
        _as_good(STATIC, "Holding the best action throughout"),
        _as_good(ACTIVE, "Taking the most active candidate, which nothing is learnt for,"),
        _as_good(CONTROL, "A policy on random latents"),
        _what_matters_little,
        _acts_in_vain,
        _others_lose,
        _acts_elsewhere,
        _texts_gain_nothing,
        _few_groups,
        _unscored,
    )
    return [said for rule in rules if (said := rule(found)) is not None]


def _gains_nothing(found: Findings) -> str | None:
    row = found.known(POLICY)
    if row["gain_low"] is not None and row["gain_low"] > 0:
        return None
    return f"That the policy gains anything over never acting is not shown: {told(row, 'gain')}."


def _as_good(method: str, what: str) -> Callable[[Findings], str | None]:
    def rule(found: Findings) -> str | None:
        row = found.row(method)
        if row is None or (row["behind_low"] is not None and row["behind_low"] > 0):
            return None
        if row["behind_low"] is None and row["behind"] > 0:
            return f"Whether the policy is ahead of it cannot be told: {what.lower()}."
        return (
            f"{what} is not shown to be worse: it returns {told(row, 'behind')} less than the "
            "policy."
        )

    return rule


def _what_matters_little(found: Findings) -> str | None:
    """Where random latents get most of it, the gain is of when and not of what."""
    mine, row = found.known(POLICY), found.row(CONTROL)
    if row is None or mine["gain"] <= 0 or row["gain"] < _MOST * mine["gain"]:
        return None
    share = row["gain"] / mine["gain"]
    return (
        f"A policy over random latents of the same hook points gets {share:.0%} of this gain: most "
        "of it comes of learning when to act, and less of which latents there are to choose from."
    )


def _acts_in_vain(found: Findings) -> str | None:
    """Where the optimum would rest."""
    named = []
    for mode in found.config.modes:
        for part in found.parts:
            mine, best = found.row(POLICY, part, mode), found.row(ORACLE, part)
            if mine and best and best["acting"] < _RESTS <= mine["acting"]:
                named.append(f"{part} (by the {mode_name(mode)}: {mine['acting']:.0%})")
    if not named:
        return None
    return f"It acts where the best would rest: {', '.join(named)}."


def _others_lose(found: Findings) -> str | None:
    lost = []
    for task in found.config.evaluate.others:
        mine, never = (found.row(name, task=task.name) for name in (POLICY, NEVER))
        if mine and never and mine["score"] < never["score"] - 0.02:
            lost.append(f"{task.name} ({never['score']:.3f} -> {mine['score']:.3f})")
    return f"Other tasks lose more than 0.02: {', '.join(lost)}." if lost else None


def _acts_elsewhere(found: Findings) -> str | None:
    acted = []
    for task in found.config.evaluate.others:
        row = found.row(POLICY, task=task.name)
        if row and row["acting"] >= _RESTS:
            acted.append(f"{task.name} ({row['acting']:.0%} of prompts)")
    if not acted:
        return None
    return (
        f"It acts on other tasks as well, of which it has learnt nothing: {', '.join(acted)}. When "
        "to rest is learnt for the prompts of the task alone."
    )


def _texts_gain_nothing(found: Findings) -> str | None:
    if not found.config.is_enumerated:
        return None
    for mode in found.config.text_modes:
        row = found.row(POLICY, mode=mode, source=FROM_TEXTS)
        if row is not None and not (row["gain_low"] is not None and row["gain_low"] > 0):
            return (
                f"That the policy trained by {mode_name(mode)} gains anything in generated replies "
                f"is not shown: {told(row, 'gain')}; drawn replies tell less than probabilities, "
                "and there were few."
            )
    return None


def _few_groups(found: Findings) -> str | None:
    n = found.known(NEVER)["n_groups"]
    if n >= FEW_GROUPS:
        return None
    none = ", too few for any interval" if n < MIN_UNITS else ""
    return f"The test side has {n} groups of samples{none}."


def _unscored(found: Findings) -> str | None:
    if found.config.is_enumerated:
        return None
    return "Nobody knows the best action of each sample of this task, so there is no upper bound."


def told(row: Row, name: str, sign: str = "+") -> str:
    return between(row[name], row[f"{name}_low"], row[f"{name}_high"], sign)


def percent(row: Row, name: str) -> str:
    """`93.1 % [91.0, 95.2]`."""
    value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    if low is None or high is None:
        return f"{100 * value:.1f} %"
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
