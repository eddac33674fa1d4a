"""One game as a conversation: it asks, is answered, and goes on until it is over.

An episode is a generator that yields an `Ask` and is sent a `Reply`; it neither knows nor cares
who answers: a model with many hundred games in flight, an endpoint over HTTP, or a log that is
read again. Every attempt is a row, also those that could not be read: nothing is dropped.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import NamedTuple

from jaxtyping import Float
from numpy import ndarray
from pydantic import Field, PositiveInt

from fluoroscope.core.config import Config
from fluoroscope.core.seeding import derive_seed
from fluoroscope.studies.gambling.games.base import Game, State
from fluoroscope.studies.gambling.reading import GRAMMAR, Reading, settle


class Retries(Config):
    """What happens when a reply is empty or cannot be read."""

    max_attempts: PositiveInt = 4
    """Times that one decision is asked for; the seed's "infinite retry" is a large number here,
    and the report says how often it was reached."""

    only_empty: bool = False
    """Whether only empty replies are asked for again, as the seed did."""

    remind: bool = True
    """Whether a second attempt adds a reminder of the form to the prompt."""

    max_skips: PositiveInt = 10
    """Decisions in a row without a readable reply that end a game as `invalid`."""

    min_confidence: float = Field(default=0.5, ge=0, le=1)
    """Confidence of a reading below which it is not played; 1 is the form that was asked for."""


class Ask(NamedTuple):
    """One attempt at one decision."""

    game: str
    """Key of the game."""

    prompt: str
    seed: int
    stop: tuple[str, ...]
    attempt: int


class Reply(NamedTuple):
    text: str
    finish: str = "stop_token"
    n_tokens: int = 0
    n_edits: int = 0
    error: str = ""
    """What went wrong where no text came; the attempt counts as one that failed."""


@dataclass(frozen=True)
class Seat:
    """A game that is to be played."""

    key: str
    """Names the game, and its luck with tokens."""

    condition: str
    repetition: int
    game: Game
    tape: Float[ndarray, "rounds draws"]
    seed: int
    arm: str = "baseline"
    """What is edited while it plays; arms of one key play with the same luck."""


@dataclass
class Episode:
    """A game that was played."""

    seat: Seat
    state: State
    attempts: list[dict[str, object]] = field(default_factory=list)


Conversation = Generator[Ask, Reply, Episode]


def converse(seat: Seat, retries: Retries) -> Conversation:
    """Plays a game; what it asks does not depend on who else is playing."""
    state, attempts = seat.game.reset(), []
    while state.outcome is None:
        state = yield from _decide(seat, state, retries, attempts)
    return Episode(seat, state, attempts)


def _decide(
    seat: Seat, state: State, retries: Retries, attempts: list[dict[str, object]]
) -> Generator[Ask, Reply, State]:
    game, offer = seat.game, seat.game.legal(state)
    own = game.observe(state)
    for attempt in range(1, retries.max_attempts + 1):
        prompt = own + (game.reminder(state) if attempt > 1 and retries.remind else "")
        # Each game draws its tokens by numbers of its own; arms of a game by the same.
        names = ("play", seat.condition, seat.repetition, state.n_decisions, attempt)
        seed = derive_seed(seat.seed, *names)
        reply = yield Ask(seat.key, prompt, seed, game.echoes, attempt)
        reading = game.read(reply.text, state) if not reply.error else Reading(None)
        settled = settle(reading, offer, retries.min_confidence)
        problem = problem_of(reply, settled.problem, is_open=reading.is_open)
        row = {
            **_about(seat, state),
            "attempt": attempt,
            "prompt": prompt,
            "response": reply.text,
            "finish": reply.finish,
            "n_tokens": reply.n_tokens,
            "n_edits": reply.n_edits,
            "seed": seed,
            "grammar": GRAMMAR,
            "rule": reading.rule,
            "confidence": reading.confidence,
            "said": reading.amount,
            "goal": reading.goal,
            "problem": problem,
            "adjustment": settled.adjustment,
        }
        if settled.action is not None and not problem:
            after = game.step(state, settled.action, seat.tape[len(state.rounds)])
            attempts.append(row | _played(settled.action, state, after))
            return game.noted(after, reading)
        attempts.append(row | _not_played(state))
        if retries.only_empty and problem != "empty":
            break
    return game.skip(state, retries.max_skips)


def problem_of(reply: Reply, unsettled: str, *, is_open: bool) -> str:
    """Why a reply is not played; nothing if it is."""
    if reply.error:
        return f"error: {reply.error}"
    if len(reply.text.strip()) < 1:
        return "empty"
    if (unsettled or is_open) and reply.finish in ("length", "context"):
        # Cut off before it decided, or within the amount, which is not the same as not deciding.
        return "truncated"
    return unsettled


def _about(seat: Seat, state: State) -> dict[str, object]:
    return {
        "game": seat.key,
        "arm": seat.arm,
        "condition": seat.condition,
        "repetition": seat.repetition,
        "decision": state.n_decisions + 1,
        "round": len(state.rounds) + 1,
        "balance": state.balance,
        "losses": state.losses,
        "last_won": state.last_won,
    }


def _played(action: tuple[str, int], before: State, after: State) -> dict[str, object]:
    kind, amount = action
    moved = len(after.rounds) > len(before.rounds)
    last = after.rounds[-1] if moved else None
    return {
        "is_played": True,
        "action": kind,
        "amount": amount,
        "won": last.won if last else None,
        "payout": last.payout if last else 0,
        "balance_after": after.balance,
        "outcome": after.outcome,
    }


def _not_played(state: State) -> dict[str, object]:
    return {
        "is_played": False,
        "action": None,
        "amount": None,
        "won": None,
        "payout": 0,
        "balance_after": state.balance,
        "outcome": None,
    }
