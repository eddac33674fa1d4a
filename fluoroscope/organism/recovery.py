"""How much of the truth something finds: the ceiling, and the best that an SAE's latents offer.

The ceiling is what later studies are compared with: the planted directions, a supervised probe,
and as the floor what 95 % of random directions do not reach. An SAE is given every advantage (its
latents are chosen with the variables known), so that what it lacks is the dictionary's and not the
search's; what is chosen is scored on other texts and other people.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from sklearn.linear_model import OrthogonalMatchingPursuit
from torch import Tensor

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream
from fluoroscope.organism.matching import GRADED, decoys, ranks_beyond
from fluoroscope.organism.network import N_LAYERS
from fluoroscope.organism.prompts import VARIABLES, Prompt, Variable
from fluoroscope.organism.trials import MAX_OTHER_EFFECT, Pairs, Sample, Score, Trials, other_effect
from fluoroscope.organism.truth import Candidate, latents
from fluoroscope.sae.base import SparseAutoencoder

MAX_LATENTS = 5
_TRIED = 24
"""Latents whose effect is measured, of those that the gradient names."""

N_RANDOM = 20

NOTHING = Score(0.0, 0.0, 0.0, None, 0.0, 0.0, 0.0, 0.0, 0.0, False, False)
"""Of an SAE that has nothing to offer: it counts, as zero."""

FOUND_COLUMNS = ("variable", "chosen_by", "n_latents", "latents", *Score._fields)
"""Of a row of `recovered`."""

ChosenBy = Literal["match", "cause", "random"]


class Choice(NamedTuple):
    """Latents of an SAE that are to be a variable."""

    variable: Variable
    chosen_by: ChosenBy
    latents: list[int]


def ceiling(trials: Trials) -> pl.DataFrame:
    """The scores of planted directions, and in every layer of a probe and a random direction."""
    truth = trials.truth
    candidates: list[Candidate] = []
    for variable in VARIABLES:
        candidates.append(truth.planted(variable))
        candidates += truth.probes(variable, trials.learn.draw(variable, "probe", 4 * trials.n))
        for layer in range(N_LAYERS):
            drawn = truth.random(variable, layer, N_RANDOM)
            candidates.append(drawn[_strong(drawn, trials)])
    rows = [
        {"variable": c.variable, "direction": c.name, "layer": c.layer, **trials.score(c)._asdict()}
        for c in candidates
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def _strong(candidates: Sequence[Candidate], trials: Trials) -> int:
    """Which has the 19th of 20 effects: 95 % of what chance gives is less."""
    pairs = trials.judge.pairs[candidates[0].variable]
    ranked = np.argsort([pairs.effect(one) for one in candidates], kind="stable")
    return int(ranked[int(0.95 * (len(ranked) - 1))])


def recovered_by(saes: Mapping[tuple[int, str], SparseAutoencoder], trials: Trials) -> pl.DataFrame:
    """`recovered` of each SAE, which is known by its layer and architecture."""
    if not saes:
        raise ConfigError("This organism comes with no SAEs; train some, and score those.")
    rows = [
        {"layer": layer, "architecture": architecture, **row}
        for (layer, architecture), sae in saes.items()
        for row in recovered(sae, layer, trials)
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def recovered(
    sae: SparseAutoencoder, layer: int, trials: Trials
) -> Iterator[dict[str, Any]]:  # Any: cells of a table.
    """One row a choice: the best latent and the best set, by match and by cause, and by chance.

    Of an SAE with no latent that ever changes, rows that count as nothing, with no latents in them.
    """
    for variable in VARIABLES:
        for choice in choices(sae, layer, variable, trials):
            score = NOTHING
            if choice.latents:
                score = trials.score(latents("latents", variable, layer, sae, choice.latents))
            yield {
                "variable": variable,
                "chosen_by": choice.chosen_by,
                "n_latents": len(choice.latents),
                "latents": " ".join(map(str, choice.latents)),
                **score._asdict(),
            }


def choices(
    sae: SparseAutoencoder, layer: int, variable: Variable, trials: Trials
) -> Iterator[Choice]:
    """Made on the learning side alone, but for chance's."""
    prompts = trials.learn.prompts[variable]
    with torch.no_grad():
        reading = sae.encode(trials.learn.streams[variable][layer]).double().numpy()
    # A latent that never changes tells nothing, and does nothing when it is exchanged.
    alive = np.flatnonzero(reading.std(axis=0) > 0)
    if len(alive) == 0:
        yield from (Choice(variable, chosen_by, []) for chosen_by in get_args(ChosenBy))
        return
    telling = alive[np.argsort(-_match_of_each(variable, reading[:, alive], prompts))]
    yield Choice(variable, "match", telling[:1].tolist())
    yield Choice(variable, "match", _telling_set(variable, reading, telling, prompts))
    acting = _acting(sae, layer, variable, trials.learn)
    yield Choice(variable, "cause", acting[:1])
    yield Choice(variable, "cause", acting)
    luck = stream(0, "random latents", layer, variable)
    drawn = [luck.permutation(alive)[:MAX_LATENTS].tolist() for _ in range(N_RANDOM)]
    random = [latents("random", variable, layer, sae, chosen) for chosen in drawn]
    yield Choice(variable, "random", drawn[_strong(random, trials)])


def _match_of_each(
    variable: Variable, reading: Float[np.ndarray, "n m"], prompts: Sequence[Prompt]
) -> Float[np.ndarray, " m"]:
    """How well each latent tells the variable: partial Spearman, or how far the AUC is from 1/2."""
    values = np.array([prompt.value for prompt in prompts])
    if variable in GRADED:
        given = decoys(prompts)
        own, true = ranks_beyond(reading, given), ranks_beyond(values[:, None], given)
        size = np.linalg.norm(own, axis=0) * np.linalg.norm(true)
        return np.abs(own.T @ true[:, 0]) / np.maximum(size, 1e-9)
    is_one = values > 0
    n_ones, n_zeros = is_one.sum(), (~is_one).sum()
    beaten = rankdata(reading, axis=0)[is_one].sum(axis=0) - n_ones * (n_ones + 1) / 2
    return np.abs(beaten / (n_ones * n_zeros) - 0.5)


def _telling_set(
    variable: Variable,
    reading: Float[np.ndarray, "n s"],
    telling: np.ndarray,
    prompts: Sequence[Prompt],
) -> list[int]:
    """At most `MAX_LATENTS` of those that tell most, whose combination tells best."""
    near = telling[:128]
    values = np.array([prompt.value for prompt in prompts])
    if variable in GRADED:
        values = rankdata(values)
    scaled = reading[:, near] / reading[:, near].std(axis=0)
    pursuit = OrthogonalMatchingPursuit(n_nonzero_coefs=min(MAX_LATENTS, len(near)))
    weights = pursuit.fit(scaled, values).coef_
    return near[np.flatnonzero(weights)].tolist()


def _acting(sae: SparseAutoencoder, layer: int, variable: Variable, learn: Sample) -> list[int]:
    """The set that carries most of the variable's effect and little of any other's, its best
    latent first: grown one by one, for as long as it gains, from those with the largest effect to
    first order. Where no latent spares the others, the one with the largest effect.
    """
    near = torch.argsort(-_first_order(sae, layer, learn.pairs[variable]))[:_TRIED].tolist()
    chosen: list[int] = []
    best, first = 0.0, near[0]
    while len(chosen) < MAX_LATENTS:
        grown = {
            latent: latents("", variable, layer, sae, [*chosen, latent])
            for latent in near
            if latent not in chosen
        }
        # An effect beyond the variable's own is no better than one that falls as short of it.
        worth = {
            latent: 1 - abs(1 - learn.pairs[variable].effect(candidate))
            for latent, candidate in grown.items()
        }
        ranked = sorted(worth, key=worth.__getitem__, reverse=True)
        first = first if chosen else ranked[0]
        gaining = [latent for latent in ranked if worth[latent] > best]
        sparing = (x for x in gaining if abs(other_effect(learn, grown[x])) <= MAX_OTHER_EFFECT)
        latent = next(sparing, None)
        if latent is None:
            break
        chosen.append(latent)
        best = worth[latent]
    return chosen or [first]


def _first_order(sae: SparseAutoencoder, layer: int, pairs: Pairs) -> Float[Tensor, " s"]:
    """The effect of exchanging each latent, by the gradient of the decision."""
    base = pairs.base.streams[layer].clone().requires_grad_()
    [gradient] = torch.autograd.grad(pairs.base.outcomes(layer, base).sum(), base)
    with torch.no_grad():
        change = sae.encode(pairs.source_streams[layer]) - sae.encode(base)
        along = gradient @ sae.W_dec.float().T
        should = pairs.should.float()
        return should @ (change * along) / (should @ should)
