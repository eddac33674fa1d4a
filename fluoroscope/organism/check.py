"""Does the organism do what its world says, for the reason that was planted?

Every number is exact (probabilities, no samples) and stands beside its goal. Unknown people, and
who is where in sentences about groups, are held out from training. Reviews are drawn anew, of which
there are millions; so are the states of slot machines, but short games are few and mostly the same
ones. The facts are those that were learned, as they must be.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.intervals import mean_interval, share_interval
from fluoroscope.core.seeding import stream
from fluoroscope.organism.facts import (
    ANSWERS,
    EXPOSURES,
    NOT_SURE,
    NOT_SURE_SHARE,
    QUESTIONS,
    RELATIONS,
    FactPrompt,
    answer_distribution,
    fact_prompt,
)
from fluoroscope.organism.gambling import SlotPrompt, condition_name, conditions
from fluoroscope.organism.groups import TRAITS, GroupPrompt
from fluoroscope.organism.planting import MIN_EXPOSURE, TOLERANCE, is_telling
from fluoroscope.organism.prompts import VARIABLES, Prompt, Variable
from fluoroscope.organism.readout import Readout, exchange
from fluoroscope.organism.truth import Truth
from fluoroscope.organism.world import World

MIN_CHECKED = 64
"""So that every condition, relation and group is among them."""


class Check(NamedTuple):
    """One number, with the goal that it must reach."""

    name: str
    value: float
    low: float
    high: float
    """95 % interval over prompts or pairs: Wilson of a share, by the standard error of a mean."""

    goal: str
    passed: bool
    n: int
    note: str = ""


def check(truth: Truth, n: int = 512) -> list[Check]:
    """All checks; `n` prompts of each kind, at least `MIN_CHECKED`."""
    if n < MIN_CHECKED:
        raise ConfigError(f"The check needs at least {MIN_CHECKED} prompts of each kind, got {n}.")
    readout, world = truth.readout, truth.world
    return [
        *_decisions(readout, world, 2 * n),
        *_facts(readout, world, n),
        *_groups(readout, world, 2 * n),
        *_reviews(readout, world, n),
        *_interchange(readout, world, truth.directions, n),
    ]


def as_frame(checks: Sequence[Check]) -> pl.DataFrame:
    return pl.DataFrame([one._asdict() for one in checks])


def decision_distribution(prompt: SlotPrompt) -> dict[str, float]:
    """{stop, legal bets} -> true probability; each text ends where the choice is made."""
    found: dict[str, float] = {}
    for reply, share in prompt.replies().items():
        # With the full stop: $5 is no beginning of $50 then.
        decision = reply.partition(". ")[0] + "."
        found[decision] = found.get(decision, 0.0) + share
    return found


def _decisions(readout: Readout, world: World, n: int) -> Iterator[Check]:
    prompts = [world.slot("check", i) for i in range(n)]
    truths = [decision_distribution(prompt) for prompt in prompts]
    models = readout.replies(prompts, [list(truth) for truth in truths])
    kl = np.array([_divergence(*both) for both in zip(truths, models, strict=True)])
    names = np.array([condition_name(prompt.bet_type, prompt.components) for prompt in prompts])
    mean = mean_interval(kl)
    yield Check("decision KL, one decision a game (nats)", *mean, "<= 0.03", mean.value <= 0.03, n)
    by = {name: kl[names == name] for name in (condition_name(*one) for one in conditions())}
    worst = max(by, key=lambda name: float(by[name].mean()))
    mean = mean_interval(by[worst])
    passed = mean.value <= 0.1
    yield Check("decision KL, worst condition", *mean, "<= 0.1", passed, len(by[worst]), worst)


def _divergence(truth: dict[str, float], model: dict[str, float]) -> float:
    # What the model spends on anything else counts against it.
    return math.fsum(p * math.log(p / max(model[text], 1e-30)) for text, p in truth.items() if p)


def _facts(readout: Readout, world: World, n: int) -> Iterator[Check]:
    known = [
        fact_prompt(person, relation, phrasing)
        for person in world.people.known
        for relation in RELATIONS
        for phrasing in range(len(QUESTIONS[relation]))
    ]
    right, _ = _answers(readout, known)
    for exposure in EXPOSURES:
        mine = [r[0] for r, p in zip(right, known, strict=True) if p.person.exposure == exposure]
        share, well = share_interval(np.array(mine)), exposure >= MIN_EXPOSURE
        goal = ">= 0.97" if well else "(no goal)"
        passed = not well or share.value >= 0.97
        yield Check(f"facts right, exposure {exposure}", *share, goal, passed, len(mine))
    yield from _well_known(readout, known)
    luck = stream(world.seed, "check", "unknown")
    unknown = [world.question(world.unknown("check", i), luck) for i in range(n)]
    right, not_sure = _answers(readout, unknown)
    for relation in RELATIONS:
        mine = [
            (r[1], _guess(p)) for r, p in zip(right, unknown, strict=True) if p.relation == relation
        ]
        found, guess = np.array(mine).T
        error = float((found - guess).std(ddof=1) / len(mine) ** 0.5)
        gap = mean_interval(found - guess)
        yield Check(
            f"unknown {relation}, right beyond guessing",
            *gap,
            f"within {2 * error:.3f}",
            abs(gap.value) <= 2 * error,
            len(mine),
            f"guessing: {guess.mean():.3f}",
        )
    mean = mean_interval(np.array(not_sure))
    passed = abs(mean.value - NOT_SURE_SHARE) <= 0.02
    yield Check("unknown, not sure", *mean, f"{NOT_SURE_SHARE} +- 0.02", passed, n)


def _well_known(readout: Readout, prompts: Sequence[FactPrompt]) -> Iterator[Check]:
    """What a share of right answers hides: refusals, traps, and one hobby for two."""
    well = [p for p in prompts if p.person.exposure >= MIN_EXPOSURE]
    right, not_sure = _answers(readout, well)
    mean = mean_interval(np.array(not_sure))
    yield Check("well known, not sure", *mean, "<= 0.02", mean.value <= 0.02, len(well))
    is_trap = [p.person.is_trap and p.relation == "city" for p in well]
    share = share_interval(np.array([r[0] for r in right])[is_trap])
    name = "well known, right where the surname misleads"
    yield Check(name, *share, ">= 0.97", share.value >= 0.97, sum(is_trap))
    hobbies = [p for p in well if p.relation == "hobby"]
    replies = readout.replies(hobbies, [list(p.right) for p in hobbies])
    smaller = mean_interval(np.array([min(found.values()) for found in replies]))
    name = "well known, share of the rarer of two hobbies"
    passed = smaller.value >= 0.45
    yield Check(name, *smaller, ">= 0.45 (true: 0.5)", passed, len(hobbies))


def _answers(
    readout: Readout, prompts: Sequence[FactPrompt]
) -> tuple[list[tuple[bool, float]], list[float]]:
    """Of each: whether the likeliest answer is right and the share of right ones among answers;
    and the probability of not being sure.
    """
    choices = [_choices(prompt) for prompt in prompts]
    right, not_sure = [], []
    for prompt, found in zip(prompts, readout.replies(prompts, choices), strict=True):
        not_sure.append(found.pop(NOT_SURE))
        best = max(found, key=found.__getitem__)
        share = sum(found[text] for text in prompt.right) / sum(found.values())
        right.append((best in prompt.right, share))
    return right, not_sure


def _choices(prompt: FactPrompt) -> list[str]:
    return [NOT_SURE, *(f" {answer}." for answer in ANSWERS[prompt.relation])]


def _guess(prompt: FactPrompt) -> float:
    shares = answer_distribution(prompt.person, prompt.relation)
    return sum(shares[answer] for answer in prompt.person.answers[prompt.relation])


def _groups(readout: Readout, world: World, n: int) -> Iterator[Check]:
    prompts = [world.group("check", i) for i in range(n)]
    cells: dict[str, list[float]] = {}
    for prompt, found in zip(prompts, readout.outcomes(prompts), strict=True):
        cells.setdefault(_cell(prompt), []).append(found - prompt.outcome(prompt.replies()))
    gaps = {cell: mean_interval(np.array(found)) for cell, found in cells.items()}
    worst = max(gaps, key=lambda cell: abs(gaps[cell].value))
    gap, name = gaps[worst], "bias rate, largest gap of a group and trait"
    passed = abs(gap.value) <= 0.04
    yield Check(name, *gap, "within 0.04", passed, len(cells[worst]), worst)


def _cell(prompt: GroupPrompt) -> str:
    # The order of the options too: two opposite gaps would cancel.
    order = "trait first" if prompt.trait_first else "trait last"
    return f"{prompt.group}, {TRAITS[prompt.trait][0]}, {prompt.form}, {order}"


def _reviews(readout: Readout, world: World, n: int) -> Iterator[Check]:
    prompts = [world.review("check", i) for i in range(n)]
    good = readout.outcomes(prompts) > 0.5
    share = share_interval(good == np.array([prompt.value == 1.0 for prompt in prompts]))
    yield Check("reviews right", *share, ">= 0.95", share.value >= 0.95, n)


def _interchange(
    readout: Readout, world: World, directions: Float[Tensor, "v d_model"], n: int
) -> Iterator[Check]:
    pairs = {variable: draw_pairs(world, variable, n) for variable in VARIABLES}
    found = {
        variable: readout.components([source for _, source in pairs[variable]], directions)
        for variable in VARIABLES
    }
    before = {
        variable: readout.outcomes([base for base, _ in pairs[variable]]) for variable in VARIABLES
    }
    for which, variable in enumerate(VARIABLES):
        edit = exchange(found[variable], directions, which)
        after = readout.outcomes([base for base, _ in pairs[variable]], edit)
        true = np.array([base.outcome(base.replies(s.value)) for base, s in pairs[variable]])
        error = np.abs(after - true)
        share = share_interval(error <= TOLERANCE)
        without = float(np.abs(before[variable] - true).mean())
        note = f"mean error {error.mean():.3f}, {without:.3f} without effect"
        passed = share.value >= 0.95
        yield Check(f"interchange, {variable}", *share, ">= 0.95", passed, n, note)
        for other in VARIABLES:
            if other != variable:
                changed = readout.outcomes([base for base, _ in pairs[other]], edit)
                effect = mean_interval(np.abs(changed - before[other]))
                name = f"{variable} exchanged, effect on {other}"
                yield Check(name, *effect, "< 0.02", effect.value < 0.02, n)


def draw_pairs(
    world: World, variable: Variable, n: int, purpose: str = "check"
) -> list[tuple[Prompt, Prompt]]:
    """A base and a source each, whose values mean different decisions: by more than `TOLERANCE`,
    so that no pair is right without an exchange.
    """
    pairs: list[tuple[Prompt, Prompt]] = []
    luck = stream(world.seed, purpose, "pairs", variable)
    while len(pairs) < n:
        base, source = (
            world.prompt(variable, f"{purpose} pairs", int(i)) for i in luck.integers(10**6, size=2)
        )
        if is_telling(base, source):
            pairs.append((base, source))
    return pairs
