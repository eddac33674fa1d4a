import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import Scripted, one_game, say

from fluoroscope.core.seeding import stream
from fluoroscope.studies.gambling.episodes import Ask, Episode, Reply, Retries, Seat, converse
from fluoroscope.studies.gambling.games import GAMES
from fluoroscope.studies.gambling.games.base import luck_tape, replay
from fluoroscope.studies.gambling.logs import attempts_frame, games_frame, played
from fluoroscope.studies.gambling.reading import Action

NAMES = sorted(GAMES)


def seat(name="slot_machine", condition=None, repetition=0, arm="baseline", seed=0, **changes):
    game = one_game(name, condition, **changes)
    named = condition or "last"
    tape = luck_tape(type(game), seed, repetition, game.rules.max_rounds)
    key = f"{name}-{named}-{repetition}-{arm}"
    return Seat(key, named, repetition, game, tape, seed, arm)


def play(replies, retries=None, **about) -> tuple[Episode, list[Ask]]:
    """One game that is answered by these texts in turn, and by "Stop" when they are over."""
    given_ = iter(replies)

    def answer(ask: Ask) -> Reply:
        reply = next(given_, "Final Decision: Stop")
        return reply if isinstance(reply, Reply) else Reply(reply)

    player = Scripted(answer)
    (episode,) = player.play([converse(seat(**about), retries or Retries())])
    return episode, player.asks


def at_random(ask: Ask) -> Reply:
    """A reply that depends on its prompt and seed alone: often legal, at times not."""
    random = stream(ask.seed, ask.prompt)
    kinds = ["Stop", "Hit", "Stand", "Option 1"] if random.random() < 0.3 else []
    kinds += ["Bet $10", "Bet $40", "Bet all", "$20, Option 3", "Hit", "Stand", "Hmm"]
    choice = kinds[random.integers(len(kinds))]
    if random.random() < 0.1:
        return Reply("", error="timeout") if random.random() < 0.5 else Reply(" \n")
    goal = f"Target: ${random.integers(50, 300)}\n" if random.random() < 0.5 else ""
    return Reply(f"{goal}Final Decision: {choice}", n_tokens=7)


def test_what_cannot_be_read_is_asked_again_with_a_reminder():
    episode, asks = play(["Hmm", "", "Final Decision: Bet $20"])
    first, second, third, *_ = asks
    assert [ask.attempt for ask in asks] == [1, 2, 3, 1]
    assert second.prompt == third.prompt == first.prompt + seat().game.reminder(seat().game.reset())
    assert "IMPORTANT" not in asks[3].prompt
    assert [row["problem"] for row in episode.attempts] == ["unparsed", "empty", "", ""]
    assert [row["is_played"] for row in episode.attempts] == [False, False, True, True]
    assert [row["decision"] for row in episode.attempts] == [1, 1, 1, 2]
    assert episode.state.rounds[0].bet == 20


def test_without_reminders_the_same_is_asked_again_with_another_seed():
    _, asks = play(["Hmm"], Retries(remind=False))
    assert asks[0].prompt == asks[1].prompt
    assert asks[0].seed != asks[1].seed


def test_a_prompt_that_ends_with_its_cue_has_no_reminder():
    _, asks = play(["Hmm", "Hmm", " Stop"], wording="completion")
    assert len({ask.prompt for ask in asks}) == 1
    assert asks[0].prompt.endswith("Choice:")
    assert asks[0].stop == seat(wording="completion").game.echoes != ()


def test_only_empty_replies_are_asked_again_where_that_is_set():
    retries = Retries(only_empty=True, max_skips=2)
    episode, asks = play(["", " ", "Hmm", "", "Hmm"], retries)
    assert [ask.attempt for ask in asks] == [1, 2, 3, 1, 2]
    assert (episode.state.outcome, episode.state.skips) == ("invalid", 2)


def test_attempts_and_skips_are_capped_and_no_money_moves():
    episode, asks = play(["Hmm"] * 99, Retries(max_attempts=3, max_skips=2))
    assert [ask.attempt for ask in asks] == [1, 2, 3, 1, 2, 3]
    assert (episode.state.outcome, episode.state.balance) == ("invalid", 100)
    assert [row["decision"] for row in episode.attempts] == [1, 1, 1, 2, 2, 2]
    assert all(row["action"] is None and not row["is_played"] for row in episode.attempts)


def test_a_skip_between_bets_does_not_end_a_game():
    one = ["Final Decision: Bet $5", "Hmm"]
    episode, _ = play(one * 4, Retries(max_attempts=1, max_skips=2))
    assert episode.state.outcome == "voluntary_stop"
    assert (episode.state.skips, len(episode.state.rounds)) == (4, 4)


def test_an_error_of_the_player_is_an_attempt_and_never_a_decision():
    broken = Reply("Final Decision: Stop", error="503 from the server")
    episode, _ = play([broken, "Final Decision: Bet $20"])
    first, second, *_ = episode.attempts
    assert (first["problem"], first["is_played"]) == ("error: 503 from the server", False)
    assert (second["action"], second["amount"], second["attempt"]) == ("bet", 20, 2)
    failed, _ = play([broken] * 99, Retries(max_attempts=2, max_skips=3))
    assert failed.state.outcome == "invalid"
    assert len(failed.attempts) == 6


def test_what_was_changed_of_a_decision_is_in_its_row():
    episode, _ = play(["Final Decision: Bet $300", "Final Decision: Bet $1"], condition="fixed-G")
    assert [row["adjustment"] for row in episode.attempts] == ["fixed", "fixed", ""]
    assert [row["said"] for row in episode.attempts] == [300, 1, None]
    assert [row["amount"] for row in episode.attempts] == [10, 10, 0]


def test_what_is_less_sure_than_asked_for_is_not_played():
    text = "My final decision is to stop."
    strict, _ = play([text], Retries(min_confidence=0.9))
    assert [row["problem"] for row in strict.attempts] == ["low confidence", ""]
    loose, _ = play([text], Retries(min_confidence=0.5))
    assert [row["rule"] for row in loose.attempts] == ["loose decision"]


def test_a_goal_is_in_its_row_and_in_the_prompt_that_follows():
    episode, asks = play(
        ["Target: $150\nFinal Decision: $10, Option 2", "Final Decision: Option 1"],
        name="investment",
    )
    assert [row["goal"] for row in episode.attempts] == [150, None]
    assert "Your own target: $150" in asks[1].prompt
    assert "Your own target" not in asks[0].prompt


def test_each_decision_within_a_hand_has_its_own_seed_and_the_luck_of_the_round():
    hand = ["Final Decision: Bet $10", "Final Decision: Hit", "Final Decision: Stand"]
    for repetition in range(20):
        episode, asks = play(hand, name="blackjack", repetition=repetition)
        if len(asks) >= 4 and asks[2].prompt.endswith("<Hit or Stand>"):
            break
    rows = episode.attempts[:3]
    assert len({ask.seed for ask in asks}) == len(asks)
    assert [row["round"] for row in rows] == [1, 1, 1]
    assert [row["decision"] for row in rows] == [1, 2, 3]
    assert [row["amount"] for row in rows] == [10, 0, 0]
    assert [row["payout"] for row in rows] == [0, 0, episode.state.rounds[0].payout]
    assert rows[1]["balance_after"] == 100


@pytest.mark.parametrize("name", NAMES)
def test_tokens_of_a_game_have_luck_of_their_own_which_its_arms_share(name):
    def seeds(**about) -> list[int]:
        random_free = Retries(max_attempts=2, max_skips=3)
        return [ask.seed for ask in play(["Hmm"] * 9, random_free, name=name, **about)[1]]

    kind = GAMES.load(name)
    conditions = list(kind.conditions(kind.rules_type()))
    expected = seeds(condition=conditions[0])
    assert len(set(expected)) == 6
    for condition in conditions[1 :: len(conditions) // 4]:
        assert not set(seeds(condition=condition)) & set(expected)
    assert seeds(condition=conditions[0], arm="set 0.1 to 5") == expected
    assert not set(seeds(condition=conditions[0], repetition=1)) & set(expected)
    assert not set(seeds(condition=conditions[0], seed=1)) & set(expected)


@settings(max_examples=8)
@given(st.integers(0, 2**20))
def test_the_order_of_play_does_not_matter(seed):
    def conversations():
        return [
            converse(seat(name, repetition=i, seed=seed, max_rounds=8), Retries(max_attempts=2))
            for name in NAMES
            for i in range(2)
        ]

    alone = Scripted(at_random).play(conversations())
    going = dict(enumerate(conversations()))
    asks = {i: next(one) for i, one in going.items()}
    over, random = {}, np.random.default_rng(seed)
    while asks:
        i = list(asks)[random.integers(len(asks))]
        try:
            asks[i] = going[i].send(at_random(asks[i]))
        except StopIteration as end:
            over[i] = end.value
            del asks[i]
    together = [over[i] for i in sorted(over)]
    assert [one.attempts for one in together] == [one.attempts for one in alone]
    assert [one.state for one in together] == [one.state for one in alone]


@pytest.fixture(scope="module")
def logged():
    """Games of every kind with every kind of trouble, and how often was asked."""
    logs = {}
    for name in NAMES:
        player = Scripted(at_random)
        seats = [
            seat(name, condition, i, max_rounds=20)
            for condition in list(GAMES.load(name).conditions(GAMES.load(name).rules_type()))[::9]
            for i in range(2)
        ]
        retries = Retries(max_attempts=2, max_skips=3)
        logs[name] = (player.play([converse(one, retries) for one in seats]), player.asks)
    return logs


@pytest.mark.parametrize("name", NAMES)
def test_every_attempt_is_a_row_and_every_game_is_one(name, logged):
    episodes, asks = logged[name]
    attempts, games = attempts_frame(episodes), games_frame(episodes)
    assert attempts["prompt"].to_list() == [ask.prompt for ask in asks]
    assert attempts["seed"].to_list() == [ask.seed for ask in asks]
    assert attempts["attempt"].to_list() == [ask.attempt for ask in asks]
    assert len(games) == len(episodes)
    assert games["n_attempts"].sum() == len(asks)
    rows = attempts.group_by("game").agg(
        pl.col("is_played").sum().alias("n_played"),
        pl.col("decision").n_unique().alias("n_decisions"),
        pl.col("amount").sum().alias("total_bet"),
        pl.col("payout").sum().alias("total_paid"),
        pl.col("balance_after").last().alias("final_balance"),
    )
    both = games.join(rows, on="game", suffix="_rows")
    for column in ("n_decisions", "total_bet", "total_paid", "final_balance"):
        unfinished = (pl.col("outcome") == "invalid") & (name == "blackjack")
        same = both.filter(~unfinished if column == "total_bet" else pl.lit(value=True))
        assert same[column].to_list() == same[f"{column}_rows"].to_list()
    assert (both["n_played"] + both["n_skips"]).to_list() == both["n_decisions"].to_list()
    gained = games["total_paid"] - games["total_bet"]
    assert (games["final_balance"] - gained).to_list() == [100] * len(games)


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_attempts_is_enough_to_play_a_game_again(name, logged):
    episodes, _ = logged[name]
    attempts = attempts_frame(episodes)
    for episode in episodes:
        mine = attempts.filter(pl.col("game") == episode.seat.key)
        last = mine.group_by("decision", maintain_order=True).last()
        rows = last.select("action", "amount", "goal").rows()
        actions = [None if kind is None else Action(kind, amount) for kind, amount, _ in rows]
        goals = [goal for *_, goal in rows]
        states = replay(episode.seat.game, actions, episode.seat.tape, 3, goals)
        assert states[-1] == episode.state
        prompts = played(mine).filter(pl.col("attempt") == 1).select("decision", "prompt").rows()
        for decision, prompt in prompts:
            assert episode.seat.game.observe(states[decision - 1]) == prompt


def test_tables_have_the_factors_and_are_tables_when_nothing_was_played(logged):
    attempts = attempts_frame(logged["investment"][0])
    assert {"bet_type", "components", "cap"} < set(attempts.columns)
    assert attempts_frame([]).height == games_frame([]).height == 0
    assert set(games_frame([]).columns) < set(games_frame(logged["coin_flip"][0]).columns)


def test_what_is_said_in_the_asked_form_is_played():
    episode, _ = play([say(Action("bet", 15)), say(Action("stop"))])
    assert [(row["action"], row["amount"]) for row in episode.attempts] == [
        ("bet", 15),
        ("stop", 0),
    ]


def test_amounts_without_end_are_a_row_like_others():
    episode, _ = play(["Final Decision: Bet $" + "9" * 5000, "Target: $" + "9" * 5000])
    table = attempts_frame([episode])
    assert table["said"][0] == 10**12
    assert table["adjustment"][0] == "cut"
