"""Games of the seed's files: what they say is what we have, and what cannot be is refused."""

import json
import tracemalloc

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from played_games import SKIP, STOP, frames, game, random_games
from polars.testing import assert_frame_equal
from seed_games import bare, imported, rounds, told, write

from fluoroscope.core.errors import ConfigError, CorpusError
from fluoroscope.studies.gambling.behaviour.metrics import game_metrics
from fluoroscope.studies.gambling.seed_files import json_items
from fluoroscope.studies.gambling.seed_files.games import games_json, import_games
from fluoroscope.studies.gambling.seed_files.json_items import JSONItems


def test_a_bare_game_is_its_bets_and_a_stop(tmp_path):
    attempts, games, _ = imported(tmp_path, bare((10, True), (40, False), (5, False)))
    assert attempts["round"].to_list() == [1, 2, 3, 4]
    assert attempts["balance"].to_list() == [100, 120, 80, 75]
    assert attempts["balance_after"].to_list() == [120, 80, 75, 75]
    assert attempts["action"].to_list() == ["bet", "bet", "bet", "stop"]
    assert attempts["amount"].to_list() == [10, 40, 5, 0]
    assert attempts["payout"].to_list() == [30, 0, 0, 0]
    assert attempts["losses"].to_list() == [0, 0, 1, 2]
    assert attempts["last_won"].to_list() == [None, True, False, False]
    assert attempts["outcome"].to_list() == [None, None, None, "voluntary_stop"]
    assert attempts["prompt"].null_count() == 4
    assert games["outcome"].to_list() == ["voluntary_stop"]
    numbers = games.select("final_balance", "n_decisions", "n_bets", "total_bet", "total_paid")
    assert numbers.row(0) == (75, 4, 3, 55, 30)


@pytest.mark.parametrize("name", ["MG", "g_m", ["M", "G"], "GM", "G+M"])
def test_components_have_one_name_whoever_wrote_them(tmp_path, name):
    attempts, games, _ = imported(tmp_path, bare(prompt_combo=name))
    assert games["condition"].to_list() == ["variable-GM"] == attempts["condition"].to_list()
    other = imported(
        tmp_path, bare(prompt_combo="PWH", bet_type="fixed"), bare(prompt_combo="base")
    )
    assert other.games["condition"].to_list() == ["fixed-RWP", "variable-BASE"]


def test_prompts_and_replies_are_kept_to_the_letter(tmp_path):
    given = told((10, True), (30, False))
    attempts, games, files = imported(tmp_path, given)
    assert attempts["prompt"].to_list() == [one["prompt"] for one in given["round_features"]]
    assert attempts["response"].to_list() == [one["response"] for one in given["round_features"]]
    assert attempts["action"].to_list() == ["bet", "bet", "stop"]
    assert games["outcome"].to_list() == ["voluntary_stop"]
    assert files["without_prompt"].to_list() == [0]


def test_what_was_bet_is_what_the_history_says_and_not_what_was_read(tmp_path):
    given = told((100, False), stop=False)
    given["round_features"][0]["bet_amount"] = 500
    attempts = imported(tmp_path, given).attempts
    assert attempts.select("said", "amount", "adjustment").row(0) == (500, 100, "cut")


def test_replies_of_the_runners_for_endpoints_are_found(tmp_path):
    history = rounds((10, False))
    details = [
        {"round": 1, "prompt": "P1", "gpt_response_full": "Bet $10", "decision": "continue",
         "bet_amount": 10, "game_result": {**history[0], "winnings": 0}},
        {"round": 2, "prompt": "P2", "gpt_response_full": "", "decision": "error",
         "bet_amount": None, "game_result": None},
    ]  # fmt: skip
    given = {
        "bet_type": "fixed", "prompt_combo": "g_p", "repetition": 3, "went_bankrupt": False,
        "voluntary_stop": False, "final_balance": 90, "total_rounds": 1, "round_details": details,
    }  # fmt: skip
    attempts, games, _ = imported(tmp_path, given)
    assert attempts["response"].to_list() == ["Bet $10", ""]
    assert attempts["problem"].to_list() == ["", "error: error"]
    assert attempts["is_played"].to_list() == [True, False]
    # A failure of the endpoint is no decision to stop.
    assert games.select("condition", "outcome", "n_skips").row(0) == ("fixed-GP", "invalid", 1)


def test_a_first_round_that_was_dealt_is_no_decision(tmp_path):
    history = [{"round": 1, "bet": 10, "result": "W", "balance": 130, "win": True}]
    history += rounds((50, False), start=130, first=2)
    win = bare(first_result="W", history=history, final_balance=80, total_rounds=2)
    attempts, games, _ = imported(tmp_path, win)
    assert attempts.select("round", "balance", "last_won", "action", "amount").rows() == [
        (2, 130, True, "bet", 50),
        (3, 80, False, "stop", 0),
    ]
    assert games.select("n_bets", "total_bet").row(0) == (1, 50)


def test_both_first_results_are_games_of_one_condition(tmp_path):
    both = [told((10, True), first_result="W"), told((10, False), first_result="L")]
    attempts, games, _ = imported(tmp_path, *both)
    assert games["condition"].to_list() == ["variable-BASE"] * 2
    assert games["repetition"].to_list() == [2, 3]
    assert games["first_result"].to_list() == ["W", "L"]
    assert attempts["game"].n_unique() == 2


def test_checkpoints_that_repeat_games_change_nothing(tmp_path):
    games = [bare((10, False), repetition=i) for i in range(3)]
    # A checkpoint is the list alone.
    (tmp_path / "checkpoint_2.json").write_text(json.dumps(games[:2]))
    write(tmp_path / "final.json", *games)
    found = import_games(tmp_path)
    assert_frame_equal(found.games, import_games(tmp_path / "final.json").games)
    assert found.files["duplicates"].to_list() == [0, 2]


def test_games_that_were_played_again_are_passed_over_and_counted(tmp_path):
    games = [bare((10, False), repetition=i) for i in range(100)]
    again = [bare((20, False), repetition=i) for i in range(4)]
    found = import_games(
        f"{write(tmp_path / 'a.json', *games)}, {write(tmp_path / 'b.json', *again)}"
    )
    assert len(found.games) == 100
    assert found.files["replayed"].to_list() == [0, 4]
    with pytest.raises(CorpusError, match="several runs"):
        imported(tmp_path, *games[:20], *again)


def test_games_of_two_models_are_not_put_together(tmp_path):
    write(tmp_path / "a.json", bare(repetition=0), model="llama")
    write(tmp_path / "b.json", bare(repetition=1), model="gemma")
    with pytest.raises(CorpusError, match=r"of llama.*of gemma"):
        import_games(str(tmp_path / "*.json"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"final_balance": 95}, r"results\[1\]: final_balance is 95.*should be 90"),
        ({"total_rounds": 2}, r"results\[1\]: total_rounds is 2"),
        ({"outcome": "bankruptcy"}, r"results\[1\]: bankruptcy is True.*\$90"),
        ({"bet_type": "free"}, r"results\[1\]: bet_type"),
        ({"prompt_combo": "GX"}, r"results\[1\]: prompt_combo 'GX'"),
        ({"repetition": "a"}, r"results\[1\]: repetition"),
        ({"history": None}, r"results\[1\] has no history"),
        ({"history": rounds((20, False))}, r"results\[1\]: final_balance"),
        ({"history": [{"bet": 10, "win": True, "balance": 90}]}, r"results\[1\] round 1: a bet of"),
        ({"history": [{"bet": 10, "balance": 90}]}, r"results\[1\] round 1: win"),
        ({"history": [7]}, r"results\[1\]: history\[0\] must be an object"),
        ({"history": [{"bet": "ten", "win": True, "balance": 90}]}, r"round 1: bet must be"),
    ],
)
def test_a_game_that_cannot_be_is_named(tmp_path, changes, said):
    with pytest.raises(CorpusError, match=said):
        imported(tmp_path, bare((10, False)), bare((10, False), repetition=1) | changes)


def test_decisions_without_their_rounds_are_refused(tmp_path):
    with pytest.raises(CorpusError, match="1 decisions to bet, and 0 rounds"):
        imported(tmp_path, told((10, True)) | {"game_history": [], "final_balance": 100})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"results": [{"a": 1}, {"a": 2', r"results\[1\].*not written to its end"),
        ('{"results": [{"a": 1} {"a": 2}]}', "expected"),
        ('{"results": [{"a": 1, "b"}]}', r"results\[0\]"),
        ('{"games": []}', r"no list 'results'; it has 'games'"),
        ("gambling", "no list and no object"),
        ("", "no list and no object"),
    ],
)
def test_a_damaged_file_is_named_with_the_place(tmp_path, text, said):
    path = tmp_path / "damaged.json"
    path.write_text(text)
    with pytest.raises(CorpusError, match=said) as error:
        list(JSONItems(path, "results"))
    assert "damaged.json" in str(error.value)


def test_what_does_not_exist_is_said(tmp_path):
    for log in (str(tmp_path), str(tmp_path / "no.json"), str(tmp_path / "*.json")):
        with pytest.raises(ConfigError, match="no games in"):
            import_games(log)
    with pytest.raises(CorpusError, match="not a single game"):
        imported(tmp_path)


_NAMES = st.text(max_size=4)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=4), below, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(_JSON, max_size=5), st.dictionaries(st.text(max_size=4), _JSON, max_size=2),
       st.integers(1, 9), st.sampled_from([None, 2]))  # fmt: skip
def test_items_are_those_of_the_whole_file_however_it_is_cut(
    tmp_path_factory, items, header, chunk, indent
):
    path = tmp_path_factory.getbasetemp() / "items.json"
    header.pop("results", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_items, "_CHUNK", chunk)
        path.write_text(json.dumps({**header, "results": items}, indent=indent))
        source = JSONItems(path, "results")
        assert list(source) == items
        assert source.header == header
        path.write_text(json.dumps(items, indent=indent, ensure_ascii=False), encoding="utf-8")
        assert list(JSONItems(path, "results")) == items
        path.write_text(json.dumps({"results": dict(enumerate(items))}, indent=indent))
        assert list(JSONItems(path, "results")) == items


def test_a_large_file_is_never_in_memory_as_a_whole(tmp_path):
    path = write(tmp_path / "large.json", *({"response": "x" * 1_000_000} for _ in range(40)))
    tracemalloc.start()
    n = sum(1 for _ in JSONItems(path, "results"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 40
    assert peak < path.stat().st_size / 3


def test_import_after_export_is_the_identity(tmp_path):
    history = [{"round": 1, "bet": 10, "result": "L", "balance": 90, "win": False}]
    first = imported(
        tmp_path,
        told((10, True), (30, False), repetition=0),
        told((100, False), stop=False, repetition=1),
        bare((10, False), bet_type="fixed", prompt_combo="GP"),
        bare(first_result="L", history=history, final_balance=90, total_rounds=1),
        told((10, False), stop=False, repetition=9),
    )
    path = tmp_path / "again.json"
    path.write_text(json.dumps(games_json(first.attempts, first.games)))
    again = import_games(path)
    assert_frame_equal(again.attempts, first.attempts)
    assert_frame_equal(again.games, first.games)


def test_our_own_games_come_back_from_the_seeds_form(tmp_path):
    episodes = [
        *random_games(40, np.random.default_rng(0)),
        game((10, True), SKIP, STOP, repetition=100),
        game(*[(10, True)] * 3, repetition=101, max_rounds=3),
    ]
    attempts, games = frames(*episodes)
    path = tmp_path / "own.json"
    path.write_text(json.dumps(games_json(attempts, games, {"model": "script"})))
    found = import_games(path)
    # How often one decision was asked for is not in the seed's form.
    assert_frame_equal(found.games.drop("game", "n_attempts"), games.drop("game", "n_attempts"))
    told_of = ["condition", "repetition", "decision", "round", "balance", "losses", "last_won",
               "prompt", "response", "action", "amount", "won", "payout"]  # fmt: skip
    played = pl.col("is_played")
    assert_frame_equal(
        found.attempts.filter(played).select(told_of), attempts.filter(played).select(told_of)
    )
    metrics, own = game_metrics(found.attempts, found.games), game_metrics(attempts, games)
    assert_frame_equal(metrics.drop("game", "n_attempts"), own.drop("game", "n_attempts"))
