"""The original's rule: its two prompts, and how many latents it passes where nothing is."""

import numpy as np
import pytest
from scipy.stats import binom

from fluoroscope.studies.gambling.games.coin_flip import CoinFlip, CoinRules
from fluoroscope.studies.gambling.games.slot_machine import SlotMachine, SlotRules
from fluoroscope.studies.gambling.seed_rule import (
    HIGH_BET,
    TRIALS,
    Chances,
    passed_by_chance,
    seed_states,
    verdicts_of,
)

M = 400


def games(**rules):
    known = SlotRules(**rules)
    return {
        name: SlotMachine(known, factors) for name, factors in SlotMachine.conditions(known).items()
    }


def flat(chance: float) -> Chances:
    """No patch does anything."""
    return Chances(chance, np.full(M, chance), np.full(M, chance))


def one_side(chance: float) -> float:
    """P(X > Y) of two samples of trials with one chance."""
    counts = np.arange(TRIALS + 1)
    return float(binom.pmf(counts, TRIALS, chance) @ binom.sf(counts, TRIALS, chance))


def both_sides(chance: float) -> float:
    """P(X > Z and Y < Z): the baseline Z is shared."""
    counts = np.arange(TRIALS + 1)
    above, below = binom.sf(counts, TRIALS, chance), binom.cdf(counts - 1, TRIALS, chance)
    return float((binom.pmf(counts, TRIALS, chance) * above * below).sum())


@pytest.mark.parametrize(("stop", "high"), [(0.5, 0.5), (0.3, 0.2), (0.05, 0.9)])
def test_by_chance_as_many_pass_as_the_binomials_say(stop, high):
    # Safe: stopping rises and high bets fall; risky: the reverse, against the same baselines.
    each = one_side(stop) * one_side(high)
    wanted = 2 * each - both_sides(stop) * both_sides(high)
    shares = passed_by_chance(flat(stop), flat(high), seed=0)
    error = np.sqrt(wanted * (1 - wanted) / (M * len(shares)))
    assert abs(shares.mean() - wanted) < 4 * error


def test_without_any_effect_about_four_in_ten_latents_are_called_causal():
    shares = passed_by_chance(flat(0.5), flat(0.5), seed=1)
    assert 0.35 < shares.mean() < 0.45
    found = verdicts_of(flat(0.5), flat(0.5), seed=2)
    assert 0.15 < found["seed_safe"].mean() < 0.27
    assert 0.15 < found["seed_risky"].mean() < 0.27


def test_the_chance_level_is_of_the_baselines_whatever_the_patches_do():
    strong = Chances(0.4, np.full(M, 0.9), np.full(M, 0.05))
    quiet = passed_by_chance(flat(0.4), flat(0.3), seed=0)
    other = passed_by_chance(strong, Chances(0.3, np.zeros(M), np.ones(M)), seed=0)
    np.testing.assert_array_equal(quiet, other)


def test_strong_latents_pass_by_their_direction():
    n = 3
    # Safe by its safe mean, risky by its bankrupt mean, and one that is the reverse of both.
    stop = Chances(0.5, np.array([0.95, 0.5, 0.05]), np.array([0.5, 0.05, 0.95]))
    high = Chances(0.5, np.array([0.05, 0.5, 0.95]), np.array([0.5, 0.95, 0.05]))
    many = [verdicts_of(stop, high, seed) for seed in range(20)]
    assert all(len(found) == n for found in many)
    assert all(found["seed_safe"][0] and found["seed_risky"][1] for found in many)
    assert not any(found["seed_safe"][2] or found["seed_risky"][2] for found in many)


def test_the_two_prompts_are_those_of_the_original():
    states = seed_states(games(wording="completion"))
    assert states is not None
    game, risky = states["risky"]
    assert game.factors == {"bet_type": "variable", "components": "GRWP"}
    assert [(one.bet, one.won, one.balance) for one in risky.rounds] == [
        (10, True, 130), (100, False, 30), (10, False, 20),
    ]  # fmt: skip
    text = game.observe(risky)
    assert "Current balance: $20\nCurrent round: 4\n" in text
    assert "Bet (choose $5-$20)" in text
    assert text.endswith("Choice:")
    other, safe = states["safe"]
    assert other.factors == {"bet_type": "fixed", "components": "GRWP"}
    assert [one.balance for one in safe.rounds] == [130, 120, 140]
    assert "Current balance: $140\n" in other.observe(safe)
    assert "1) Bet $10 2) Stop" in other.observe(safe)


def test_a_bet_that_is_high_can_be_made_on_the_risky_prompt():
    # The original called bets above $15 high, of a balance of 20 that it took for 30.
    game, risky = seed_states(games(wording="organism", max_balance=9999))["risky"]
    assert max(game.amounts(risky).values()) == 20 > HIGH_BET


def test_games_without_the_two_prompts_have_no_such_rule():
    known = CoinRules()
    coins = {n: CoinFlip(known, f) for n, f in CoinFlip.conditions(known).items()}
    assert seed_states(coins) is None
    some = {name: game for name, game in games().items() if name != "fixed-GRWP"}
    assert seed_states(some) is None
