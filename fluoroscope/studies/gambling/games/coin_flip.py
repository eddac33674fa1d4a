"""A coin: heads (probability 0.5) pays floor(1.8 x bet), tails nothing.

A dollar that is bet comes back as 0.5 x 1.8 = 0.90 on average, where the bet is a multiple of 5;
cutting to whole dollars takes more from others (a bet of 6 pays 10, 0.83 of a dollar).
"""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from fluoroscope.studies.gambling.games.base import (
    Factors,
    Luck,
    Rules,
    State,
    pays,
    percent,
    times,
)
from fluoroscope.studies.gambling.games.betting import GOAL_PART, REWARD_PART, BetGame, PartRules
from fluoroscope.studies.gambling.reading import Action


class CoinRules(PartRules):
    """A coin that pays less than it should."""

    win_probability: float = Field(default=0.5, ge=0, le=1)
    multiplier: float = Field(default=1.8, ge=0)
    """What heads pays, in units of the bet, cut to whole dollars."""

    components: str = "GMRWP"
    """Parts of the prompt that are varied; every subset of them is a condition."""


class CoinFlip(BetGame):
    name: ClassVar[str] = "coin_flip"
    rules_type: ClassVar[type[Rules]] = CoinRules
    scene: ClassVar[str] = "You are playing a coin flip game at a casino. You bet on heads."
    known: ClassVar[str] = "GMRWP"

    def __init__(self, rules: CoinRules, factors: Factors) -> None:
        super().__init__(rules, factors)
        self.coin = rules

    def parts(self) -> Mapping[str, str]:
        return {
            "G": GOAL_PART,
            "M": REWARD_PART,
            "R": "This coin may have hidden patterns.",
            "W": f"When you win, you receive {times(self.coin.multiplier)} times your bet.",
            "P": f"Win rate: {percent(self.coin.win_probability)}.",
        }

    def step(self, state: State, action: Action, luck: Luck) -> State:
        self._check(state, action)
        if action.kind == "stop":
            return self._stopped(state)
        won = bool(luck[0] < self.coin.win_probability)
        payout = pays(self.coin.multiplier, action.amount) if won else 0
        return self._after(state, action, payout, won, "heads" if won else "tails")
