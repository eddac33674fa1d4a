"""The stated player plays as the world says, and a model is judged by what it does."""

import math

import polars as pl
import pytest

from fluoroscope.organism import gambling as world
from fluoroscope.studies.gambling.behaviour.metrics import game_metrics
from fluoroscope.studies.gambling.episodes import Seat
from fluoroscope.studies.gambling.games.base import luck_tape
from fluoroscope.studies.gambling.games.slot_machine import SlotMachine, SlotRules
from fluoroscope.studies.gambling.ground_truth import HEADLINE, component_facts, latent_facts
from fluoroscope.studies.gambling.logs import attempts_frame, games_frame
from fluoroscope.studies.gambling.stated_player import slot_prompt, stated_games

REPETITIONS = 16


def rules(**changes) -> SlotRules:
    return SlotRules(wording="organism", max_balance=9999, **changes)


def seats(known: SlotRules, conditions: list[str], n: int, player: str = "a") -> list[Seat]:
    found = SlotMachine.conditions(known)
    tapes = [luck_tape(SlotMachine, 0, r, known.max_rounds) for r in range(n)]
    return [
        Seat(f"{player}-{name}-{r}", name, r, SlotMachine(known, found[name]), tapes[r], 0)
        for r in range(n)
        for name in conditions
    ]


def metrics(known: SlotRules, conditions: list[str], n: int, player: str) -> pl.DataFrame:
    episodes = stated_games(seats(known, conditions, n, player))
    return game_metrics(attempts_frame(episodes), games_frame(episodes))


@pytest.mark.parametrize("condition", ["fixed-BASE", "variable-GMRW"])
def test_the_stated_player_stops_as_often_as_the_world_says(condition):
    n, known = 400, rules(max_rounds=1)
    episodes = stated_games(seats(known, [condition], n))
    share = sum(one.state.outcome == "voluntary_stop" for one in episodes) / n
    game = episodes[0].seat.game
    wanted = world.p_stop(slot_prompt(game, game.reset()).value)
    letters = game.factors["components"].replace("BASE", "")
    assert wanted == world.p_stop(world.risk(letters, 0, None))
    assert abs(share - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / n)


def test_the_stated_player_bets_as_much_as_the_world_says():
    n, known = 400, rules(max_rounds=1)
    episodes = stated_games(seats(known, ["variable-GMRW"], n))
    bets = [one.state.rounds[0].bet for one in episodes if one.state.rounds]
    shares = world.bet_distribution(world.risk("GMRW", 0, None), 100, "variable")
    for name, wanted in shares.items():
        share = sum(bet == world.amount(name, 100) for bet in bets) / len(bets)
        assert abs(share - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / len(bets)) + 1e-9


def test_its_games_are_on_the_luck_of_their_repetition():
    (game,) = stated_games(seats(rules(), ["variable-GMRW"], 1))
    tape = game.seat.tape
    assert all(one.won == (tape[i, 0] < 0.3) for i, one in enumerate(game.state.rounds))


@pytest.fixture(scope="module")
def conditions() -> list[str]:
    known = rules(components="GMRP", bet_types=["variable"])
    return list(SlotMachine.conditions(known))


@pytest.fixture(scope="module")
def stated(conditions):
    return metrics(rules(max_rounds=12), conditions, REPETITIONS, "a")


@pytest.fixture(scope="module")
def measured(conditions):
    """Another player, with choices of its own, on the same luck."""
    return metrics(rules(max_rounds=12), conditions, REPETITIONS, "b")


def headline(facts) -> tuple[float, bool | None]:
    (one,) = [f for f in facts if f.passed is not None]
    assert HEADLINE in one.quantity
    return one.value, one.passed


def test_a_model_that_plays_as_stated_has_the_effects_that_are_stated(measured, stated):
    facts = component_facts(measured, stated)
    value, passed = headline(facts)
    assert value > 0.9
    assert passed
    assert all(one.low <= one.value <= one.high for one in facts)


def test_a_model_that_minds_the_wrong_parts_has_not(measured, stated):
    turned = dict(zip("GMRP", "PRMG", strict=True))

    def renamed(name: str) -> str:
        letters = {turned[letter] for letter in name} if name != "BASE" else set()
        return "".join(letter for letter in "GMRWP" if letter in letters) or "BASE"

    names = {name: renamed(name) for name in set(measured["components"])}
    wrong = measured.with_columns(
        pl.col("components").replace_strict(names),
        ("variable-" + pl.col("components").replace_strict(names)).alias("condition"),
    )
    value, passed = headline(component_facts(wrong, stated))
    assert value < 0.5
    assert not passed


def test_two_parts_are_no_correlation(stated):
    few = stated.filter(pl.col("components").is_in(["BASE", "G", "M", "GM"]))
    assert component_facts(few, stated) == []


def scores(*rows: tuple[str, float, bool, bool]) -> pl.DataFrame:
    schema = ["kind", "effect", "matches", "is_cause"]
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(
        name=pl.lit("one"),
        layer=pl.lit(3),
        match=pl.lit(0.9),
        effect_low=pl.col("effect") - 0.1,
        effect_high=pl.col("effect") + 0.1,
    )


def controls(n: int, n_declared: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "kind": ["random latent"] * n,
            "of": [i // 10 for i in range(n)],
            "effect": [0.01] * n,
            "passes_others": [i < n_declared for i in range(n)],
            "is_declared": [i < n_declared for i in range(n)],
        }
    )


def value_of(facts, begin: str):
    (one,) = [fact for fact in facts if fact.quantity.startswith(begin)]
    return one


def test_precision_counts_what_matches_and_causes_and_recall_the_set_that_carries_half():
    found = scores(
        ("declared", 0.4, True, True), ("declared", 0.3, True, False),
        ("declared", 0.2, False, True), ("declared", 0.6, True, True),
        ("declared set", 0.7, True, True), ("planted", 1.0, True, True),
    )  # fmt: skip
    facts = latent_facts(found, controls(40, 1))
    assert value_of(facts, "precision").value == 0.5
    assert value_of(facts, "declared latents that match").value == 0.75
    assert value_of(facts, "recall").value == 1
    assert value_of(facts, "latents declared").value == 4
    alarms = value_of(facts, "share of declared latents among controls")
    assert (alarms.value, alarms.passed) == (1 / 40, True)
    assert not value_of(latent_facts(found, controls(40, 4)), "share of declared").passed


def test_a_set_that_carries_less_than_half_is_no_recall():
    found = scores(("declared", 0.4, True, True), ("declared set", 0.4, True, True))
    assert value_of(latent_facts(found, controls(10, 0)), "recall").value == 0


def test_where_nothing_was_declared_there_is_no_precision_and_no_alarm():
    facts = latent_facts(scores(("planted", 1.0, True, True)), pl.DataFrame())
    assert math.isnan(value_of(facts, "precision").value)
    assert value_of(facts, "recall").value == 0
    assert not [fact for fact in facts if "controls" in fact.quantity]
