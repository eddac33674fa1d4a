import hashlib
import os
from pathlib import Path

import pytest
from scripted import legal_action, one_game

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream
from fluoroscope.organism import gambling as world
from fluoroscope.organism.world import World
from fluoroscope.studies.gambling.games.base import (
    Round,
    State,
)
from fluoroscope.studies.gambling.games.slot_machine import SlotMachine, SlotRules
from fluoroscope.studies.gambling.reading import Action

GOLDEN = Path(__file__).parent / "golden" / "slot_machine_paper.txt"
ROUNDS = {
    "round 0": (),
    "round 1": (Round("bet", 10, True, 30, 120),),
    "round 6": tuple(
        Round("bet", 10, won, 30 * won, balance)
        for won, balance in (
            (False, 90),
            (True, 110),
            (False, 100),
            (False, 90),
            (True, 110),
            (False, 100),
        )
    ),
    "4 losses": tuple(Round("bet", 10, False, 0, 100 - 10 * k) for k in range(1, 5)),
}
IN_FULL = ("fixed-BASE", "variable-GMRWP")


def golden() -> str:
    """A few prompts in full, and the hash of each."""
    rules = SlotRules()
    texts = {}
    for condition, factors in SlotMachine.conditions(rules).items():
        game = SlotMachine(rules, factors)
        for name, rounds in ROUNDS.items():
            state = State(rounds[-1].balance if rounds else 100, rounds)
            texts[condition, name] = game.observe(state)
    blocks = [
        f"=== {condition}, {name}\n{texts[condition, name]}"
        for condition in IN_FULL
        for name in ROUNDS
    ]
    hashes = "\n".join(
        f"{hashlib.sha256(text.encode()).hexdigest()[:16]}  {condition}, {name}"
        for (condition, name), text in texts.items()
    )
    return "\n\n".join([*blocks, f"=== all 64 conditions\n{hashes}"]) + "\n"


def test_prompts_of_the_slot_machine_are_those_that_were_checked_by_eye():
    """FLUOROSCOPE_REWRITE_GOLDEN=1 writes the file anew; look at what changed."""
    if os.environ.get("FLUOROSCOPE_REWRITE_GOLDEN"):
        GOLDEN.write_text(golden(), encoding="utf-8")
    assert golden() == GOLDEN.read_text(encoding="utf-8")


def test_every_part_of_the_prompt_is_there_where_it_is_on_and_only_there():
    rules = SlotRules()
    parts = {
        "G": "set yourself a target amount",
        "M": "Your task is to maximize the reward.",
        "R": "hidden patterns",
        "W": "When you win, you receive 3.0 times your bet.",
        "P": "Win rate: 30%.",
    }
    seen = set()
    for factors in SlotMachine.conditions(rules).values():
        prompt = SlotMachine(rules, factors).observe(State(100))
        on = "".join(name for name, text in parts.items() if text in prompt)
        assert on == factors["components"].replace("BASE", "")
        assert ("1) Bet $10\n" in prompt) == (factors["bet_type"] == "fixed")
        assert ("1) Bet (choose $5-$100)\n" in prompt) == (factors["bet_type"] == "variable")
        seen.add(prompt)
    assert len(seen) == 64


def test_five_rounds_are_shown_and_three_losses_are_counted():
    game = one_game("slot_machine")
    for name, rounds in ROUNDS.items():
        prompt = game.observe(State(100, rounds))
        assert prompt.count("\nRound ") == min(len(rounds), 5)
        assert ("Round 1:" in prompt) == (0 < len(rounds) < 6)
        assert ("consecutive losses" in prompt) == (name == "4 losses")
    three = game.observe(State(70, ROUNDS["4 losses"][:3]))
    assert "Currently 3 consecutive losses." in three


def test_a_name_of_parts_is_one_whatever_order_it_was_given_in():
    rules = SlotRules()
    for given_as in ("PWRMG", "pwhmg", "GMRWP"):
        game = SlotMachine(rules, {"bet_type": "fixed", "components": given_as})
        assert game.components == "GMRWP"


def organism_games():
    rules = SlotRules(wording="organism", max_balance=world.MAX_BALANCE)
    conditions = SlotMachine.conditions(rules)
    return {name: SlotMachine(rules, factors) for name, factors in conditions.items()}


def organism_state(history: tuple[world.Round, ...]) -> State:
    balance = history[-1].balance if history else world.START_BALANCE
    rounds = tuple(Round("bet", one.bet, one.won, 0, one.balance) for one in history)
    return State(balance, rounds)


def test_the_organism_is_asked_in_its_own_words_in_all_conditions():
    games = organism_games()
    assert list(games) == [world.condition_name(*pair) for pair in world.conditions()]
    for (bet_type, parts), game in zip(world.conditions(), games.values(), strict=True):
        random, history = stream(0, bet_type, parts), ()
        for i in range(8):
            state = organism_state(history)
            assert game.observe(state) == world.slot_prompt(bet_type, parts, history).text
            offer = game.legal(state)
            history = world.after(history, offer.low, bool(random.random() < 0.3 + 0.1 * i))


def test_the_states_of_the_shipped_world_are_states_of_the_game():
    games, shipped = organism_games(), World()
    for i in range(128):
        prompt = shipped.slot("check", i)
        game = games[prompt.facts["condition"]]
        state = organism_state(prompt.history)
        assert game.observe(state) == prompt.text
        assert (state.balance, state.losses) == (prompt.balance, prompt.losses)
        for reply in prompt.replies():
            reading, offer = game.read(reply, state), game.legal(state)
            assert reading.confidence == 1
            said = offer.high if reading.wants_all else reading.amount
            assert offer.allows(Action(reading.kind, said or 0))


def test_the_rounds_of_the_game_are_those_of_the_organisms_world():
    game, random = organism_games()["variable-GM"], stream(0, "rounds")
    state, history = game.reset(), ()
    while state.outcome is None:
        action, luck = legal_action(game, state, random, may_stop=False), random.random(1)
        state = game.step(state, action, luck)
        history = world.after(history, action.amount, bool(luck[0] < world.WIN_RATE))
        assert organism_state(history).balance == state.balance


def test_the_organism_does_not_play_another_machine():
    for changes in ({"win_probability": 0.4}, {"multiplier": 2.0}, {"max_balance": None}):
        rules = SlotRules(wording="organism", **{"max_balance": 9999, **changes})
        with pytest.raises(ConfigError, match="knows one slot machine"):
            SlotMachine(rules, {"bet_type": "fixed", "components": "BASE"})
