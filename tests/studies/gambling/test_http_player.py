import asyncio
import hashlib
import json
import logging
import os
import pickle
import signal
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import polars as pl
import pytest
from endpoint import Answer, Endpoint, fails, says

from fluoroscope.core.config import what_half
from fluoroscope.core.errors import ConfigError, ModelError, UserError
from fluoroscope.studies.gambling.episodes import Ask, Reply, Retries, Seat, converse
from fluoroscope.studies.gambling.games.base import luck_tape
from fluoroscope.studies.gambling.games.slot_machine import SlotMachine, SlotRules
from fluoroscope.studies.gambling.logs import attempts_frame, games_frame
from fluoroscope.studies.gambling.players.chat_format import (
    read_answer,
    request_body,
    retry_after_s,
)
from fluoroscope.studies.gambling.players.endpoint_config import EndpointConfig, EndpointLimits
from fluoroscope.studies.gambling.players.http_player import HTTPPlayer, is_loopback
from fluoroscope.studies.gambling.players.rate_limit import Clock

KEY = "sk-test-0123456789-do-not-show"
BET, STOP = "I go on.\nFinal Decision: Bet $10", "Enough.\nFinal Decision: Stop"


class FakeClock(Clock):
    """Time passes when somebody sleeps, and then at once."""

    def __init__(self):
        self.time, self.slept = 0.0, []

    def now(self):
        return self.time

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


def config(endpoint, key_env=None, limits=None, **settings):
    return EndpointConfig(
        url=endpoint.url, model="m", key_env=key_env, limits=limits or EndpointLimits(), **settings
    )


def limits(**settings):
    return EndpointLimits(**settings)


def seats(n_repetitions=1, max_rounds=6):
    rules = SlotRules(max_rounds=max_rounds, components="GM")
    return [
        Seat(f"{name}-{i}", name, i, SlotMachine(rules, factors),
             luck_tape(SlotMachine, 0, i, max_rounds), 0)
        for i in range(n_repetitions)
        for name, factors in SlotMachine.conditions(rules).items()
    ]  # fmt: skip


def games(n_repetitions=1, max_rounds=6, retries=None):
    return [converse(seat, retries or Retries()) for seat in seats(n_repetitions, max_rounds)]


def one_game(retries=None):
    return games(retries=retries)[:1]


def chosen(prompt):
    """A decision that depends on the whole prompt."""
    return STOP if hashlib.sha256(prompt.encode()).digest()[0] < 40 else BET


def play_scripted(body, nth):
    return says(chosen(body["messages"][-1]["content"]))


def play_here(conversations):
    """The same player without a network: one game after the other."""
    episodes = []
    for conversation in conversations:
        ask = next(conversation)
        while True:
            try:
                ask = conversation.send(Reply(chosen(ask.prompt), "stop_token", 3))
            except StopIteration as end:
                episodes.append(end.value)
                break
    return episodes


def test_games_over_http_are_those_of_the_same_player_here_whatever_is_in_flight():
    here = play_here(games(4))
    assert {"voluntary_stop", "max_rounds"} <= set(games_frame(here)["outcome"])
    for max_in_flight in (1, 3, 16):
        with Endpoint(play_scripted, wait_for=max_in_flight) as endpoint:
            player = HTTPPlayer(config(endpoint, limits=limits(max_in_flight=max_in_flight)))
            episodes = player.play(games(4))
        assert endpoint.most_in_flight == max_in_flight
        assert attempts_frame(episodes).equals(attempts_frame(here))
        assert games_frame(episodes).equals(games_frame(here))
        assert player.usage.n_requests == len(attempts_frame(here)) == len(endpoint.bodies)


def test_a_game_does_not_wait_for_others():
    first = seats()[0].key
    over = threading.Event()
    n_before = []

    def script(body, nth):
        # The first game is answered only when all the others are over.
        if "$5-$100" not in body["messages"][-1]["content"] and nth == 0 and not n_before:
            n_before.append(1)
            assert over.wait(20)
        return says(STOP)

    def on_finish(n_over, n):
        if n_over == n - 1:
            over.set()

    with Endpoint(script) as endpoint:
        episodes = HTTPPlayer(config(endpoint)).play(games(), on_finish)
    assert episodes[0].seat.key == first
    assert {episode.state.outcome for episode in episodes} == {"voluntary_stop"}


def test_finished_games_are_told_in_the_callers_thread():
    told = []
    with Endpoint(play_scripted) as endpoint:
        HTTPPlayer(config(endpoint)).play(
            games(), lambda n_over, n: told.append((n_over, n, threading.current_thread()))
        )
    n = len(games())
    assert told == [(i + 1, n, threading.current_thread()) for i in range(n)]


def test_it_plays_where_an_event_loop_is_running_already():
    with Endpoint(play_scripted) as endpoint:

        async def notebook():
            return HTTPPlayer(config(endpoint)).play(games())

        assert len(asyncio.run(notebook())) == len(games())
    assert HTTPPlayer(config(endpoint)).play([]) == []


def test_the_body_is_what_the_settings_say_and_no_more():
    with Endpoint(lambda body, nth: says(STOP)) as endpoint:
        HTTPPlayer(config(endpoint)).play(one_game())
        full = config(
            endpoint, system="Be rational.", temperature=0.5, top_p=0.9, max_tokens=64,
            max_tokens_field="max_completion_tokens", send_seed=True, extra={"top_k": 5},
        )  # fmt: skip
        episodes = HTTPPlayer(full).play(one_game())
    bare, told = endpoint.bodies
    prompt = episodes[0].attempts[0]["prompt"]
    user = {"role": "user", "content": prompt}
    assert bare == {"model": "m", "messages": [user], "max_tokens": 1024}
    assert told == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be rational."}, user],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_completion_tokens": 64,
        "seed": attempts_frame(episodes)["seed"][0] % 2**31,
        "top_k": 5,
    }


def test_no_more_stop_strings_are_sent_than_servers_take():
    settings = EndpointConfig(url="https://x.org/v1", model="m")
    ask = Ask("g", "Choice:", 0, ("a", "b", "c", "d", "e"), 1)
    assert request_body(settings, ask)["stop"] == ["a", "b", "c", "d"]
    assert "stop" not in request_body(settings, ask._replace(stop=()))


FAILURES = {
    "status 500": fails(500),
    "status 503": Answer(b"<html>Bad gateway</html>", 503),
    "status 429": fails(429, "slow down", Retry_After="7"),
    "status 408": fails(408),
    "timeout": Answer(never=True),
    "malformed": Answer(b"{not json"),
}


@pytest.mark.parametrize("reason", FAILURES)
def test_a_request_that_fails_in_passing_is_sent_again_and_counted(reason):
    def script(body, nth):
        return FAILURES[reason] if nth < 2 else says(STOP)

    patience = limits(timeout_s=0.3 if reason == "timeout" else 20)
    clock = FakeClock()
    with Endpoint(script) as endpoint:
        player = HTTPPlayer(config(endpoint, limits=patience), clock=clock)
        (episode,) = player.play(one_game())
    assert len({json.dumps(body, sort_keys=True) for body in endpoint.bodies}) == 1
    assert player.usage.retries == {reason: 2}
    assert player.usage.given_up == {}
    assert player.usage.n_requests == 3
    assert [row["problem"] for row in episode.attempts] == [""]
    # Exponential waits with jitter, and behind what the server asks for.
    asked = 7 if reason == "status 429" else 0
    first, second = [seconds for seconds in clock.slept if seconds not in (0, 7)]
    assert asked + 0.5 <= first <= asked + 1
    assert asked + 1 <= second <= asked + 2


@pytest.mark.parametrize(
    "body",
    [{"choices": []}, {"choices": None}, {}, [], {"error": {"message": "overloaded"}}, None],
)
def test_a_success_without_an_answer_is_a_failure(body):
    with Endpoint(lambda *_: Answer(body)) as endpoint:
        player = HTTPPlayer(config(endpoint, limits=limits(max_tries=2)), clock=FakeClock())
        (episode,) = player.play(one_game(Retries(max_attempts=1, max_skips=1)))
    assert [row["problem"] for row in episode.attempts] == ["error: malformed, 2 tries"]
    assert episode.state.outcome == "invalid"


@pytest.mark.parametrize("reason", FAILURES)
def test_what_does_not_come_is_never_a_decision(reason):
    patience = limits(timeout_s=0.2 if reason == "timeout" else 20, max_tries=2)
    with Endpoint(lambda *_: FAILURES[reason]) as endpoint:
        player = HTTPPlayer(config(endpoint, limits=patience), clock=FakeClock())
        (episode,) = player.play(one_game(Retries(max_attempts=2, max_skips=2)))
    table = attempts_frame([episode])
    assert len(table) == 4
    assert table["problem"].unique().to_list() == [f"error: {reason}, 2 tries"]
    assert not table["is_played"].any()
    assert table["response"].unique().to_list() == [""]
    assert table["action"].is_null().all()
    assert episode.state.outcome == "invalid"
    assert episode.state.balance == 100
    assert player.usage.given_up == {reason: 4}
    assert player.usage.retries == {reason: 4}


def test_a_server_that_is_not_there_is_a_failed_connection():
    with Endpoint(play_scripted) as endpoint:
        pass
    player = HTTPPlayer(config(endpoint, limits=limits(max_tries=2)), clock=FakeClock())
    (episode,) = player.play(one_game(Retries(max_attempts=1, max_skips=1)))
    assert episode.attempts[0]["problem"] == "error: connection, 2 tries"


def test_failures_among_many_games_change_no_other_game_and_no_decision():
    def script(body, nth):
        # Every third decision fails once; the games end as if it had not.
        digest = hashlib.sha256(body["messages"][-1]["content"].encode()).digest()
        return fails(500) if digest[1] % 3 == 0 and nth == 0 else play_scripted(body, nth)

    with Endpoint(script) as endpoint:
        player = HTTPPlayer(config(endpoint), clock=FakeClock())
        episodes = player.play(games(3))
    assert player.usage.retries["status 500"] > 5
    assert attempts_frame(episodes).equals(attempts_frame(play_here(games(3))))


def test_no_content_is_an_empty_reply_and_a_cut_one_is_truncated():
    replies = [says(None), says("", "length"), says("I think that", "length"), says(STOP)]
    seen = []

    def script(body, nth):
        seen.append(body)
        return replies[len(seen) - 1]

    with Endpoint(script) as endpoint:
        player = HTTPPlayer(config(endpoint))
        (episode,) = player.play(one_game())
    problems = [row["problem"] for row in episode.attempts]
    assert problems == ["empty", "empty", "truncated", ""]
    assert [row["finish"] for row in episode.attempts] == [
        "stop_token", "length", "length", "stop_token",
    ]  # fmt: skip
    assert player.usage.retries == {}


def test_a_refusal_of_the_model_is_its_reply():
    answer = read_answer(json.dumps(says(None, refusal="I do not gamble.").body).encode())
    assert answer is not None
    assert (answer.reply.text, answer.reply.finish) == ("I do not gamble.", "refusal")


def assert_none_was_sent_again(endpoint):
    # The next game's request may be on its way when the refusal of the first is read.
    sent = [json.dumps(body) for body in endpoint.bodies]
    assert len(set(sent)) == len(sent) <= 2


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 422])
def test_a_refused_request_ends_the_play_and_says_why(status):
    with Endpoint(lambda *_: fails(status, f"no such model {KEY}")) as endpoint:
        player = HTTPPlayer(config(endpoint, limits=limits(max_in_flight=1)), clock=FakeClock())
        with pytest.raises(UserError) as caught:
            player.play(games())
    assert_none_was_sent_again(endpoint)
    for part in (endpoint.url, f"status {status}", "no such model"):
        assert part in str(caught.value)


def test_money_that_is_used_up_is_not_waited_for():
    with Endpoint(lambda *_: fails(429, "pay", code="insufficient_quota")) as endpoint:
        player = HTTPPlayer(config(endpoint, limits=limits(max_in_flight=1)), clock=FakeClock())
        with pytest.raises(ModelError, match="pay"):
            player.play(games())
    assert_none_was_sent_again(endpoint)


def test_a_pause_until_tomorrow_ends_the_play():
    with Endpoint(lambda *_: fails(429, Retry_After="36000")) as endpoint:
        player = HTTPPlayer(config(endpoint), clock=FakeClock())
        with pytest.raises(ModelError, match="600 minutes"):
            player.play(one_game())


def test_a_pause_holds_back_all_games():
    n_others = len(games()) - 1
    sent = []

    class LateClock(FakeClock):
        async def sleep(self, seconds):
            # The request that was told to pause comes back after all the others.
            while seconds > 100 and len(sent) < n_others:
                await asyncio.sleep(0.001)
            await super().sleep(seconds)

    def script(body, nth):
        if len(endpoint.bodies) == 1:
            return fails(429, Retry_After="100")
        sent.append(clock.now())
        return says(STOP)

    clock = LateClock()
    with Endpoint(script) as endpoint:
        HTTPPlayer(config(endpoint, limits=limits(max_in_flight=1)), clock=clock).play(games())
    assert len(sent) == n_others + 1
    assert min(sent) == 100


def test_the_time_of_a_pause_is_read_in_both_of_its_forms():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert retry_after_s("12") == 12
    assert retry_after_s("0.5") == 0.5
    assert 80 < retry_after_s(soon) <= 90
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    naive = "Wed, 21 Oct 2015 07:28:00 -0000"
    for nothing in (None, "", "soon", "-3", "nan", "inf", past, naive):
        assert retry_after_s(nothing) == 0


def test_waits_are_the_same_when_a_play_is_repeated():
    def slept():
        clock = FakeClock()
        with Endpoint(lambda body, nth: fails(500) if nth < 3 else says(STOP)) as endpoint:
            HTTPPlayer(config(endpoint), clock=clock).play(one_game())
        return clock.slept

    assert slept() == slept()


def test_games_keep_to_the_rate_limit_on_the_players_clock():
    clock = FakeClock()
    slow = limits(max_in_flight=8, requests_per_minute=60)
    with Endpoint(play_scripted) as endpoint:
        player = HTTPPlayer(config(endpoint, limits=slow), clock=clock)
        player.play(games()[:4])
        n = player.usage.n_requests
        assert clock.now() == pytest.approx(n - 1)
        # Also from one play to the next.
        player.play(games()[:4])
    assert clock.now() == pytest.approx(2 * n - 1)
    assert player.usage.limited_s == pytest.approx(2 * n - 1)


def test_games_are_paced_by_the_tokens_that_they_really_use():
    clock = FakeClock()
    slow = limits(max_in_flight=1, tokens_per_minute=6000)
    with Endpoint(lambda *_: says(STOP)) as endpoint:
        HTTPPlayer(config(endpoint, limits=slow), clock=clock).play(games())
    # Ten tokens each, and not the thousand that each might have used.
    assert clock.now() == pytest.approx((len(games()) - 1) * 0.1)


def test_usage_adds_up_what_the_server_says():
    def script(body, nth):
        answer = play_scripted(body, nth)
        if len(endpoint.bodies) % 2:
            return answer
        assert isinstance(answer.body, dict)
        return Answer({**answer.body, "usage": None})

    one = limits(max_in_flight=1)
    with Endpoint(script) as endpoint:
        player = HTTPPlayer(config(endpoint, limits=one))
        episodes = player.play(games())
    n = len(endpoint.bodies)
    said = (n + 1) // 2
    assert player.usage.n_prompt_tokens == 7 * said
    assert player.usage.n_completion_tokens == 3 * said
    assert player.usage.n_unmetered == n - said
    assert attempts_frame(episodes)["n_tokens"].sum() == 3 * said


def test_the_key_is_sent_and_shown_nowhere(monkeypatch, caplog):
    monkeypatch.setenv("TEST_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    answers = iter([fails(500, f"bad {KEY}"), says(None), says(BET), fails(401, f"wrong: {KEY}")])
    with Endpoint(lambda *_: next(answers)) as endpoint:
        settings = config(endpoint, key_env="TEST_KEY", limits=limits(max_in_flight=1))
        player = HTTPPlayer(settings, clock=FakeClock())
        with pytest.raises(ModelError) as caught:
            player.play(one_game())
    assert {headers["Authorization"] for headers in endpoint.headers} == {f"Bearer {KEY}"}
    error = caught.value
    shown = [
        str(error), repr(error), repr(error.__cause__), repr(error.__context__), caplog.text,
        repr(player), repr(vars(player)), repr(player.usage), repr(settings),
        settings.model_dump_json(), json.dumps(what_half(settings)),
    ]  # fmt: skip
    assert "[key]" in str(error)
    assert [text for text in shown if KEY in text] == []
    assert KEY.encode() not in pickle.dumps(settings)


def test_the_key_is_not_in_what_is_said_of_a_failed_connection(monkeypatch):
    async def post(*args, **kwargs):
        raise httpx2.ConnectError(f"cannot send {KEY}")

    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setattr(httpx2.AsyncClient, "post", post)
    settings = EndpointConfig(url="http://localhost:1/v1", model="m", key_env="TEST_KEY")
    player = HTTPPlayer(settings, clock=FakeClock())
    player.play(one_game(Retries(max_attempts=1, max_skips=1)))
    assert player.usage.messages == {"connection": "cannot send [key]"}


def test_no_key_is_sent_where_none_is_named():
    with Endpoint(lambda *_: says(STOP)) as endpoint:
        HTTPPlayer(config(endpoint, key_env=None)).play(one_game())
    assert "Authorization" not in endpoint.headers[0]


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_is_told_before_anything_is_asked(monkeypatch, value):
    monkeypatch.delenv("TEST_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TEST_KEY", value)
    with pytest.raises(ConfigError, match="TEST_KEY"):
        HTTPPlayer(EndpointConfig(url="http://localhost:1/v1", model="m", key_env="TEST_KEY"))


@pytest.mark.parametrize("value", [f"{KEY}\nX: 1", f"{KEY} {KEY}", f"{KEY}é"])
def test_a_key_that_no_header_can_hold_is_refused_without_quoting_it(monkeypatch, value):
    monkeypatch.setenv("TEST_KEY", value)
    with pytest.raises(ConfigError, match="TEST_KEY") as caught:
        HTTPPlayer(EndpointConfig(url="http://localhost:1/v1", model="m", key_env="TEST_KEY"))
    assert KEY not in str(caught.value)


def test_proxies_of_the_environment_are_not_for_this_machine(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Endpoint(play_scripted) as endpoint:
        player = HTTPPlayer(config(endpoint), clock=FakeClock())
        assert len(player.play(games())) == len(games())
    assert player.usage.retries == {}
    here = (
        "http://localhost:80/v1",
        "http://127.0.0.9/v1",
        "http://[::1]:80",
        "http://a.localhost",
    )
    assert all(is_loopback(url) for url in here)
    assert not any(is_loopback(url) for url in ("https://api.openai.com/v1", "http://10.0.0.1"))


@pytest.fixture
def interruptible():
    """Interrupts raise KeyboardInterrupt, also where the tests run in the background of a shell."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("interrupts reach the main thread only")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_every_request_and_leaves_no_thread(interruptible):
    def script(body, nth):
        if body is endpoint.bodies[3]:
            # To the process, as a terminal does; which of its threads gets it is not known.
            os.kill(os.getpid(), signal.SIGINT)
        return Answer(never=True)

    with Endpoint(script, wait_for=4) as endpoint:
        player = HTTPPlayer(config(endpoint, limits=limits(max_in_flight=4, timeout_s=60)))
        with pytest.raises(KeyboardInterrupt):
            player.play(games())
        assert len(endpoint.bodies) == 4
        assert "own-loop" not in [thread.name for thread in threading.enumerate()]


def test_an_error_of_whoever_is_told_ends_the_play():
    def on_finish(n_over, n):
        raise ZeroDivisionError

    with Endpoint(play_scripted) as endpoint:
        with pytest.raises(ZeroDivisionError):
            HTTPPlayer(config(endpoint)).play(games(), on_finish)
        assert "own-loop" not in [thread.name for thread in threading.enumerate()]


def test_every_attempt_of_a_failed_decision_is_a_row():
    def script(body, nth):
        return fails(500) if "could not be read" not in str(body["messages"]) else says(STOP)

    with Endpoint(script) as endpoint:
        player = HTTPPlayer(config(endpoint, limits=limits(max_tries=3)), clock=FakeClock())
        table = attempts_frame(player.play(games()))
    assert len(table) == 2 * len(games())
    assert table.filter(pl.col("attempt") == 1)["problem"].unique().to_list() == [
        "error: status 500, 3 tries"
    ]
    assert table.filter(pl.col("attempt") == 2)["action"].unique().to_list() == ["stop"]
