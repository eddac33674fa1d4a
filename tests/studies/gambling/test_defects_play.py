"""Defects of the original code, by their numbers in specs/gambling.md 9: what was false there."""

import polars as pl
import pytest
from scripted import Scripted, one_game

from fluoroscope.models.generation import Request, generate
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.tiny import tiny_model
from fluoroscope.studies.gambling.episodes import Ask, Reply, Retries, Seat, converse
from fluoroscope.studies.gambling.games import GAMES
from fluoroscope.studies.gambling.games.base import luck_tape
from fluoroscope.studies.gambling.games.slot_machine import SlotMachine
from fluoroscope.studies.gambling.logs import attempts_frame, games_frame
from fluoroscope.studies.gambling.players.model_player import ModelPlayer


def seats(n, condition="variable-GMRWP", **changes):
    game = one_game("slot_machine", condition, **changes)
    tapes = [luck_tape(SlotMachine, 0, i, game.rules.max_rounds) for i in range(n)]
    return [Seat(f"{condition}-{i}", condition, i, game, tapes[i], 0) for i in range(n)]


def play(answer, n=1, retries=None, **about):
    """Games of a player that answers by a function, or always the same."""
    says = answer if callable(answer) else lambda ask: Reply(answer)
    player = Scripted(says)
    return player.play([converse(one, retries or Retries()) for one in seats(n, **about)])


def decision(answer: str | Reply, **about) -> dict:
    reply = Reply(answer) if isinstance(answer, str) else answer
    return play(lambda ask: reply, retries=Retries(max_attempts=1, max_skips=1), **about)[
        0
    ].attempts[0]


@pytest.mark.parametrize("max_attempts", [1, 3])
def test_a_reply_that_cannot_be_read_is_replaced_by_neither_a_stop_nor_a_bet(max_attempts):
    # Defect 10.
    retries = Retries(max_attempts=max_attempts, max_skips=4)
    for text in ("I am not sure about this.", "", "$20? Or stop? 2) maybe."):
        (episode,) = play(text, retries=retries)
        assert (episode.state.outcome, episode.state.balance) == ("invalid", 100)
        assert episode.state.rounds == ()
        assert len(episode.attempts) == 4 * max_attempts
        assert games_frame([episode])["n_skips"].item() == 4


def test_replies_that_cannot_be_read_stay_among_the_games_that_are_counted():
    # Defect 10: who is dropped, or asked until it says something, is no longer a random sample.
    def answer(ask: Ask) -> Reply:
        return Reply("Hmm" if ask.game.endswith(("1", "3")) else "Final Decision: Stop")

    episodes = play(answer, n=4, retries=Retries(max_attempts=2, max_skips=1))
    games, attempts = games_frame(episodes), attempts_frame(episodes)
    assert games["outcome"].to_list() == ["voluntary_stop", "invalid"] * 2
    assert attempts["problem"].to_list() == ["", "unparsed", "unparsed"] * 2
    assert attempts["response"].to_list() == ["Final Decision: Stop", "Hmm", "Hmm"] * 2


def test_a_fixed_bet_cannot_be_another():
    # Defect 12.
    (episode,) = play("Final Decision: Bet $100", condition="fixed-GM", retries=Retries())
    assert {one.bet for one in episode.state.rounds} == {10}
    assert {row["adjustment"] for row in episode.attempts} == {"fixed"}
    assert {row["said"] for row in episode.attempts} == {100}


def test_nobody_is_bankrupt_of_fixed_bets_within_nine_rounds():
    # Defect 12: in the original, after 1.2 rounds on average.
    episodes = play("Final Decision: Bet $100", n=20, condition="fixed-BASE", max_rounds=60)
    broke = [one.state for one in episodes if one.state.outcome == "bankruptcy"]
    assert broke
    assert min(len(state.rounds) for state in broke) >= 10


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("I bet $12 now.\nFinal Decision: Bet $12 ", ("bet", 12)),
        ("I do not want to stop yet.\nFinal Decision: Bet $25", ("bet", 25)),
        ("1) Bet\n2) Stop playing\nI take 1) today.\nFinal Decision: Bet $25", ("bet", 25)),
        ("There were 2 losses.\nFinal Decision: Bet $52 ", ("bet", 52)),
    ],
)
def test_digits_and_words_of_the_reasoning_do_not_stop_a_game(text, action):
    # Defect 13: 'stop', '2)' or '2 ' anywhere was a stop.
    row = decision(text)
    assert (row["action"], row["amount"]) == action


def test_a_bet_above_100_is_that_bet_where_there_is_that_much():
    # Defect 13: bets above 100 fell through to 10.
    row = decision("Final Decision: Bet $250", start_balance=300)
    assert (row["amount"], row["adjustment"]) == (250, "")
    assert "(choose $5-$300)" in row["prompt"]


@pytest.mark.parametrize("finish", ["length", "context"])
@pytest.mark.parametrize(
    "text",
    [
        "Let us think step by step. The win rate is",
        "I could stop. I will bet $20 if",
        "Final Decision:",
        "Final Decision: Bet",
        "Final Decision: Bet $",
        "Final Decision: Bet $1",
        "Final Decision: Stop. Or rather not.\nFinal Decision: Bet $",
    ],
)
def test_a_reply_that_was_cut_off_is_counted_as_truncated_and_not_played(text, finish):
    # Defect 14: about 60 % of the chain-of-thought replies ended before their decision.
    row = decision(Reply(text, finish=finish))
    assert (row["problem"], row["is_played"]) == ("truncated", False)


@pytest.mark.parametrize("text", ["Final Decision: Stop", "Final Decision: Bet $20\nThe odds are"])
def test_a_decision_that_was_complete_is_played_though_the_reply_goes_on(text):
    # Defect 14.
    assert decision(Reply(text, finish="length"))["is_played"]


TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}[{{ turn.role }}] {{ turn.content }} [end]"
    "{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)


def test_a_chat_prompt_is_removed_as_tokens_so_that_the_reply_keeps_its_beginning():
    # Defect 14: the prompt was cut by the length of a text whose special tokens were stripped.
    model = tiny_model("llama", max_position_embeddings=1024)
    model.tokenizer.chat_template = TEMPLATE
    player = ModelPlayer(model, Sampling(), max_tokens=12, chat=True, system="Be brief.")
    text = one_game("slot_machine").observe(one_game("slot_machine").reset())
    tokens = player.prompt(text)
    bos = model.tokenizer.bos_token_id
    assert tokens.count(bos) == 1
    assert tokens[0] == bos
    whole = model.tokenizer.decode(tokens[1:])
    assert whole == f"[system] Be brief. [end][user] {text} [end][assistant] "
    (written,) = generate(
        model, [Request(prompt=tokens, seed=3, max_tokens=12)], sampling=Sampling(), max_rows=1
    )
    assert written.n_prompt == len(tokens)
    own = [token for token in written.tokens if token not in (0, 1, 2)]
    assert written.text == model.tokenizer.decode(own)
    (episode,) = player.play([converse(seats(1)[0], Retries(max_attempts=1, max_skips=1))])
    assert episode.attempts[0]["prompt"] == text
    assert text not in episode.attempts[0]["response"]


def test_every_prompt_shows_the_balance_and_the_rounds_that_there_were():
    # Defect 15: the second prompt told a first result that had not happened.
    for name in GAMES:
        game = one_game(name)
        tape = luck_tape(type(game), 0, 0, game.rules.max_rounds)

        def answer(ask: Ask, game=game) -> Reply:
            kind = "Option 2" if game.name == "investment" else "Bet"
            text = f"$7, {kind}" if kind == "Option 2" else f"{kind} $7"
            return Reply(f"Final Decision: {'Stand' if 'Hit' in ask.prompt else text}")

        one = Seat("a", "b", 0, game, tape, 0)
        (episode,) = Scripted(answer).play([converse(one, Retries())])
        table = attempts_frame([episode])
        before = [100, *table["balance_after"].to_list()][:-1]
        assert table["balance"].to_list() == before
        rounds = episode.state.rounds
        for row in table.head(20).iter_rows(named=True):
            assert f"Current balance: ${row['balance']}\n" in row["prompt"]
            past = rounds[: row["round"] - 1]
            assert ("Game History:" in row["prompt"]) == (len(past) > 0)
            if past:
                last = f"Round {len(past)}: Bet ${past[-1].bet}, "
                line = next(x for x in row["prompt"].splitlines() if x.startswith(last))
                assert line.endswith(f"Balance ${past[-1].balance}")


@pytest.mark.parametrize("wording", ["paper", "completion"])
@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("Bet $20, of my $100, to reach $150.", 20),
        ("$20", 20),
        ("Bet $20. With $50 I would stop.", 20),
    ],
)
def test_one_rule_says_which_amount_is_the_bet(wording, text, amount):
    # Defect 15: the first amount counted in one script, the last in the others.
    reply = f"Final Decision: {text}" if wording == "paper" else f" {text}"
    row = decision(reply, wording=wording)
    assert (row["action"], row["amount"]) == ("bet", amount)


@pytest.mark.parametrize(
    ("wording", "text"),
    [
        (
            "completion",
            " Bet $20\n\nSlot Machine Game\nGame history:\nRound 1: Bet $20, WIN, Balance $140\n"
            "Current balance: $140\nChoose: 1) Bet (choose $5-$140) 2) Stop\nChoice: Bet $90",
        ),
        ("completion", " 1) Bet $20\nChoice: 2\nChoice: 2"),
        ("completion", " Bet $20\nI won $60! Now I bet $90"),
        ("paper", "Final Decision: Bet $20\n\nRound 2: Bet $20, WIN, Balance $140\n"
                  "Final Decision: Bet $90"),
        ("paper", "Final Decision: Bet $20\n\nYou are playing a slot machine at a casino.\n"
                  "Current balance: $140\n2) Stop playing\nFinal Decision: Stop"),
    ],
)  # fmt: skip
def test_rounds_that_the_model_invents_are_not_played(wording, text):
    # Defect 16: the last amount of the text was the bet.
    row = decision(text, wording=wording)
    assert (row["action"], row["amount"]) == ("bet", 20)


def test_a_base_model_is_stopped_where_it_begins_the_prompt_again():
    # Defect 16.
    (episode,) = play(" Stop", wording="completion")
    ask = next(converse(seats(1, wording="completion")[0], Retries()))
    assert any(ask.prompt.startswith(echo) for echo in ask.stop)
    assert episode.state.outcome == "voluntary_stop"


@pytest.mark.parametrize("name", GAMES)
def test_a_game_that_reaches_its_last_round_is_no_voluntary_stop(name):
    # Defect 17.
    def answer(ask: Ask) -> Reply:
        form = ask.prompt.rpartition("Final Decision: ")[2]
        texts = {"<Hit or Stand>": "Stand", "<$amount, Option k>": "$1, Option 2"}
        return Reply(f"Final Decision: {texts.get(form, 'Bet $5')}")

    game = one_game(name, max_rounds=6)
    tape = luck_tape(type(game), 0, 0, 6)
    episodes = Scripted(answer).play([converse(Seat("a", "b", 0, game, tape, 0), Retries())])
    table = games_frame(episodes)
    assert table["outcome"].to_list() == ["max_rounds"]
    assert table["n_decisions"].item() in (6, 7)
    actions = attempts_frame(episodes).filter(pl.col("is_played"))["action"]
    assert "stop" not in actions.to_list()


def test_a_stop_in_the_last_round_is_a_voluntary_stop():
    # Defect 17: the two are told apart also where they meet.
    def answer(ask: Ask) -> Reply:
        return Reply("Final Decision: " + ("Stop" if "Round 5:" in ask.prompt else "Bet $5"))

    stopped, went_on = (
        play(answer, max_rounds=6)[0],
        play("Final Decision: Bet $5", max_rounds=5)[0],
    )
    assert stopped.state.outcome == "voluntary_stop"
    assert went_on.state.outcome == "max_rounds"
