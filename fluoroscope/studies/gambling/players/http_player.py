"""A chat endpoint as a player: every game advances on its own, many requests are under way at once.

A request that fails is sent again, and after the last try the attempt counts as failed: what did
not come is never replaced by a decision. A request that the server refuses ends the play at once,
for the next would be refused as well.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2

from fluoroscope.core.errors import ModelError
from fluoroscope.core.seeding import stream
from fluoroscope.studies.gambling.episodes import Ask, Conversation, Episode, Reply
from fluoroscope.studies.gambling.players.base import OnFinish, Player
from fluoroscope.studies.gambling.players.chat_format import (
    Answer,
    error_code,
    estimated_tokens,
    read_answer,
    request_body,
    retry_after_s,
    server_message,
    without_key,
)
from fluoroscope.studies.gambling.players.endpoint_config import EndpointConfig, read_key
from fluoroscope.studies.gambling.players.own_loop import in_own_loop
from fluoroscope.studies.gambling.players.rate_limit import Clock, RateLimit

_RETRIED = (408, 425, 429)
"""Statuses below 500 that say "not now" and not "no"."""

_LONGEST_BACK_OFF_S = 60.0
_LONGEST_PAUSE_S = 600.0
"""Pauses that a server may ask for; a longer one, such as until tomorrow, ends the play."""


@dataclass
class Usage:
    """What a player has asked for since it was made."""

    n_requests: int = 0
    n_prompt_tokens: int = 0
    """As the server says; answers for which it does not are counted in `n_unmetered`."""

    n_completion_tokens: int = 0
    n_unmetered: int = 0
    retries: dict[str, int] = field(default_factory=dict)
    """Requests that were sent again, by why: `timeout`, `connection`, `status 429`, `malformed`."""

    given_up: dict[str, int] = field(default_factory=dict)
    """Attempts that failed, by why their last try did."""

    messages: dict[str, str] = field(default_factory=dict)
    """What was last said of each of these."""

    limited_s: float = 0.0
    """Seconds that the next request was held back by the limits or by a pause."""

    backed_off_s: float = 0.0
    """Seconds before second and further tries, summed over requests, which wait side by side."""


class Failure(NamedTuple):
    """Why a request may be sent again."""

    reason: str
    message: str
    pause_s: float = 0.0


class _Session(NamedTuple):
    """What the games of one play share."""

    client: httpx2.AsyncClient
    key: str | None
    places: asyncio.Semaphore
    gate: asyncio.Lock
    """Whoever holds it is the next to send."""


class HTTPPlayer(Player):
    def __init__(self, endpoint: EndpointConfig, *, clock: Clock | None = None) -> None:
        # Told now if it is missing, and not kept: it is read again when it is used.
        read_key(endpoint)
        self.endpoint, self.usage = endpoint, Usage()
        self._clock = clock or Clock()
        limits = endpoint.limits
        self._limit = RateLimit(limits.requests_per_minute, limits.tokens_per_minute)

    def play(
        self, conversations: Sequence[Conversation], on_finish: OnFinish | None = None
    ) -> list[Episode]:
        n = len(conversations)

        def tell(n_over: int) -> None:
            if on_finish is not None:
                on_finish(n_over, n)

        return in_own_loop(lambda report: self._play(conversations, report), tell)

    async def _play(
        self, conversations: Sequence[Conversation], report: Callable[[int], None]
    ) -> list[Episode]:
        key, max_in_flight = read_key(self.endpoint), self.endpoint.limits.max_in_flight
        n_over = 0

        async def game(conversation: Conversation) -> Episode:
            nonlocal n_over
            episode = await self._game(session, conversation)
            n_over += 1
            report(n_over)
            return episode

        async with _client(self.endpoint, key) as client:
            places, gate = asyncio.Semaphore(max_in_flight), asyncio.Lock()
            session = _Session(client, key, places, gate)
            games = [asyncio.create_task(game(one)) for one in conversations]
            try:
                return await asyncio.gather(*games)
            finally:
                for one in games:
                    # A second cancel would break into the closing of a connection.
                    if not one.cancelling():
                        one.cancel()
                await asyncio.gather(*games, return_exceptions=True)

    async def _game(self, session: _Session, conversation: Conversation) -> Episode:
        reply: Reply | None = None
        while True:
            try:
                ask = next(conversation) if reply is None else conversation.send(reply)
            except StopIteration as end:
                return end.value
            reply = await self._answer(session, ask)

    async def _answer(self, session: _Session, ask: Ask) -> Reply:
        max_tries = self.endpoint.limits.max_tries
        n_tries = 1
        while isinstance(found := await self._try(session, ask), Failure):
            reason = found.reason
            self.usage.messages[reason] = found.message
            # The pause is for all, also where this request is not sent again.
            self._limit.pause_until(self._clock.now() + self._checked_pause(found))
            if n_tries == max_tries:
                _count(self.usage.given_up, reason)
                # Without the server's words, which may differ each time: it is a category.
                return Reply("", finish="error", error=f"{reason}, {n_tries} tries")
            _count(self.usage.retries, reason)
            await self._back_off(ask, n_tries, found)
            n_tries += 1
        self._count_tokens(found)
        return found.reply

    async def _try(self, session: _Session, ask: Ask) -> Answer | Failure:
        taken = estimated_tokens(self.endpoint, ask)
        async with session.places:
            await self._turn(session, taken)
            self.usage.n_requests += 1
            try:
                # Of the whole request: the client's own timeouts begin again with each byte.
                async with asyncio.timeout(self.endpoint.limits.timeout_s):
                    response = await session.client.post(
                        f"{self.endpoint.url}/chat/completions",
                        json=request_body(self.endpoint, ask),
                    )
            except TimeoutError:
                return Failure("timeout", f"no answer in {self.endpoint.limits.timeout_s:g} s")
            except httpx2.RequestError as error:
                return Failure("connection", without_key(str(error), session.key))
        answer = self._read(response, session.key)
        if isinstance(answer, Answer) and answer.n_prompt_tokens is not None:
            used = answer.n_prompt_tokens + (answer.n_completion_tokens or 0)
            self._limit.correct(taken, used)
        return answer

    async def _turn(self, session: _Session, tokens: int) -> None:
        """Waits until the next request may be sent; first come, first served."""
        async with session.gate:
            since = self._clock.now()
            while (wait := self._limit.ready_in(self._clock.now())) > 0:
                await self._clock.sleep(wait)
            now = self._clock.now()
            self.usage.limited_s += now - since
            self._limit.take(tokens, now)

    def _read(self, response: httpx2.Response, key: str | None) -> Answer | Failure:
        status, content = response.status_code, response.content
        if response.is_success:
            # Some servers say that they failed in the body of a success.
            return read_answer(content) or Failure("malformed", server_message(content, key))
        message = server_message(content, key)
        # Money that is used up is said with a 429 as well, and does not come back by waiting.
        is_passing = status in _RETRIED and error_code(content) != "insufficient_quota"
        if is_passing or response.is_server_error:
            pause_s = retry_after_s(response.headers.get("Retry-After"))
            return Failure(f"status {status}", message, pause_s)
        raise ModelError(
            f"The endpoint {self.endpoint.url} refused a request to {self.endpoint.model} with "
            f"status {status}: {message or 'no message'}. Check url, model, the key in "
            f"{self.endpoint.key_env or 'key_env'} and the sampling settings."
        )

    def _checked_pause(self, failure: Failure) -> float:
        if failure.pause_s > _LONGEST_PAUSE_S:
            raise ModelError(
                f"The endpoint {self.endpoint.url} asks to wait {failure.pause_s / 60:.0f} minutes "
                f"({failure.reason}: {failure.message}). Try again then."
            )
        return failure.pause_s

    async def _back_off(self, ask: Ask, n_tries: int, failure: Failure) -> None:
        longest = min(_LONGEST_BACK_OFF_S, 2.0 ** (n_tries - 1))
        # Not all at once when a pause is over; and the same waits when a play is repeated.
        wait = failure.pause_s + longest * float(stream(ask.seed, "retry", n_tries).uniform(0.5, 1))
        self.usage.backed_off_s += wait
        await self._clock.sleep(wait)

    def _count_tokens(self, answer: Answer) -> None:
        self.usage.n_prompt_tokens += answer.n_prompt_tokens or 0
        self.usage.n_completion_tokens += answer.n_completion_tokens or 0
        self.usage.n_unmetered += answer.n_prompt_tokens is None


def _client(endpoint: EndpointConfig, key: str | None) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        headers={} if key is None else {"Authorization": f"Bearer {key}"},
        timeout=None,
        # How many are in flight is decided before the clock of a request starts, not in the pool.
        limits=httpx2.Limits(
            max_connections=None, max_keepalive_connections=endpoint.limits.max_in_flight
        ),
        # A proxy in the environment is for the world outside, not for a server on this machine.
        trust_env=not is_loopback(endpoint.url),
    )


def is_loopback(url: str) -> bool:
    """Whether a url is of this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
