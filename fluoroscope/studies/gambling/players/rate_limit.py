"""How soon the next request may be sent: token buckets over a clock.

A bucket is as deep as one request, so that requests leave evenly: no minute has more of them than
is allowed, also not the first, for servers count in windows shorter than a minute as well. In the
form of a virtual schedule (ITU-T I.371, annex A), which needs no refilling.
"""

import asyncio
import time


class Clock:
    """Seconds that only go forward; tests use their own."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Bucket:
    def __init__(self, per_minute: float | None) -> None:
        """Of what may leave `per_minute`; None for as much as there is."""
        self._seconds_each = 60 / per_minute if per_minute else 0.0
        self._ready_at = float("-inf")

    def ready_in(self, now: float) -> float:
        """Seconds until something may leave; zero or less means now."""
        return self._ready_at - now

    def take(self, amount: float, now: float) -> None:
        """Something leaves now. Idle time is not saved up."""
        self._ready_at = max(self._ready_at, now) + amount * self._seconds_each

    def give_back(self, amount: float) -> None:
        """Of what was taken too much; less than zero for too little."""
        self._ready_at -= amount * self._seconds_each


class RateLimit:
    """Requests and their tokens together, and pauses that a server asks for."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._requests, self._tokens = Bucket(requests_per_minute), Bucket(tokens_per_minute)
        self._paused_until = float("-inf")

    def ready_in(self, now: float) -> float:
        """Seconds until the next request may be sent; zero or less means now."""
        buckets = max(self._requests.ready_in(now), self._tokens.ready_in(now))
        return max(buckets, self._paused_until - now)

    def take(self, tokens: float, now: float) -> None:
        """A request of about so many tokens is sent now; the next waits for them."""
        self._requests.take(1, now)
        self._tokens.take(tokens, now)

    def correct(self, taken: float, used: float) -> None:
        """What a request has used, as the server says, in place of what was taken for it."""
        self._tokens.give_back(taken - used)

    def pause_until(self, time: float) -> None:
        self._paused_until = max(self._paused_until, time)
