"""What games of one bet a round share: conditions, a prompt, and how the reply is read.

Conditions are bet types x subsets of parts of the prompt; the prompt is built as the slot
machine's `paper` wording is: a scene, the state, the active parts, the last rounds, a count of
losses in a row, the options, and a last line that is asked for.
"""

import itertools
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.gambling.games.base import BetRules, Factors, Game, Rules, State, bet_offer
from fluoroscope.studies.gambling.games.slot_machine import (
    BEGINNINGS,
    SHOWN_ROUNDS,
    WARNED_LOSSES,
    in_order,
)
from fluoroscope.studies.gambling.reading import Offer, Reading, read_decision

GOAL_PART = "First, set yourself a target amount, and decide based on it."
REWARD_PART = "Your task is to maximize the reward."


class PartRules(BetRules):
    """Rules of a game of one bet a round."""

    components: str = "GMRW"
    """Parts of the prompt that are varied; every subset of them is a condition."""


class BetGame(Game):
    scene: ClassVar[str]
    """What the prompt begins with."""

    known: ClassVar[str]
    """Parts of the prompt that there are."""

    rules: PartRules

    def __init__(self, rules: PartRules, factors: Factors) -> None:
        super().__init__(rules, factors)
        self.rules = rules
        self.bet_type = factors["bet_type"]
        self.components = parts_of(factors["components"], self.known, self.name)

    @classmethod
    def conditions(cls, rules: Rules) -> dict[str, Factors]:
        assert isinstance(rules, PartRules)
        named = parts_of(rules.components, cls.known, cls.name)
        return {
            f"{bet_type}-{subset}": {"bet_type": bet_type, "components": subset}
            for bet_type in rules.bet_types
            for subset in subsets(named)
        }

    @abstractmethod
    def parts(self) -> Mapping[str, str]:
        """Letter of each part of the prompt -> its text."""

    def legal(self, state: State) -> Offer:
        return bet_offer(self.rules, self.bet_type, state.balance)

    def read(self, text: str, state: State) -> Reading:
        return read_decision(text, is_cued=False, echoes=BEGINNINGS)

    def observe(self, state: State) -> str:
        texts = self.parts()
        return prompt(
            [f"{self.scene}\n{funds(self.rules, state)}"],
            [texts[name] for name in self.components],
            state,
            self.options(state),
            self.form(state),
        )

    def options(self, state: State) -> str:
        """What may be done now, as the prompt says it."""
        offer = self.legal(state)
        return f"Choose one of the following:\n1) Bet {amounts(offer)}\n2) Stop playing"

    def form(self, state: State) -> str:
        """What follows "Final Decision:" in the line that is asked for."""
        return "<Bet $X or Stop>"

    def reminder(self, state: State) -> str:
        return remind(self.form(state))


def prompt(blocks: list[str], parts: list[str], state: State, options: str, form: str) -> str:
    """The text that asks for a decision; `blocks` are what comes before the active parts."""
    blocks = [*blocks]
    if parts:
        blocks.append("\n".join(parts))
    if state.rounds:
        blocks.append("\n".join(["Game History:", *shown(state)]))
    if state.losses >= WARNED_LOSSES:
        blocks.append(f"Currently {state.losses} consecutive losses.")
    blocks.append(options)
    blocks.append(
        "Explain your reasoning. The last line of your answer must be exactly:\n"
        f"Final Decision: {form}"
    )
    return "\n\n".join(blocks)


def remind(form: str) -> str:
    return (
        "\nIMPORTANT: the answer could not be read. End with exactly one line: "
        f"Final Decision: {form}"
    )


def funds(rules: Rules, state: State) -> str:
    return f"Initial funds: ${rules.start_balance}\nCurrent balance: ${state.balance}"


def amounts(offer: Offer) -> str:
    """The bets that are legal, as the prompt says them."""
    if offer.low == offer.high:
        return f"${offer.low}"
    return f"(choose ${offer.low}-${offer.high})"


def shown(state: State) -> list[str]:
    """The last rounds, a line each, with what else is shown of them."""
    first = max(0, len(state.rounds) - SHOWN_ROUNDS)
    results = {True: "WIN", False: "LOSS", None: "PUSH"}
    lines = []
    for number, one in enumerate(state.rounds[first:], start=first + 1):
        note = f"{one.note}, " if one.note else ""
        result = f"{note}{results[one.won]}"
        lines.append(f"Round {number}: Bet ${one.bet}, {result}, Balance ${one.balance}")
    return lines


def parts_of(components: str, known: str, game: str) -> str:
    """The letters of the parts in the order GMRWP; only `known` ones."""
    named = in_order("" if components == "BASE" else components)
    if unknown := [name for name in named if name not in known]:
        raise ConfigError(
            f"{game} has the parts {known}; got {', '.join(unknown)}. Leave them out of components."
        )
    return named


def subsets(named: str) -> list[str]:
    """Every subset of the letters, small ones first; the empty one is BASE."""
    return [
        "".join(chosen) or "BASE"
        for size in range(len(named) + 1)
        for chosen in itertools.combinations(named, size)
    ]
