"""Candidates on trial: match and cause.

*Match*: does the reading tell the variable? *Cause*: on pairs that differ in the variable alone,
does writing the other prompt's reading make the decision that the other's value would make, and
leave the decisions of the other variables as they are?

Whatever is learned with the variables known (a probe, the choice of latents, how they are read) is
learned from one half of all texts and people (`World.side`) and judged on the other.
"""

from collections.abc import Iterator
from functools import cached_property
from itertools import count, islice
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.intervals import Interval, ratio_interval
from fluoroscope.organism.decisions import Decisions, decision_streams
from fluoroscope.organism.matching import GRADED, Told, match_of
from fluoroscope.organism.network import PLANTED_LAYER
from fluoroscope.organism.planting import TOLERANCE, can_hold, is_telling
from fluoroscope.organism.prompts import VARIABLES, Prompt, Variable
from fluoroscope.organism.truth import Candidate, Truth
from fluoroscope.organism.world import Side, World

MIN_F1, MIN_SPEARMAN, MIN_ALIGNMENT = 0.8, 0.6, 0.5
MIN_EFFECT, MAX_OTHER_EFFECT = 0.1, 0.02


class Score(NamedTuple):
    """What a candidate tells of its variable, and what writing it does."""

    match: float
    """F1 of a yes-or-no variable; partial Spearman correlation, given the decoys, of a number.
    A set is read by its best linear combination."""

    match_low: float
    match_high: float
    """95 % bootstrap interval over prompts; that of the effect is over pairs."""

    alignment: float | None
    """Norm of the planted direction's projection on what can be written (of one direction, the
    cosine); None in other layers."""

    effect: float
    """The share of the variable's own effect on the decision that an exchange brings about: 1 is
    all of it, 0 none, below 0 the wrong way."""

    effect_low: float
    effect_high: float

    other_effect: float
    """The largest such share of another variable's effect, on pairs that differ in that one."""

    interchange: float
    """The share of exchanged decisions within 0.05 of the true probability."""

    matches: bool
    is_cause: bool


class Pairs:
    """Prompts that differ in one variable, and what exchanging it should do to the decision."""

    def __init__(self, truth: Truth, variable: Variable, side: Side, n: int) -> None:
        pairs = list(islice(_telling(truth.world, variable, side), n))
        self.base = Decisions(truth.readout, [base for base, _ in pairs])
        self.source_streams = decision_streams(truth.readout, [source for _, source in pairs])
        own = [base.outcome(base.replies()) for base, _ in pairs]
        self.wanted = torch.tensor(
            [base.outcome(base.replies(source.value)) for base, source in pairs],
            dtype=torch.float64,
        )
        self.should = self.wanted - torch.tensor(own, dtype=torch.float64)
        self._before: dict[int, Tensor] = {}

    @torch.no_grad()
    def exchanged(self, candidate: Candidate) -> Float[Tensor, " n"]:
        """The outcome of each base with the source's reading written into it."""
        base, source = self.base.streams[candidate.layer], self.source_streams[candidate.layer]
        return self.base.outcomes(candidate.layer, candidate.exchanged(base, source))

    @torch.no_grad()
    def change(self, candidate: Candidate) -> Float[Tensor, " n"]:
        """What an exchange does to each outcome."""
        if candidate.layer not in self._before:
            self._before[candidate.layer] = self.base.outcomes(candidate.layer)
        return self.exchanged(candidate) - self._before[candidate.layer]

    def effect(self, candidate: Candidate) -> float:
        """`Score.effect`: the slope of what changes on what should, which is signed, and not
        swayed by pairs that hardly differ.
        """
        return float(self.change(candidate) @ self.should / (self.should @ self.should))

    def effect_interval(self, candidate: Candidate) -> Interval:
        should = self.should.numpy()
        return ratio_interval(self.change(candidate).numpy() * should, should**2, seed=0)

    def interchange(self, candidate: Candidate) -> float:
        """`Score.interchange`."""
        error = (self.exchanged(candidate) - self.wanted).abs()
        return float((error <= TOLERANCE).double().mean())


class Sample:
    """Prompts and pairs of every variable, all from one side."""

    def __init__(self, truth: Truth, side: Side, n: int) -> None:
        self.truth, self.n = truth, n
        self.side: Side = side

    @cached_property
    def pairs(self) -> dict[Variable, Pairs]:
        return {v: Pairs(self.truth, v, self.side, self.n) for v in VARIABLES}

    @cached_property
    def prompts(self) -> dict[Variable, list[Prompt]]:
        return {v: self.draw(v, "prompts", 2 * self.n) for v in VARIABLES}

    @cached_property
    def streams(self) -> dict[Variable, Float[Tensor, "layers n d_model"]]:
        return {v: decision_streams(self.truth.readout, self.prompts[v]) for v in VARIABLES}

    def draw(self, variable: Variable, purpose: str, n: int) -> list[Prompt]:
        """`n` prompts of this side."""
        world = self.truth.world
        drawn = (world.prompt(variable, f"{self.side} {purpose}", i) for i in count())
        mine = (p for p in drawn if world.side(p) == self.side and can_hold(p))
        return list(islice(mine, n))

    @torch.no_grad()
    def told(self, candidate: Candidate) -> Told:
        """What it reads of the prompts with its variable."""
        stream = self.streams[candidate.variable][candidate.layer]
        return Told(candidate.read(stream).double().numpy(), self.prompts[candidate.variable])


class Trials:
    """What candidates are scored on: `n` pairs of each variable, and twice as many prompts."""

    def __init__(self, truth: Truth, n: int = 256) -> None:
        self.truth, self.n = truth, n
        self.learn, self.judge = Sample(truth, "learn", n), Sample(truth, "judge", n)

    def score(self, candidate: Candidate) -> Score:
        variable = candidate.variable
        match = self.match(candidate)
        pairs = self.judge.pairs[variable]
        effect, right = pairs.effect_interval(candidate), pairs.interchange(candidate)
        other = other_effect(self.judge, candidate)
        along = self._alignment(candidate)
        tells = match.value >= (MIN_SPEARMAN if variable in GRADED else MIN_F1)
        matches = tells and (along is None or along >= MIN_ALIGNMENT)
        is_cause = effect.value >= MIN_EFFECT and abs(other) <= MAX_OTHER_EFFECT
        return Score(*match, along, *effect, other, right, matches, is_cause)

    def match(self, candidate: Candidate) -> Interval:
        """`Score.match`."""
        learn, judge = self.learn.told(candidate), self.judge.told(candidate)
        return match_of(candidate.variable, learn, judge)

    def _alignment(self, candidate: Candidate) -> float | None:
        if candidate.layer != PLANTED_LAYER:
            return None
        planted = self.truth.planted(candidate.variable).write[0].double()
        _, sizes, basis = torch.linalg.svd(candidate.write.double(), full_matrices=False)
        # Latents that point the same way span less than there are of them.
        return float((basis[sizes > 1e-6 * sizes[0]] @ planted).norm())


def other_effect(sample: Sample, candidate: Candidate) -> float:
    """`Score.other_effect`."""
    pairs = [sample.pairs[v] for v in VARIABLES if v != candidate.variable]
    return max((one.effect(candidate) for one in pairs), key=abs)


def _telling(world: World, variable: Variable, side: Side) -> Iterator[tuple[Prompt, Prompt]]:
    """Pairs of one side in which the other value means another decision; without end."""
    for index in count():
        base, source = world.pair(variable, f"{side} pairs", index)
        if world.side(base) == world.side(source) == side and is_telling(base, source):
            yield base, source
