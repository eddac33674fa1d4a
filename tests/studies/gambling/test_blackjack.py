from functools import cache

import numpy as np
import pytest
from scripted import one_game

from fluoroscope.studies.gambling.games import GAMES
from fluoroscope.studies.gambling.games.base import (
    Round,
    State,
    luck_tape,
    replay,
)
from fluoroscope.studies.gambling.reading import Action


@cache
def worth_of_hand(hard: int, has_ace: bool, up: int, stands_on: int | None) -> float:
    """Dollars that come back; `stands_on` None plays best."""
    best = hard + 10 if has_ace and hard + 10 <= 21 else hard
    if best > 21:
        return 0.0
    ends = dealer_ends(up, up == 1, 1)
    natural = ends.get("natural", 0)
    stand = sum(
        p * (2 if total == "bust" or best > total else 1 if best == total else 0)
        for total, p in ends.items()
        if total != "natural"
    ) / (1 - natural)
    if best == 21 or (stands_on is not None and best >= stands_on):
        return stand
    hit = sum(p * worth_of_hand(hard + v, has_ace or v == 1, up, stands_on) for v, p in PIPS)
    return hit if stands_on is not None else max(hit, stand)


PIPS = [(v, 4 / 13 if v == 10 else 1 / 13) for v in range(1, 11)]


@cache
def dealer_ends(hard: int, has_ace: bool, n_cards: int) -> dict:
    best = hard + 10 if has_ace and hard + 10 <= 21 else hard
    if n_cards == 2 and best == 21:
        return {"natural": 1.0}
    if n_cards >= 2 and best >= 17:
        return {best if best <= 21 else "bust": 1.0}
    ends = {}
    for v, p in PIPS:
        for total, q in dealer_ends(hard + v, has_ace or v == 1, min(n_cards + 1, 3)).items():
            ends[total] = ends.get(total, 0) + p * q
    return ends


def worth_of_blackjack(stands_on: int | None) -> float:
    worth = 0.0
    for up, p in PIPS:
        natural = dealer_ends(up, up == 1, 1).get("natural", 0)
        for a, q in PIPS:
            for b, r in PIPS:
                if {a, b} == {1, 10}:
                    value = natural * 1 + (1 - natural) * 2.5
                else:
                    value = (1 - natural) * worth_of_hand(a + b, 1 in (a, b), up, stands_on)
                worth += p * q * r * value
    return worth


def totals(ranks):
    """Of each hand (a row) after each of its cards."""
    hard = np.minimum(ranks, 10).cumsum(axis=1)
    has_ace = np.logical_or.accumulate(ranks == 1, axis=1)
    return hard + 10 * (has_ace & (hard + 10 <= 21))


def paid(tape, stands_on):
    """What comes back of $10 for who hits below `stands_on`."""
    ranks = (tape * 13).astype(int) + 1
    own, dealer = totals(ranks[:, :20]), totals(ranks[:, 20:])
    row = np.arange(len(tape))
    mine = own[row, 1 + (own[:, 1:] >= stands_on).argmax(axis=1)]
    theirs = dealer[row, 1 + (dealer[:, 1:] >= 17).argmax(axis=1)]
    wins = (mine <= 21) & ((theirs > 21) | (mine > theirs))
    result = np.where(wins, 20, np.where((mine == theirs) & (mine <= 21), 10, 0))
    is_natural, is_theirs = own[:, 1] == 21, dealer[:, 1] == 21
    result[is_natural], result[is_theirs], result[is_natural & is_theirs] = 25, 0, 10
    return result


@pytest.mark.parametrize(("stands_on", "worth"), [(17, 0.943), (12, 0.919), (None, 0.976)])
def test_blackjack_is_worth_what_is_stated(stands_on, worth):
    exact = worth_of_blackjack(stands_on)
    assert round(exact, 3) == worth
    if stands_on is not None:
        drawn = paid(luck_tape(GAMES.load("blackjack"), 0, 0, 100_000), stands_on) / 10
        assert abs(drawn.mean() - exact) < 4 * drawn.std() / len(drawn) ** 0.5


def test_hands_of_blackjack_pay_what_the_cards_say():
    from fluoroscope.studies.gambling.games.blackjack import total

    game = one_game("blackjack")
    tape = luck_tape(type(game), 0, 0, 400)
    for luck, expected in zip(tape, paid(tape, 17), strict=True):
        state = game.step(game.reset(), Action("bet", 10), luck)
        while state.hand:
            done = Action("hit" if total(state.hand) < 17 else "stand")
            state = game.step(state, done, luck)
        assert state.rounds[-1].payout == expected


def cards(*ranks: int) -> np.ndarray:
    """Luck of these ranks: the player's, then None, then the dealer's."""
    luck = np.full(32, 0.5 / 13)
    own, dealer = ranks[: ranks.index(None)], ranks[ranks.index(None) + 1 :]
    luck[: len(own)] = (np.array(own) - 0.5) / 13
    luck[20 : 20 + len(dealer)] = (np.array(dealer) - 0.5) / 13
    return luck


BLACKJACK = [
    ((1, 13, None, 10, 9), [], 5, 12, True, "you 21 (A K), dealer 19 (10 9)"),
    ((1, 13, None, 1, 12), [], 5, 5, None, "you 21 (A K), dealer 21 (A Q)"),
    ((10, 10, None, 11, 1), [], 5, 0, False, "you 20 (10 10), dealer 21 (J A), near miss"),
    ((10, 6, 6, None, 10, 6), ["hit"], 5, 0, False, "near miss"),
    ((10, 6, 7, None, 10, 6), ["hit"], 5, 0, False, "dealer 17 (10 6 A)"),
    ((10, 6, 5, None, 10, 6), ["hit"], 5, 10, True, "you 21 (10 6 5)"),
    ((10, 8, None, 10, 8), ["stand"], 5, 5, None, "dealer 18"),
    ((10, 8, None, 10, 6, 10), ["stand"], 5, 10, True, "dealer 26"),
    ((1, 6, None, 6, 1), ["stand"], 5, 5, None, "dealer 17 (6 A)"),
]


@pytest.mark.parametrize(("ranks", "kinds", "bet", "payout", "won", "note"), BLACKJACK)
def test_a_hand_of_blackjack_by_hand(ranks, kinds, bet, payout, won, note):
    game = one_game("blackjack")
    luck = cards(*ranks)
    state = game.step(game.reset(), Action("bet", bet), luck)
    for kind in kinds:
        assert state.balance == 100
        assert state.stake == bet
        state = game.step(state, Action(kind), luck)
    last = state.rounds[-1]
    assert (last.bet, last.payout, last.won) == (bet, payout, won)
    assert note in last.note
    assert ("near miss" in last.note) == ("near miss" in note)
    assert state.n_decisions == 1 + len(kinds)
    assert (state.hand, state.dealer, state.stake) == ((), (), 0)


def test_a_push_ends_a_row_of_losses_and_is_neither_won_nor_lost():
    rounds = (Round("bet", 5, False, 0, 95), Round("bet", 5, None, 5, 95))
    state = State(95, rounds)
    assert (state.losses, state.last_won) == (0, None)
    assert "Round 2: Bet $5, PUSH, Balance $95" in one_game("blackjack").observe(state)


def test_no_hand_of_blackjack_needs_more_cards_than_there_are():
    def most(limit, hands, n):
        """Cards of the longest hand that may go on while its total is below `limit`."""
        going = {
            (hard + v, ace or v == 1)
            for hard, ace in hands
            for v, _ in PIPS
            if n < 2 or (hard + 10 if ace and hard + 10 <= 21 else hard) < limit
        }
        return most(limit, going, n + 1) if going else n

    assert most(21, {(0, False)}, 0) == 20
    assert most(17, {(0, False)}, 0) == 12


def test_a_hand_is_finished_before_the_game_ends():
    game = one_game("blackjack", max_rounds=2)
    luck = cards(2, 3, 4, 10, None, 10, 7)
    state = game.step(game.reset(), Action("bet", 10), luck)
    state = game.step(state, Action("hit"), luck)
    assert (state.n_decisions, state.outcome) == (2, None)
    assert game.skip(state, 5).outcome is None
    assert game.skip(state, 1).outcome == "invalid"
    assert game.step(state, Action("stand"), luck).outcome == "max_rounds"


def test_the_cards_of_a_round_do_not_depend_on_how_the_one_before_was_played():
    game = one_game("blackjack")
    tape = np.stack([cards(2, 3, 4, 5, None, 10, 7), cards(10, 9, None, 8, 8)])
    bet = Action("bet", 10)
    hands = set()
    for kinds in (["stand"], ["hit", "stand"], ["hit", "hit", "stand"]):
        end = replay(game, [bet, *(Action(kind) for kind in kinds), bet], tape, 3)[-1]
        hands.add((end.hand, end.dealer))
    assert hands == {((10, 9), (8,))}
