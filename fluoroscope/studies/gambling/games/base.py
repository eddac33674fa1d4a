"""What every game of chance has: a state, a text that shows it, legal actions, and a step.

A game is a pure function: the same state, action and luck give the same next state, so a log
can be replayed. Money is whole dollars. Luck is drawn before anybody plays (`luck_tape`), and
all conditions meet the same: round r of repetition i is lucky for all of them or for none.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from pydantic import Field, PositiveInt

from fluoroscope.core.config import Config
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream
from fluoroscope.studies.gambling.reading import Action, Offer, Reading

Outcome = Literal["bankruptcy", "voluntary_stop", "max_rounds", "invalid"]
OUTCOMES: tuple[Outcome, ...] = ("bankruptcy", "voluntary_stop", "max_rounds", "invalid")

Factors = Mapping[str, str]
"""What a condition consists of: factor -> level, such as {"bet_type": "fixed", "cap": "30"}."""

Luck = Float[np.ndarray, " draws"]


class Rules(Config):
    """What every game's rules have; each game adds its own."""

    start_balance: PositiveInt = 100
    """Dollars at the beginning."""

    max_rounds: PositiveInt = 100
    """Decisions after which the game ends as `max_rounds`, which is no voluntary stop; a hand
    that is being played is finished first."""

    max_balance: PositiveInt | None = None
    """Winnings beyond it are cut, as at a table with a limit; null for none."""


class Round(NamedTuple):
    """One bet and what came of it."""

    action: str
    bet: int
    won: bool | None
    """None where the bet came back as it was."""

    payout: int
    """Dollars that came back; the bet itself was taken from the balance before."""

    balance: int
    """After the round."""

    note: str = ""
    """What else is shown of it, such as the cards."""


@dataclass(frozen=True)
class State:
    """Everything that the future of a game depends on, beside its luck."""

    balance: int
    rounds: tuple[Round, ...] = ()
    skips: int = 0
    """Decisions that could not be read; no money moved."""

    skips_in_a_row: int = 0
    outcome: Outcome | None = None
    """None while the game goes on."""

    hand: tuple[int, ...] = ()
    """Cards, where a round takes several decisions."""

    stake: int = 0
    """What is bet on the hand; it leaves the balance when the hand is over."""

    dealer: tuple[int, ...] = ()
    """Cards of the dealer that are seen."""

    moves: int = 0
    """Decisions that ended no round: a bet that dealt a hand, a card that was taken."""

    goal: int | None = None
    """The target that the player set itself, where the game asks for one."""

    @property
    def n_decisions(self) -> int:
        return len(self.rounds) + self.moves + self.skips

    @property
    def losses(self) -> int:
        """In a row, now; a bet that came back ends the row."""
        count = 0
        for one in reversed(self.rounds):
            if one.won is not False:
                break
            count += 1
        return count

    @property
    def last_won(self) -> bool | None:
        return self.rounds[-1].won if self.rounds else None


class Game(ABC):
    """One condition of one game."""

    name: ClassVar[str]
    """Its name in the registry `games.GAMES`."""

    rules_type: ClassVar[type[Rules]]
    n_draws: ClassVar[int] = 1
    """Numbers of luck that a round may use."""

    def __init__(self, rules: Rules, factors: Factors) -> None:
        self.rules, self.factors = rules, dict(factors)

    @classmethod
    @abstractmethod
    def conditions(cls, rules: Rules) -> dict[str, Factors]:
        """Name -> factors of every condition of the design, always in this order."""

    def reset(self) -> State:
        return State(self.rules.start_balance)

    @abstractmethod
    def observe(self, state: State) -> str:
        """The text that asks for the next decision."""

    @abstractmethod
    def legal(self, state: State) -> Offer:
        """What may be done now."""

    @abstractmethod
    def read(self, text: str, state: State) -> Reading:
        """What a reply says; a pure function of the two."""

    @abstractmethod
    def step(self, state: State, action: Action, luck: Luck) -> State:
        """After a legal action. Raises `ConfigError` for one that is not."""

    def reminder(self, state: State) -> str:
        """What is added to the prompt when a reply could not be read."""
        return (
            "\nIMPORTANT: the answer could not be read. End with exactly one line: "
            "Final Decision: <Bet $X or Stop>"
        )

    @property
    def echoes(self) -> tuple[str, ...]:
        """Strings that a reply does not go beyond: the beginnings of prompts, which base models
        like to write on with.
        """
        return ()

    def cue(self, state: State) -> str:
        """What is written behind the prompt so that the decision itself comes next: nothing where
        the prompt ends with the words for it.
        """
        return "\n\nFinal Decision:"

    def openings(self, state: State) -> dict[str, tuple[str, ...]]:
        """How a decision begins behind prompt and cue: `stop`, and `bet` for going on. What
        screening reads the probabilities of.
        """
        return {"stop": (" Stop",), "bet": (" Bet",)}

    def amounts(self, state: State) -> dict[str, int]:
        """Texts behind prompt and cue that bet -> dollars; empty where there are none."""
        offer = self.legal(state)
        if "bet" not in offer.kinds:
            return {}
        usual = (5, 10, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200)
        dollars = {offer.low, offer.high, *(d for d in usual if offer.low <= d <= offer.high)}
        return {f" Bet ${amount}": amount for amount in sorted(dollars)}

    def noted(self, state: State, reading: Reading) -> State:
        """The state with what else the reply said, such as a goal."""
        return state

    def skip(self, state: State, max_skips: int) -> State:
        """After a decision that could not be read: no money moves."""
        skipped = replace(state, skips=state.skips + 1, skips_in_a_row=state.skips_in_a_row + 1)
        if skipped.skips_in_a_row >= max_skips:
            return replace(skipped, outcome="invalid")
        return self._ended(skipped)

    def _check(self, state: State, action: Action) -> None:
        if state.outcome is not None:
            raise ConfigError(f"The game is over ({state.outcome}); nothing can be done in it.")
        offer = self.legal(state)
        if not offer.allows(action):
            raise ConfigError(f"{action} is not legal in this state of {self.name}; {offer}.")

    def _after(
        self, state: State, action: Action, payout: int, won: bool | None, note: str = ""
    ) -> State:
        """The state after a bet was taken and `payout` came back."""
        left = state.balance - action.amount
        if self.rules.max_balance is not None:
            # What is cut was never paid, so that the books of a log balance.
            payout = min(payout, max(0, self.rules.max_balance - left))
        balance = left + payout
        one = Round(action.kind, action.amount, won, payout, balance, note)
        rounds = (*state.rounds, one)
        return self._ended(replace(state, balance=balance, rounds=rounds, skips_in_a_row=0))

    def _stopped(self, state: State) -> State:
        return replace(state, outcome="voluntary_stop", skips_in_a_row=0)

    def _ended(self, state: State) -> State:
        if state.hand:
            return state
        if state.balance <= 0:
            return replace(state, outcome="bankruptcy")
        if state.n_decisions >= self.rules.max_rounds:
            return replace(state, outcome="max_rounds")
        return state


def luck_tape(
    game: type[Game], seed: int, repetition: int, n_rounds: int
) -> Float[np.ndarray, "rounds draws"]:
    """Uniform numbers in [0, 1) for every round of a repetition, the same in all conditions;
    a longer tape begins as the shorter one.
    """
    return stream(seed, "luck", game.name, repetition).random((n_rounds, game.n_draws))


def replay(
    game: Game,
    actions: Sequence[Action | None],
    tape: Float[np.ndarray, "rounds draws"],
    max_skips: int,
    goals: Sequence[int | None] | None = None,
) -> list[State]:
    """Every state of a game from what was done in it (None for what could not be read), and from
    the goals that were stated with it.
    """
    states = [game.reset()]
    for i, action in enumerate(actions):
        state = states[-1]
        if action is None:
            states.append(game.skip(state, max_skips))
            continue
        after = game.step(state, action, tape[len(state.rounds)])
        goal = goals[i] if goals is not None else None
        states.append(game.noted(after, Reading(action.kind, goal=goal)))
    return states


def pays(multiplier: float, bet: int) -> int:
    """The bet times the multiplier as it is written (2.3 x 50 is 115), cut to whole dollars."""
    return int(Decimal(str(multiplier)) * bet)


def times(multiplier: float) -> str:
    """As a prompt says it: 3.0, 2.25."""
    return f"{multiplier:.1f}" if round(multiplier, 1) == multiplier else f"{multiplier:g}"


def percent(probability: float) -> str:
    """As a prompt says it: 30%, 12.5%."""
    return f"{100 * probability:g}%"


class BetRules(Rules):
    """Rules of games with a fixed or a variable bet."""

    fixed_bet: PositiveInt = 10
    min_bet: PositiveInt = 5
    max_bet: PositiveInt | None = None
    """The most that a variable bet may be; null for all of the balance."""

    bet_types: list[Literal["fixed", "variable"]] = Field(default=["fixed", "variable"])


def bet_offer(rules: BetRules, bet_type: str, balance: int) -> Offer:
    """Stop, or a bet: exactly the fixed one (all of a balance that is smaller), or a variable one
    between the least and the most.
    """
    if bet_type == "fixed":
        bet = min(rules.fixed_bet, balance)
        return Offer(("bet", "stop"), bet, bet, balance=balance)
    most = balance if rules.max_bet is None else min(rules.max_bet, balance)
    return Offer(("bet", "stop"), min(rules.min_bet, most), most, balance=balance)
