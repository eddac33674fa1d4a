"""Laws of every game in the registry, and numbers of each."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import every_game, one_game, play_at_random, say

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream
from fluoroscope.studies.gambling.games import GAMES
from fluoroscope.studies.gambling.games.base import (
    OUTCOMES,
    Game,
    Rules,
    State,
    luck_tape,
    pays,
    percent,
    replay,
    times,
)
from fluoroscope.studies.gambling.games.slot_machine import SlotMachine
from fluoroscope.studies.gambling.reading import Action


class Played(NamedTuple):
    name: str
    condition: str
    game: Game
    actions: list[Action | None]
    goals: list[int | None]
    states: list[State]


@pytest.fixture(scope="module")
def played() -> list[Played]:
    """A random legal game of every condition of every game."""
    return [
        Played(name, condition, game, *play_at_random(game, stream(0, name, condition)))
        for name, condition, game in every_game(max_rounds=30)
    ]


def test_every_game_has_the_conditions_of_its_design():
    n = {name: len(GAMES.load(name).conditions(GAMES.load(name).rules_type())) for name in GAMES}
    assert n == {
        "slot_machine": 64,
        "investment": 32,
        "coin_flip": 64,
        "mystery_wheel": 32,
        "blackjack": 32,
    }
    assert all(GAMES.load(name).name == name for name in GAMES)


def test_money_is_conserved_round_by_round(played):
    for one in played:
        for before, after in zip(one.states, one.states[1:], strict=False):
            if len(after.rounds) == len(before.rounds):
                assert after.balance == before.balance
                continue
            last = after.rounds[-1]
            assert after.balance == last.balance == before.balance - last.bet + last.payout
            assert min(last.payout, after.balance, last.bet - 1) >= 0
            # A win of a small bet, cut to whole dollars, may bring back no more than the bet.
            is_push = last.won is None and last.payout == last.bet and one.name == "blackjack"
            assert is_push or last.payout >= last.bet * last.won >= (last.payout > 0)
        end = one.states[-1]
        paid = sum(round_.payout - round_.bet for round_ in end.rounds)
        assert end.balance == one.game.rules.start_balance + paid


def test_a_fixed_bet_is_exact_or_all_that_is_left(played):
    for one in played:
        if one.game.factors["bet_type"] == "fixed":
            fixed = int(one.game.factors.get("cap", 10))
            balance = one.game.rules.start_balance
            for round_ in one.states[-1].rounds:
                assert round_.bet == min(fixed, balance)
                balance = round_.balance


def test_a_log_reproduces_every_state(played):
    for one in played:
        tape = luck_tape(type(one.game), 0, 0, one.game.rules.max_rounds)
        assert replay(one.game, one.actions, tape, 3, one.goals) == one.states


def test_what_is_said_in_the_asked_form_is_what_is_read(played):
    for one in played:
        for state, action in zip(one.states, one.actions, strict=False):
            if action is not None:
                reading = one.game.read(say(action), state)
                assert (reading.kind, reading.amount or 0) == action
                assert reading.confidence == 1 or type(one.game) is SlotMachine


def test_a_prompt_shows_the_state_and_is_never_read_as_a_decision(played):
    for one in played:
        for state in one.states[:-1][:4]:
            prompt = one.game.observe(state)
            assert f"Current balance: ${state.balance}\n" in prompt
            assert len(prompt) < 2000
            for text in (prompt, prompt + one.game.reminder(state)):
                assert one.game.read(text, state).kind is None
                quoted = f"{text}\n\n{say(Action('stop'))}"
                if not state.hand:
                    assert one.game.read(quoted, state).kind == "stop"


def test_games_end_once_and_for_a_named_reason(played):
    for one in played:
        assert one.states[-1].outcome in OUTCOMES
        assert not any(state.outcome for state in one.states[:-1])
        if one.states[-1].outcome == "voluntary_stop":
            assert one.actions[-1] == Action("stop")
        if one.states[-1].outcome == "bankruptcy":
            assert one.states[-1].balance == 0
        if one.states[-1].outcome == "max_rounds":
            assert one.states[-1].n_decisions >= 30
    found = {(one.name, one.states[-1].outcome) for one in played}
    assert {name for name, _ in found} == set(GAMES)


def test_every_decision_counts_once(played):
    for one in played:
        n = len(one.actions) - (one.states[-1].outcome == "voluntary_stop")
        assert one.states[-1].n_decisions == n
        numbers = [state.n_decisions for state in one.states[:-1]]
        assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("name", GAMES)
def test_what_is_not_legal_is_refused_with_what_is(name):
    game = one_game(name)
    state, luck = game.reset(), np.full(game.n_draws, 0.5)
    offer = game.legal(state)
    bet = offer.kinds[0]
    wrong = [
        Action("fly"),
        Action("bet" if bet != "bet" else "option 2", 10),
        Action("hit"),
        Action("stop", 10),
        *(Action(bet, amount) for amount in (0, -5, offer.low - 1, offer.high + 1)),
    ]
    for action in wrong:
        with pytest.raises(ConfigError, match="is not legal") as refused:
            game.step(state, action, luck)
        assert f"{bet} (${offer.low} to ${offer.high})" in str(refused.value)
        assert "stop" in str(refused.value)
    over = game.step(state, Action("stop"), luck)
    with pytest.raises(ConfigError, match=r"over \(voluntary_stop\)"):
        game.step(over, Action(bet, 10), luck)


@pytest.mark.parametrize("name", GAMES)
def test_all_endings_are_reached_and_only_who_stops_stopped(name):
    game = one_game(name, max_rounds=4)
    start, bet = game.reset(), game.legal(game.reset()).kinds[0]
    tape = luck_tape(type(game), 0, 0, 4)
    assert replay(game, [Action("stop")], tape, 2)[-1].outcome == "voluntary_stop"
    assert replay(game, [None, None], tape, 2)[-1].outcome == "invalid"
    assert replay(game, [None] * 4, tape, 9)[-1].outcome == "max_rounds"
    lost = np.full(game.n_draws, 0.99)
    if name == "blackjack":
        # The dealer has 20 against 12, which is no more than it is.
        lost[:2], lost[20:22] = 5.5 / 13, 0.99
    broke = start
    while broke.outcome is None:
        offer = game.legal(broke)
        done = Action("stand") if broke.hand else Action(bet, offer.high)
        broke = game.step(broke, done, lost)
    assert (broke.outcome, broke.balance) == ("bankruptcy", 0)
    last = start
    while last.outcome is None:
        low = game.legal(last).low
        done = Action("stand") if last.hand else Action(bet, low)
        last = game.step(last, done, tape[len(last.rounds)])
    assert (last.outcome, last.n_decisions) == ("max_rounds", 4)


def test_a_read_decision_starts_the_count_of_skips_anew():
    game = one_game("slot_machine")
    tape = luck_tape(SlotMachine, 0, 0, 9)
    bet = Action("bet", 5)
    end = replay(game, [None, None, bet, None, None, bet], tape, 3)[-1]
    assert (end.outcome, end.skips, end.skips_in_a_row) == (None, 4, 0)
    assert end.balance == 100 + sum(one.payout - one.bet for one in end.rounds)


@pytest.mark.parametrize("name", GAMES)
def test_a_longer_tape_begins_as_the_shorter_one(name):
    kind = GAMES.load(name)
    short, long = luck_tape(kind, 3, 7, 10), luck_tape(kind, 3, 7, 25)
    assert short.shape == (10, kind.n_draws)
    np.testing.assert_array_equal(long[:10], short)
    assert not np.array_equal(short, luck_tape(kind, 3, 8, 10))
    assert not np.array_equal(short, luck_tape(kind, 4, 7, 10))


@pytest.mark.parametrize("name", ["slot_machine", "coin_flip", "mystery_wheel", "investment"])
def test_a_round_is_lucky_in_all_conditions_or_in_none(name):
    kind = GAMES.load(name)
    tape = luck_tape(kind, 0, 0, 5)
    seen = set()
    for factors in kind.conditions(kind.rules_type()).values():
        game = kind(kind.rules_type(), factors)
        bet = Action(game.legal(game.reset()).kinds[0], 10)
        state = replay(game, [bet] * 5, tape, 3)[-1] if factors.get("cap", "10") == "10" else None
        if state is not None:
            seen.add(tuple((one.won, one.note) for one in state.rounds))
    assert len(seen) == 1


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from(sorted(GAMES)), st.integers(1, 500))
def test_no_balance_is_ever_negative_or_beyond_its_limit(seed, name, most):
    random = stream(seed)
    game = one_game(name, max_rounds=12, start_balance=most, max_balance=2 * most)
    *_, states = play_at_random(game, random)
    for state in states:
        assert 0 <= state.balance <= 2 * most
    end = states[-1]
    assert end.balance == most + sum(one.payout - one.bet for one in end.rounds)


def test_what_screening_looks_for_is_what_is_read(played):
    for one in played:
        for state in one.states[:-1][:4]:
            cue, offer = one.game.cue(state) or "\n\nFinal Decision:", one.game.legal(state)
            openings = one.game.openings(state)
            kinds = {
                name: {one.game.read(cue + text, state).kind for text in texts if text != " $"}
                for name, texts in openings.items()
            }
            assert kinds["stop"] == {offer.kinds[-1]}
            assert kinds["bet"] <= set(offer.kinds[:-1])
            assert kinds["bet"]
            for text, amount in one.game.amounts(state).items():
                reading = one.game.read(cue + text, state)
                assert offer.allows(Action(reading.kind, amount))
                assert reading.amount == amount


def test_multipliers_are_exact():
    assert pays(2.3, 50) == 115
    assert pays(1.8, 6) == 10
    assert pays(1.5, 5) == 7
    assert [times(m) for m in (3.0, 1.8, 2.25)] == ["3.0", "1.8", "2.25"]
    assert [percent(p) for p in (0.3, 0.07, 0.125)] == ["30%", "7%", "12.5%"]


WORTH = {
    ("slot_machine", "bet"): 0.9,
    ("coin_flip", "bet"): 0.9,
    ("mystery_wheel", "bet"): 0.9,
    ("investment", "option 2"): 0.9,
    ("investment", "option 3"): 0.9,
    ("investment", "option 4"): 0.9,
}
VARIANCE = {"option 2": 0.81, "option 3": 2.43, "option 4": 7.29}


@pytest.mark.parametrize(("name", "kind"), WORTH)
def test_a_dollar_that_is_bet_is_worth_what_is_stated(name, kind):
    game = one_game(name)
    # All probabilities are whole percents, so luck in one of 1000 classes does the same.
    middles = (np.arange(1000) + 0.5) / 1000
    steps = (game.step(game.reset(), Action(kind, 10), np.array([u])) for u in middles)
    payouts = np.array([after.rounds[-1].payout for after in steps]) / 10
    assert payouts.mean() == pytest.approx(WORTH[name, kind], abs=1e-12)
    if kind in VARIANCE:
        assert payouts.var() == pytest.approx(VARIANCE[kind], abs=1e-9)
    draws = luck_tape(type(game), 0, 0, 100_000)[:, 0]
    drawn = payouts[(draws * 1000).astype(int)]
    assert abs(drawn.mean() - WORTH[name, kind]) < 4 * drawn.std() / len(drawn) ** 0.5


def test_the_third_option_can_be_worth_less_as_in_the_original_code():
    game = one_game("investment", multipliers=[1.8, 3.2, 9.0], max_rounds=10)
    after = game.step(game.reset(), Action("option 3", 10), np.array([0.2]))
    assert after.balance == 100 - 10 + 32
    assert "25% chance to receive 3.2 times" in game.observe(after)
    with pytest.raises(ConfigError, match="probability and a multiplier each"):
        build(type(game.rules), {"multipliers": [2.0]})


def test_a_stated_goal_is_carried_over_where_it_was_asked_for():
    luck = np.array([0.9])
    for condition, goal in (("fixed-G-10", 150), ("fixed-M-10", None)):
        game = one_game("investment", condition)
        state = game.step(game.reset(), Action("option 2", 10), luck)
        reading = game.read("Target: $150\nFinal Decision: Option 2", state)
        assert game.noted(state, reading).goal == goal
        shown = "Your own target: $150" in game.observe(game.noted(state, reading))
        assert shown == (goal is not None)
        silent = game.read("Final Decision: Option 2", state)
        assert game.noted(replace(state, goal=goal), silent).goal == goal


def test_parts_that_a_game_does_not_have_are_refused():
    rules = GAMES.load("mystery_wheel").rules_type(components="GMP")
    with pytest.raises(ConfigError, match="mystery_wheel has the parts GMRW; got P"):
        GAMES.load("mystery_wheel").conditions(rules)
    prompt = one_game("mystery_wheel", "fixed-BASE").observe(State(100))
    assert "%" not in prompt
    assert "times" not in prompt


def test_settings_of_every_game_are_closed():
    for name in GAMES:
        with pytest.raises(ValueError, match="colour"):
            GAMES.load(name).rules_type(colour="red")
        assert issubclass(GAMES.load(name).rules_type, Rules)
