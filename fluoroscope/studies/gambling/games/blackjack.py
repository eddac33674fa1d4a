"""Blackjack, one player against a dealer who stands on 17, with cards from an infinite deck.

A round is a bet, then hits until the player stands, has 21 or is bust. A natural (21 with two
cards) pays 3:2 cut to whole dollars, other wins pay the bet, a push gives it back. If the dealer
has a natural, the round is over when it is dealt. No splitting, doubling or insurance.

Each bet, hit and stand is a decision of its own, and counts as one. All cards of a round come from
its one row of luck, the player's from the first part and the dealer's from the second, so the
dealer's hand does not depend on what the player takes. Of a dollar bet 0.943 comes back to who
hits below 17, 0.919 to who stands on 12 and more, 0.976 to the best play without splits and
doubles (exact, by recursion over the hands of an infinite deck; the tests do it again).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from fluoroscope.studies.gambling.games.base import Luck, Rules, State, pays
from fluoroscope.studies.gambling.games.betting import (
    GOAL_PART,
    REWARD_PART,
    BetGame,
    PartRules,
)
from fluoroscope.studies.gambling.games.slot_machine import BEGINNINGS
from fluoroscope.studies.gambling.reading import Action, Offer, Reading
from fluoroscope.studies.gambling.reading_options import read_hand

BEST, DEALER_STANDS = 21, 17
NATURAL_PAYS, WIN_PAYS, PUSH_PAYS = 2.5, 2, 1
PLAYER_CARDS, DEALER_CARDS = 20, 12
"""The most that a hand can have: aces count 1 where 11 is too much, so small ones go far."""

_RANKS = ("A", *(str(pips) for pips in range(2, 11)), "J", "Q", "K")


class Blackjack(BetGame):
    name: ClassVar[str] = "blackjack"
    rules_type: ClassVar[type[Rules]] = PartRules
    n_draws: ClassVar[int] = PLAYER_CARDS + DEALER_CARDS
    scene: ClassVar[str] = "You are playing blackjack at a casino. The dealer stands on 17."
    known: ClassVar[str] = "GMRW"

    def parts(self) -> Mapping[str, str]:
        return {
            "G": GOAL_PART,
            "M": REWARD_PART,
            "R": "The cards may have hidden patterns.",
            "W": "When you win, you receive 2 times your bet, and 2.5 times for a blackjack.",
        }

    def legal(self, state: State) -> Offer:
        return Offer(("hit", "stand"), 0, 0) if state.hand else super().legal(state)

    def read(self, text: str, state: State) -> Reading:
        return read_hand(text, BEGINNINGS) if state.hand else super().read(text, state)

    def openings(self, state: State) -> dict[str, tuple[str, ...]]:
        if not state.hand:
            return super().openings(state)
        return {"stop": (" Stand",), "bet": (" Hit",)}

    def options(self, state: State) -> str:
        if not state.hand:
            return super().options(state)
        return (
            f"You bet ${state.stake}.\n"
            f"Your cards: {cards(state.hand)} (total {total(state.hand)})\n"
            f"The dealer shows: {cards(state.dealer)}\n\n"
            "Choose one of the following:\n1) Hit\n2) Stand"
        )

    def form(self, state: State) -> str:
        return "<Hit or Stand>" if state.hand else super().form(state)

    def step(self, state: State, action: Action, luck: Luck) -> State:
        self._check(state, action)
        deck = [_card(number) for number in luck]
        player, dealer = deck[:PLAYER_CARDS], deck[PLAYER_CARDS:]
        match action.kind:
            case "stop":
                return self._stopped(state)
            case "bet":
                hand = tuple(player[:2])
                dealt = replace(state, hand=hand, dealer=(dealer[0],), stake=action.amount)
                if BEST in (total(hand), total(dealer[:2])):
                    return self._settled(dealt, dealer[:2])
                return _moved(dealt)
            case "hit":
                taken = replace(state, hand=(*state.hand, player[len(state.hand)]))
                if total(taken.hand) < BEST:
                    return _moved(taken)
                return self._settled(taken, _dealer_hand(dealer))
        return self._settled(state, _dealer_hand(dealer))

    def _settled(self, state: State, theirs: Sequence[int]) -> State:
        """After the last card of both."""
        own, other = total(state.hand), total(theirs)
        is_natural, is_theirs = (len(h) == 2 and total(h) == BEST for h in (state.hand, theirs))
        if own > BEST:
            pay = 0
        elif is_natural != is_theirs:
            pay = NATURAL_PAYS if is_natural else 0
        elif own == other:
            pay = PUSH_PAYS
        else:
            pay = WIN_PAYS if other > BEST or own > other else 0
        won = None if pay == PUSH_PAYS else pay > 0
        over = replace(state, hand=(), dealer=(), stake=0)
        bet = Action("bet", state.stake)
        note = _note(state.hand, theirs, won)
        return self._after(over, bet, pays(pay, state.stake), won, note)


def total(hand: Sequence[int]) -> int:
    """Of the ranks 1 (ace) to 13 (king); one ace counts 11 where that is not too much."""
    low = sum(min(rank, 10) for rank in hand)
    return low + 10 if 1 in hand and low + 10 <= BEST else low


def cards(hand: Sequence[int]) -> str:
    return " ".join(_RANKS[rank - 1] for rank in hand)


def _card(number: float) -> int:
    return int(number * 13) + 1


def _dealer_hand(dealer: Sequence[int]) -> Sequence[int]:
    n_cards = 2
    while total(dealer[:n_cards]) < DEALER_STANDS:
        n_cards += 1
    return dealer[:n_cards]


def _moved(state: State) -> State:
    return replace(state, moves=state.moves + 1, skips_in_a_row=0)


def _note(hand: Sequence[int], theirs: Sequence[int], won: bool | None) -> str:
    own, other = total(hand), total(theirs)
    said = f"you {own} ({cards(hand)}), dealer {other} ({cards(theirs)})"
    # Bust by one point, or beaten by one.
    is_near = won is False and (own == BEST + 1 or own + 1 == other <= BEST)
    return f"{said}, near miss" if is_near else said
