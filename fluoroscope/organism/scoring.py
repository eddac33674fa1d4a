"""How well something found in the model is one of its variables: match and cause.

Whatever is found (an SAE's latents, a probe's direction, the planted direction itself) is given
as directions of the planted layer's stream and a reading of them. It is scored on prompts that
nobody learned from: does the reading tell the variable (match), and does writing the other
prompt's reading make the decision that the other's value would make (cause)? The planted
directions and a supervised probe are the ceiling of every study.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from fluoroscope.organism.check import draw_pairs
from fluoroscope.organism.prompts import VARIABLES, Prompt, Variable
from fluoroscope.organism.readout import Edit, Readout, exchange
from fluoroscope.organism.world import World

GRADED: tuple[Variable, ...] = ("risk",)
"""Variables that are numbers; the others are yes or no."""

MIN_F1, MIN_SPEARMAN, MIN_EFFECT, MAX_OTHER_EFFECT = 0.8, 0.6, 0.1, 0.02


class Score(NamedTuple):
    """What a reading tells of a variable, and what writing it does."""

    match: float
    """F1 of a yes-or-no variable; partial Spearman correlation, given the decoys, of a number."""

    effect: float
    """The share of the variable's own effect on the decision that an exchange brings about: 1 is
    all of it, 0 none, below 0 the wrong way."""

    other_effect: float
    """The largest mean change of another variable's decision."""

    interchange: float
    """The share of exchanged decisions within 0.05 of the true probability."""

    matches: bool
    is_cause: bool


class Found(NamedTuple):
    """A candidate for a variable: one direction, read as a component and written as one."""

    name: str
    variable: Variable
    direction: Float[Tensor, " d_model"]
    """Of unit norm."""


def score(found: Found, readout: Readout, world: World, n: int = 512) -> Score:
    """On `n` prompts for the match and `n` pairs for the cause."""
    directions = found.direction[None]
    prompts = [world.prompt(found.variable, "score", i) for i in range(n)]
    reading = readout.components(prompts, directions)[:, 0].numpy()
    match = match_of(found.variable, reading, prompts)
    effect, right = _effect(found, readout, world, n)
    other = max(
        _change(found, readout, world, variable, n // 2)
        for variable in VARIABLES
        if variable != found.variable
    )
    least = MIN_SPEARMAN if found.variable in GRADED else MIN_F1
    is_cause = effect >= MIN_EFFECT and other <= MAX_OTHER_EFFECT
    return Score(match, effect, other, right, match >= least, is_cause)


def match_of(
    variable: Variable, reading: Float[np.ndarray, " n"], prompts: Sequence[Prompt]
) -> float:
    """How well the reading tells the variable; its sign is nobody's claim."""
    truth = np.array([prompt.value for prompt in prompts])
    if variable in GRADED:
        return abs(partial_spearman(reading, truth, decoys(prompts)))
    # The border is learned on one half and judged on the other.
    half = len(truth) // 2
    return max(_best_f1(sign * reading, truth, half) for sign in (1, -1))


def decoys(prompts: Sequence[Prompt]) -> Float[np.ndarray, "n k"]:
    """What goes along with risk and has no part in it: balance, round, length of the prompt."""
    names = ("balance", "round", "n_characters")
    return np.array([[float(prompt.facts[name]) for name in names] for prompt in prompts])


def partial_spearman(
    a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"], given: Float[np.ndarray, "n k"]
) -> float:
    """The correlation of the ranks of `a` and `b` that the ranks of `given` leave."""
    ranks = np.column_stack([np.ones(len(a)), *(rankdata(column) for column in given.T)])

    def rest(values: np.ndarray) -> np.ndarray:
        ranked = rankdata(values)
        return ranked - ranks @ np.linalg.lstsq(ranks, ranked, rcond=None)[0]

    x, y = rest(a), rest(b)
    size = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / size if size > 1e-9 else 0.0


def probe(readout: Readout, world: World, variable: Variable, n: int = 1024) -> Found:
    """A supervised linear probe of the planted layer: what a label for every prompt can find."""
    prompts = [world.prompt(variable, "probe", i) for i in range(n)]
    stream = readout.components(prompts, torch.eye(readout.network.config.n_embd)).numpy()
    truth = np.array([prompt.value for prompt in prompts])
    scaler = StandardScaler().fit(stream)
    if variable in GRADED:
        weights = Ridge(alpha=10.0).fit(scaler.transform(stream), truth).coef_
    else:
        model = LogisticRegression(C=0.1, max_iter=2000).fit(scaler.transform(stream), truth)
        weights = model.coef_[0]
    direction = torch.from_numpy(weights / scaler.scale_).float()
    return Found("probe", variable, direction / direction.norm())


def ceiling(
    readout: Readout, world: World, directions: Float[Tensor, "v d_model"], n: int = 512
) -> list[tuple[Found, Score]]:
    """The planted directions, the probes, and random directions as the control."""
    random = torch.randn(
        len(VARIABLES), directions.shape[1], generator=torch.Generator().manual_seed(world.seed)
    )
    rows: list[tuple[Found, Score]] = []
    for place, variable in enumerate(VARIABLES):
        candidates = [
            Found("planted", variable, directions[place]),
            probe(readout, world, variable, 2 * n),
            Found("random", variable, random[place] / random[place].norm()),
        ]
        rows += [(one, score(one, readout, world, n)) for one in candidates]
    return rows


def ceiling_frame(
    readout: Readout, world: World, directions: Float[Tensor, "v d_model"], n: int = 512
) -> pl.DataFrame:
    """`ceiling` as a table: what later studies are compared with."""
    return pl.DataFrame(
        [
            {"variable": found.variable, "direction": found.name, **scored._asdict()}
            for found, scored in ceiling(readout, world, directions, n)
        ]
    )


def _best_f1(reading: np.ndarray, truth: np.ndarray, half: int) -> float:
    borders = np.quantile(reading[:half], np.linspace(0, 1, 65))
    best = max(borders, key=lambda border: _f1(truth[:half], reading[:half] > border))
    return _f1(truth[half:], reading[half:] > best)


def _f1(truth: np.ndarray, told: np.ndarray) -> float:
    # Zero where nothing is told and nothing is there to tell.
    hits = float((told & (truth > 0)).sum())
    return 2 * hits / max(1.0, float(told.sum() + (truth > 0).sum()))


def _effect(found: Found, readout: Readout, world: World, n: int) -> tuple[float, float]:
    pairs = draw_pairs(world, found.variable, n, "score")
    bases = [base for base, _ in pairs]
    before = readout.outcomes(bases)
    after = readout.outcomes(bases, _edit(found, readout, [source for _, source in pairs]))
    own = np.array([base.outcome(base.replies()) for base in bases])
    wanted = np.array([base.outcome(base.replies(source.value)) for base, source in pairs])
    # The slope of what changed on what should have: signed, and not swayed by tiny pairs.
    should = wanted - own
    effect = float((after - before) @ should / (should @ should))
    return effect, float((np.abs(after - wanted) <= 0.05).mean())


def _change(found: Found, readout: Readout, world: World, variable: Variable, n: int) -> float:
    bases = [world.prompt(variable, "score", i) for i in range(n)]
    sources = [world.prompt(found.variable, "score", i) for i in range(n)]
    after = readout.outcomes(bases, _edit(found, readout, sources))
    return float(np.abs(after - readout.outcomes(bases)).mean())


def _edit(found: Found, readout: Readout, sources: Sequence[Prompt]) -> Edit:
    directions = found.direction[None]
    return exchange(readout.components(sources, directions), directions, 0)
