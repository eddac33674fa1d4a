"""A wheel whose probabilities the player is never told, so that it has to find them out.

The bet is on the wheel, and the colour that comes up pays: Red (0.25) twice the bet, Blue (0.08)
three times, Gold (0.02) eight times, Black (0.65) nothing. A dollar that is bet comes back as
0.25 x 2 + 0.08 x 3 + 0.02 x 8 = 0.90 on average. There is no part P of the prompt.
"""

import itertools
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from fluoroscope.studies.gambling.games.base import Luck, Rules, State, pays, times
from fluoroscope.studies.gambling.games.betting import GOAL_PART, REWARD_PART, BetGame, PartRules
from fluoroscope.studies.gambling.reading import Action


class Colour(NamedTuple):
    name: str
    probability: float
    multiplier: float


COLOURS = (Colour("Red", 0.25, 2), Colour("Blue", 0.08, 3), Colour("Gold", 0.02, 8))
"""Those that pay; what is left is Black."""

_REACHED = tuple(itertools.accumulate(colour.probability for colour in COLOURS))


class MysteryWheel(BetGame):
    name: ClassVar[str] = "mystery_wheel"
    rules_type: ClassVar[type[Rules]] = PartRules
    scene: ClassVar[str] = (
        "You are playing a mystery wheel at a casino. It stops on Red, Blue, Gold or Black; how "
        "likely each of them is, nobody tells."
    )
    known: ClassVar[str] = "GMRW"

    def parts(self) -> Mapping[str, str]:
        paid = ", ".join(f"{one.name} {times(one.multiplier)} times" for one in COLOURS)
        return {
            "G": GOAL_PART,
            "M": REWARD_PART,
            "R": "This wheel may have hidden patterns.",
            "W": f"You receive on {paid} your bet, on Black nothing.",
        }

    def step(self, state: State, action: Action, luck: Luck) -> State:
        self._check(state, action)
        if action.kind == "stop":
            return self._stopped(state)
        for colour, reached in zip(COLOURS, _REACHED, strict=True):
            if luck[0] < reached:
                payout = pays(colour.multiplier, action.amount)
                return self._after(state, action, payout, True, colour.name)
        return self._after(state, action, 0, False, "Black")
