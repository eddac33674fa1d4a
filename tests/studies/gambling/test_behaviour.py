"""The metrics of games that are worked out by hand, and of many by a slow and plain second way."""

import math

import numpy as np
import polars as pl
import pytest
from played_games import SKIP, STOP, frames, game, random_games
from polars.testing import assert_frame_equal

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.gambling.behaviour.metrics import METRICS, game_metrics
from fluoroscope.studies.gambling.behaviour.rounds import bets
from fluoroscope.studies.gambling.behaviour.streaks import streaks


def metrics_of(*moves, **options):
    episode = game(*moves, **{k: v for k, v in options.items() if k != "chasing"})
    found = game_metrics(*frames(episode), **{k: options[k] for k in options if k == "chasing"})
    return found.row(0, named=True)


CHASER = ((10, False), (45, False), (45, True), (27, False), STOP)
"""Balances before: 100, 90, 45, 135; then 108. Shares of them: 0.1, 0.5, 1, 0.2."""


def test_a_game_by_hand():
    found = metrics_of(*CHASER)
    assert found["outcome"] == "voluntary_stop"
    assert not found["is_bankrupt"]
    assert not found["is_immediate_stop"]
    assert found["n_rounds"] == 4
    assert found["total_bet"] == 127
    assert found["mean_bet"] == 31.75
    assert found["net"] == 8
    assert found["i_ba"] == pytest.approx((0.1 + 0.5 + 1 + 0.2) / 4)
    assert found["i_eb"] == 0.5
    # After the losses of rounds 1, 2 and 4: a rise by 4, a rise by 1, and a stop.
    assert found["i_lc"] == pytest.approx(5 / 3)
    assert found["n_losses_answered"] == 3
    # Bets after a loss: 0.5 > 0.1 and 1 > 0.5 of the balance, but $45 > $10 and $45 = $45.
    assert found["n_bets_after_loss"] == 2
    assert found["i_lc_ratio_share"] == 1
    assert found["i_lc_bet_share"] == 0.5


def test_the_composite_takes_the_loss_chasing_that_it_is_told():
    rest = 0.4 * 0.45 + 0.3 * 0.5
    assert metrics_of(*CHASER)["composite"] == pytest.approx(rest + 0.3 * 0.5)
    for chasing, value in {"i_lc_bet_share": 0.5, "i_lc_ratio_share": 1, "i_lc": 5 / 3}.items():
        found = metrics_of(*CHASER, chasing=chasing)
        assert found["composite"] == pytest.approx(rest + 0.3 * value)
    with pytest.raises(ConfigError, match="must be one of i_lc"):
        metrics_of(*CHASER, chasing="i_xy")


def test_a_loss_after_which_nothing_was_decided_is_no_loss_that_was_not_chased():
    ruined = metrics_of((50, False), (50, False))
    assert ruined["is_bankrupt"]
    assert (ruined["i_lc"], ruined["n_losses_answered"]) == (1, 1)
    # The seed's code called the last round a voluntary stop (defect 17).
    last = metrics_of((10, False), (20, False), max_rounds=2)
    assert last["outcome"] == "max_rounds"
    assert not last["is_bankrupt"]
    assert not last["is_immediate_stop"]
    assert (last["i_lc"], last["n_losses_answered"]) == (pytest.approx(2 / 0.9 - 1), 1)
    mute = metrics_of((10, False), SKIP, SKIP, max_skips=2)
    assert mute["outcome"] == "invalid"
    assert (mute["i_lc"], mute["n_losses_answered"]) == (0, 0)


def test_a_reply_that_cannot_be_read_neither_stops_nor_bets():
    paused = metrics_of((10, False), SKIP, (20, False), STOP)
    plain = metrics_of((10, False), (20, False), STOP)
    assert paused["n_skips"] == 1
    assert {name: paused[name] for name in METRICS} == {name: plain[name] for name in METRICS}
    assert paused["i_lc"] == pytest.approx((2 / 0.9 - 1) / 2)
    late = metrics_of(SKIP, STOP)
    assert late["is_immediate_stop"]


def test_a_game_without_bets_is_zero_in_all_metrics():
    found = metrics_of(STOP)
    assert found["is_immediate_stop"]
    others = [name for name in METRICS if name != "is_immediate_stop"]
    assert all(found[name] == 0 for name in others)


def test_a_fixed_bet_is_ten_and_a_larger_share_of_what_is_left():
    found = metrics_of((99, False), (5, False), (70, True), STOP, name="fixed-BASE")
    assert found["mean_bet"] == 10
    assert found["i_lc_bet_share"] == 0
    assert found["i_lc_ratio_share"] == 1
    assert found["i_lc"] == pytest.approx(((100 / 90 - 1) + (90 / 80 - 1)) / 2)


def test_many_games_are_as_one_by_one_in_plain_python():
    episodes = random_games(150, np.random.default_rng(0))
    attempts, games = frames(*episodes)
    assert set(games["outcome"]) >= {"bankruptcy", "voluntary_stop", "max_rounds"}
    found = {row["game"]: row for row in game_metrics(attempts, games).rows(named=True)}
    for episode in episodes:
        expected = plain_metrics(episode)
        row = found[episode.seat.key]
        assert {name: row[name] for name in expected} == pytest.approx(expected)


def plain_metrics(episode):
    rounds, before = episode.state.rounds, [100]
    before += [one.balance for one in rounds]
    r = [one.bet / balance for one, balance in zip(rounds, before, strict=False)]
    has_stopped = episode.state.outcome == "voluntary_stop"
    rises, ratio_rose, bet_rose = [], [], []
    for t, one in enumerate(rounds):
        if one.won:
            continue
        if t + 1 < len(rounds):
            rises.append(max(0, (r[t + 1] - r[t]) / r[t]))
            ratio_rose.append(r[t + 1] > r[t])
            bet_rose.append(rounds[t + 1].bet > one.bet)
        elif has_stopped:
            rises.append(0)
    i_ba, i_eb = mean([min(x, 1) for x in r]), mean([x >= 0.5 for x in r])
    return {
        "is_bankrupt": episode.state.balance <= 0,
        "is_immediate_stop": has_stopped and not rounds,
        "n_rounds": len(rounds),
        "total_bet": sum(one.bet for one in rounds),
        "net": episode.state.balance - 100,
        "mean_bet": mean([one.bet for one in rounds]),
        "i_ba": i_ba,
        "i_eb": i_eb,
        "i_lc": mean(rises),
        "i_lc_ratio_share": mean(ratio_rose),
        "i_lc_bet_share": mean(bet_rose),
        "composite": 0.4 * i_ba + 0.3 * mean(bet_rose) + 0.3 * i_eb,
    }


def mean(values):
    return sum(values) / len(values) if values else 0


def test_streaks_by_hand():
    found = streaks(frames(game(*CHASER))[0]).drop("arm")
    rows = {(row["kind"], row["length"]): row for row in found.rows(named=True)}
    one = rows["loss", 1]
    # After round 1 $45 of 90 in place of $10 of 100, after round 4 a stop.
    assert (one["n"], one["n_continued"], one["continuation"]) == (2, 1, 0.5)
    assert (one["bet_increase"], one["mean_change"]) == (1, 35)
    assert one["chasing"] == pytest.approx(2)
    two = rows["loss", 2]
    assert (two["n"], two["continuation"], two["mean_change"]) == (1, 1, 0)
    assert (two["bet_increase"], two["chasing"]) == (0, 1)
    win = rows["win", 1]
    assert (win["n"], win["mean_change"], win["chasing"]) == (1, -18, 0)
    assert rows["loss", 3]["n"] == 0
    assert math.isnan(rows["loss", 3]["continuation"])


def test_streaks_are_those_of_a_plain_count():
    episodes = random_games(120, np.random.default_rng(1))
    found = streaks(frames(*episodes)[0])
    assert found.filter(pl.col("n_repetitions") >= 10)["continuation_low"].is_not_nan().all()
    for kind in ("win", "loss"):
        for length in (1, 2, 3):
            again, changes = plain_streaks(episodes, kind == "win", length)
            one = (pl.col("kind") == kind) & (pl.col("length") == length)
            row = found.filter(one).row(0, named=True)
            assert row["n"] == len(again)
            assert row["continuation"] == pytest.approx(np.mean(again))
            assert row["mean_change"] == pytest.approx(np.mean(changes))
            assert row["bet_increase"] == pytest.approx(np.mean(np.array(changes) > 0))


def plain_streaks(episodes, won, length):
    again, changes = [], []
    for episode in episodes:
        rounds, streak = episode.state.rounds, 0
        for t, one in enumerate(rounds):
            streak = streak + 1 if one.won == won else 0
            if streak != length:
                continue
            if t + 1 < len(rounds):
                again.append(True)
                changes.append(rounds[t + 1].bet - one.bet)
            elif episode.state.outcome == "voluntary_stop":
                again.append(False)
    return again, changes


def test_a_bet_that_came_back_is_neither_a_win_nor_a_loss():
    attempts, _ = frames(game((10, False), (20, False), (30, False), STOP))
    is_push = pl.col("round") == 2
    returned = attempts.with_columns(
        won=pl.when(~is_push).then("won"), payout=pl.when(is_push).then(20).otherwise("payout")
    )
    assert bets(returned)["streak"].to_list() == [1, 1, 1]
    assert bets(attempts)["streak"].to_list() == [1, 2, 3]
    found = streaks(returned).filter(pl.col("kind") == "loss")
    assert found["n"].to_list() == [2, 0, 0, 0, 0]


def test_a_hand_of_several_decisions_is_one_round():
    attempts, games = frames(game((10, False), (20, True), STOP))
    first = attempts.with_row_index().filter(pl.col("round") == 2)
    bet = first.with_columns(won=pl.lit(None, pl.Boolean), payout=pl.lit(0, pl.Int64))
    stand = first.with_columns(
        action=pl.lit("stand"), amount=pl.lit(0, pl.Int64), decision=pl.col("decision") + 1
    )
    others = attempts.with_row_index().filter(pl.col("round") != 2)
    later = others.with_columns(decision=pl.col("decision") + (pl.col("round") > 2))
    cards = pl.concat([stand, bet, later]).drop("index")
    assert_frame_equal(bets(cards), bets(attempts))
    assert_frame_equal(game_metrics(cards, games), game_metrics(attempts, games))
    # A hand that was never played to its end is no round.
    assert len(bets(cards.filter(pl.col("action") != "stand"))) == 1


def test_frames_of_two_plays_or_of_a_part_are_refused():
    attempts, games = frames(game(*CHASER), game((10, False), STOP, repetition=1))
    with pytest.raises(ConfigError, match="1 of 2 games have other bets"):
        game_metrics(attempts.filter(pl.col("game") != "variable-BASE-001"), games)
    with pytest.raises(ConfigError, match="1 games of attempts are no games"):
        game_metrics(attempts, games.head(1))
    with pytest.raises(ConfigError, match="1 of 2 games have other bets"):
        game_metrics(attempts.filter(pl.col("decision") != 4), games)
    with pytest.raises(ConfigError, match="twice"):
        game_metrics(attempts, pl.concat([games, games]))
    with pytest.raises(ConfigError, match="needs the columns final_balance"):
        game_metrics(attempts, games.drop("final_balance"))
    with pytest.raises(ConfigError, match="needs the columns amount"):
        game_metrics(attempts.drop("amount"), games)


def test_arms_that_share_the_keys_of_their_games_stay_apart():
    both = [game(*CHASER), game((50, False), (50, False), arm="patched")]
    found = game_metrics(*frames(*both))
    assert found.select("arm", "n_rounds", "is_bankrupt").rows() == [
        ("baseline", 4, False),
        ("patched", 2, True),
    ]
