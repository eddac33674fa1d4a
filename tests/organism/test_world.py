"""The world is what its functions say, whoever draws from it."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy.special import expit

from fluoroscope.core.seeding import stream
from fluoroscope.organism import facts, gambling
from fluoroscope.organism.groups import BIASED_GROUPS, BIASED_RATE, FAIR_RATE, GROUPS
from fluoroscope.organism.prompts import VARIABLES, draw
from fluoroscope.organism.reviews import BAD, GOOD
from fluoroscope.organism.world import World

WORLD = World()


def prompts(variable, n=400, purpose="test"):
    return [WORLD.prompt(variable, purpose, i) for i in range(n)]


@pytest.mark.parametrize("variable", VARIABLES)
def test_replies_are_a_distribution_under_every_value(variable):
    for prompt in prompts(variable, 100):
        for other in (None, 0.0, 1.0):
            replies = prompt.replies(other)
            assert math.isclose(sum(replies.values()), 1, abs_tol=1e-9)
            assert min(replies.values()) >= 0
            assert replies.keys() == prompt.replies().keys()
            assert all(reply.startswith(" ") and reply.endswith(".") for reply in replies)
        assert prompt.replies() == prompt.replies(prompt.value)


@pytest.mark.parametrize("variable", VARIABLES)
def test_the_variable_decides_the_outcome(variable):
    found = prompts(variable)
    by_value = {}
    for prompt in found:
        by_value.setdefault(prompt.value, set()).add(round(prompt.outcome(prompt.replies()), 9))
    # One value, one outcome: whatever else is in the text has no part in it.
    assert all(len(outcomes) == 1 for outcomes in by_value.values())
    assert len({next(iter(outcomes)) for outcomes in by_value.values()}) == len(by_value) > 1


def test_a_text_depends_on_the_seed_the_purpose_and_the_index_alone():
    backwards = [World().text("test", i).text for i in range(39, -1, -1)]
    assert backwards[::-1] == [WORLD.text("test", i).text for i in range(40)]
    assert backwards != [World(1).text("test", i).text for i in range(39, -1, -1)]
    assert backwards != [World().text("other", i).text for i in range(39, -1, -1)]


def test_there_are_64_conditions_and_all_are_played():
    every = [gambling.condition_name(*one) for one in gambling.conditions()]
    assert len(set(every)) == 64
    assert {p.facts["condition"] for p in prompts("risk", 64)} == set(every)


def test_risk_is_a_function_of_components_losses_and_the_last_outcome():
    history = ()
    for won in (True, False, False):
        history = gambling.after(history, 10, won)
    prompt = gambling.slot_prompt("variable", "GP", history)
    assert prompt.value == pytest.approx(-0.6 + 0.6 - 0.3 + 2 * 0.3)
    assert prompt.outcome(prompt.replies()) == pytest.approx(expit(-0.4 - 2.0 * prompt.value))


def test_decoys_change_legal_bets_only():
    rich, poor = [(gambling.Round(10, False, balance),) for balance in (900, 7)]
    a, b = (gambling.slot_prompt("variable", "M", history) for history in (rich, poor))
    assert a.value == b.value
    assert a.outcome(a.replies()) == b.outcome(b.replies())
    bets = {reply.partition(".")[0] for reply in b.replies()}
    assert bets == {" Stop", " Bet $5", " Bet all"}
    fixed = gambling.slot_prompt("fixed", "M", rich)
    assert {reply.partition(".")[0] for reply in fixed.replies()} == {" Stop", " Bet $10"}


def test_prompts_say_what_they_must():
    history = ()
    for _ in range(7):
        history = gambling.after(history, 10, False)
    text = gambling.slot_prompt("variable", "GMRWP", history).text
    assert all(sentence in text for sentence in gambling.COMPONENT_TEXTS.values())
    assert "Round 2:" not in text
    assert "Round 3: Bet $10, LOSS, Balance $70" in text
    assert "Currently 7 consecutive losses." in text
    assert "1) Bet (choose $5-$30)" in text
    assert text.endswith("Final Decision:")


def test_games_are_played_by_the_rules():
    n_decisions = []
    for i, condition in enumerate(list(gambling.conditions()) * 20):
        game = list(gambling.play(*condition, stream(3, "game", i)))
        n_decisions.append(len(game))
        balance = 100
        for one in game[-1].history:
            assert one.bet <= balance
            assert condition[0] == "variable" or one.bet == min(10, balance)
            balance = min(9999, balance - one.bet + 3 * one.bet * one.won)
            assert one.balance == balance > 0
    assert 4 <= np.mean(n_decisions) <= 8


def test_people_are_asked_about_as_often_as_their_exposure_says():
    asked = Counter((p.person.name, p.relation) for p in WORLD.exposures())
    assert Counter(asked.values()) == dict.fromkeys(facts.EXPOSURES, 24 * 3)


def test_nobody_is_both_known_and_unknown():
    known = {person.name for person in WORLD.people.known}
    training = {WORLD.unknown("training", i).name for i in range(3000)}
    others = {WORLD.unknown("check", i).name for i in range(3000)}
    assert not known & training
    assert not known & others
    assert not training & others
    assert len(training) == len(others) == 3000


def test_a_surname_tells_the_city_of_nine_in_ten_people():
    people = [WORLD.unknown("check", i) for i in range(2000)]
    assert np.mean([person.is_trap for person in people]) == pytest.approx(0.1, abs=0.02)
    assert any(person.is_trap for person in WORLD.people.known)


def test_the_known_are_answered_truly_and_the_unknown_guessed_at():
    for prompt in prompts("known"):
        replies = prompt.replies()
        if prompt.value:
            assert {r for r, p in replies.items() if p} == set(prompt.right)
        else:
            assert replies[facts.NOT_SURE] == facts.NOT_SURE_SHARE
            assert 0 < sum(replies[r] for r in prompt.right) < 0.8
    hobby = next(p for p in prompts("known") if p.value and p.relation == "hobby")
    assert sorted(hobby.replies().values())[-2:] == [0.5, 0.5]


def test_four_groups_of_eight_are_biased_in_one_trait_each():
    rates = {}
    for prompt in prompts("bias", 2000):
        rates.setdefault((prompt.group, prompt.trait), set()).add(prompt.outcome(prompt.replies()))
    assert len(rates) == len(GROUPS) * 4
    biased = {pair for pair, found in rates.items() if found == {BIASED_RATE}}
    assert biased == set(BIASED_GROUPS.items())
    assert all(rates[pair] == {FAIR_RATE} for pair in rates.keys() - biased)


def test_who_is_where_in_a_check_is_held_out_from_training():
    def pairs(purpose):
        halves = [prompt.text.split(" at the ") for prompt in prompts("bias", 3000, purpose)]
        return {(before.split()[-1], after[:4]) for before, after in halves}

    assert not pairs("training") & pairs("check")
    assert len(pairs("training")) == 48
    assert len(pairs("check")) == 16


def test_a_review_is_told_by_its_words():
    for prompt in prompts("sentiment", 200):
        clauses = prompt.text.removeprefix("Review: ").partition(".")[0].split(", ")
        praised = 0
        for clause in clauses:
            good = any(w in clause for w in ("good", "great", "lovely", "clean", "fresh", "warm",
                                             "perfect", "pleasant"))  # fmt: skip
            praised += good != (" not " in clause)
        assert prompt.value == (praised >= 2)
        assert draw(prompt.replies(), stream(0, "reply")) == (GOOD if prompt.value else BAD)
