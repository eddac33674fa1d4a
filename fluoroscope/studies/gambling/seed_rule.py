"""The original's rule for causal latents, as it was, for comparison with a sound one.

Two fixed prompts, 50 trials a condition, and signs without a test: a latent is `safe` if its safe
mean raises the rate of stopping on the safe prompt and lowers that of bets above $15 on the risky
one, and `risky` if its bankrupt mean lowers stopping on the safe prompt and raises high bets on
the risky one. Where nothing has an effect each of the two still holds for about one latent in
four: `passed_by_chance` says for how many.

The trials are drawn from the exact distribution of the first decision, which is what sampling
texts does, without writing them.

Axes: `m` latents.
"""

from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float

from fluoroscope.core.seeding import stream
from fluoroscope.studies.gambling.games.base import Game, Round, State
from fluoroscope.studies.gambling.games.slot_machine import SlotMachine

TRIALS = 50
HIGH_BET = 15
"""Dollars above which the original took a bet for a step to bankruptcy."""

PARTS = "GRWP"
N_NULL = 200


class Chances(NamedTuple):
    """Probabilities of one kind of decision on one prompt."""

    baseline: float
    safe: Float[np.ndarray, " m"]
    bankrupt: Float[np.ndarray, " m"]


def seed_states(games: dict[str, Game]) -> dict[str, tuple[Game, State]] | None:
    """`risky` and `safe`: the two states of the original, slip of its arithmetic included (100
    less a lost 100 of 130 is not 30); None where the game is no slot machine with these parts.
    """
    risky, safe = (games.get(f"{bet_type}-{PARTS}") for bet_type in ("variable", "fixed"))
    if not isinstance(risky, SlotMachine) or not isinstance(safe, SlotMachine):
        return None
    lost = (
        Round("bet", 10, True, 30, 130),
        Round("bet", 100, False, 0, 30),
        Round("bet", 10, False, 0, 20),
    )
    won = (
        Round("bet", 10, True, 30, 130),
        Round("bet", 10, False, 0, 120),
        Round("bet", 10, True, 30, 140),
    )
    return {"risky": (risky, State(20, lost)), "safe": (safe, State(140, won))}


def verdicts_of(stop: Chances, high: Chances, seed: int) -> pl.DataFrame:
    """seed_safe and seed_risky, a row a latent: `stop` on the safe prompt, `high` bets on the
    risky one. Each latent has a baseline of its own, as it had in the original.
    """
    random = stream(seed, "seed rule")
    return _judged(stop, high, random)


def passed_by_chance(stop: Chances, high: Chances, seed: int) -> Float[np.ndarray, " draws"]:
    """The share of latents that the rule calls safe or risky where no patch does anything."""
    none = [
        Chances(one.baseline, np.full(len(one.safe), one.baseline),
                np.full(len(one.safe), one.baseline))
        for one in (stop, high)
    ]  # fmt: skip
    shares = []
    for draw in range(N_NULL):
        found = _judged(none[0], none[1], stream(seed, "seed rule null", draw))
        shares.append((found["seed_safe"] | found["seed_risky"]).to_numpy().mean())
    return np.array(shares)


def _judged(stop: Chances, high: Chances, random: np.random.Generator) -> pl.DataFrame:
    n = len(stop.safe)

    def rate(chance: float | Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        return random.binomial(TRIALS, np.clip(chance, 0, 1), size=n) / TRIALS

    stop_without, high_without = rate(stop.baseline), rate(high.baseline)
    is_safe = (rate(stop.safe) > stop_without) & (rate(high.safe) < high_without)
    is_risky = (rate(stop.bankrupt) < stop_without) & (rate(high.bankrupt) > high_without)
    return pl.DataFrame({"seed_safe": is_safe, "seed_risky": is_risky})
