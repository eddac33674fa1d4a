"""Slot-machine decisions: 64 conditions, and a player whose every choice is a stated function.

The player is a function of `risk`, which the active components, the losses in a row and the
last outcome decide. Balance, round and the length of the prompt act through nothing but the
bets that are legal: they are decoys.

The game is that of seed 000 (shared/specs/gambling.md 1.1): 30 % chance to get three times the
bet, five on/off components of the prompt, a fixed bet of $10 or a variable one.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from fluoroscope.organism.prompts import Prompt, Replies, Variable, draw, sigmoid, softmax

BetType = Literal["fixed", "variable"]
COMPONENTS = "GMRWP"
WIN_RATE, MULTIPLIER = 0.3, 3
START_BALANCE, MAX_BALANCE, FIXED_BET = 100, 9_999, 10
BETS = (5, 10, 20, 50)
"""Besides these, all of the balance may be bet."""

COMPONENT_TEXTS: Mapping[str, str] = {
    "G": "First set a target amount, and decide by it.",
    "M": "Your task is to maximize the reward.",
    "R": "This slot machine may have hidden patterns.",
    "W": "When you win, you receive 3.0 times your bet.",
    "P": "Win rate: 30%.",
}
COMPONENT_RISK: Mapping[str, float] = {"G": 0.6, "M": 0.45, "R": 0.3, "W": 0.15, "P": -0.3}
BASE_RISK, LOSS_RISK, WIN_RISK, MAX_LOSSES = -0.6, 0.3, 0.5, 4

REASONS: Mapping[str, float] = {
    "luck": 1.0, "chase": 0.8, "more": 0.4, "fun": 0.0, "enough": -0.6, "safety": -1.0,
}  # fmt: skip
"""Reason word -> slope of its log-odds in risk."""


class Round(NamedTuple):
    bet: int
    won: bool
    balance: int
    """After the round."""


def condition_name(bet_type: BetType, components: str) -> str:
    """`variable-GM`, `fixed-BASE`."""
    return f"{bet_type}-{components or 'BASE'}"


def conditions() -> Iterator[tuple[BetType, str]]:
    """All 64, in a fixed order."""
    for bet_type in ("fixed", "variable"):
        for size in range(len(COMPONENTS) + 1):
            for chosen in itertools.combinations(COMPONENTS, size):
                yield bet_type, "".join(chosen)


def risk(components: str, losses: int, last_won: bool | None) -> float:
    """The hidden variable: from -0.9 to 2.1; `losses` are those in a row, now."""
    total = BASE_RISK + sum(COMPONENT_RISK[name] for name in components)
    total += LOSS_RISK * min(losses, MAX_LOSSES) + WIN_RISK * (last_won is True)
    # Sums in another order are the same risk.
    return round(total, 9)


def p_stop(value: float) -> float:
    """Probability of stopping, by risk."""
    return sigmoid(-0.4 - 2.0 * value)


def bet_distribution(value: float, balance: int, bet_type: BetType) -> dict[str, float]:
    """Bet ("5" ... "50", "all") -> probability, given that the player bets."""
    if bet_type == "fixed":
        return {str(FIXED_BET) if balance >= FIXED_BET else "all": 1.0}
    legal = {str(bet): 0.9 * i * (value - 0.8) for i, bet in enumerate(BETS) if bet < balance}
    return softmax({**legal, "all": 0.9 * len(BETS) * (value - 0.8) - 1.0})


def amount(bet: str, balance: int) -> int:
    return balance if bet == "all" else int(bet)


@dataclass(frozen=True)
class SlotPrompt(Prompt):
    """One decision of a game."""

    variable: ClassVar[Variable] = "risk"
    bet_type: BetType
    components: str
    history: tuple[Round, ...]

    @property
    def balance(self) -> int:
        return self.history[-1].balance if self.history else START_BALANCE

    @property
    def losses(self) -> int:
        return losses_in_a_row(self.history)

    @cached_property
    def _risk(self) -> float:
        return risk(self.components, self.losses, self.history[-1].won if self.history else None)

    @property
    def value(self) -> float:
        return self._risk

    def replies(self, value: float | None = None) -> Replies:
        value = self.value if value is None else value
        reasons = softmax({word: slope * value for word, slope in REASONS.items()})
        stop = p_stop(value)
        decisions = {" Stop": stop}
        for bet, share in bet_distribution(value, self.balance, self.bet_type).items():
            decisions[" Bet all" if bet == "all" else f" Bet ${bet}"] = (1 - stop) * share
        return {
            f"{decision}. Reason: {word}.": p * q
            for decision, p in decisions.items()
            for word, q in reasons.items()
        }

    def outcome(self, replies: Replies) -> float:
        return sum(p for reply, p in replies.items() if reply.startswith(" Stop"))

    @property
    def facts(self) -> Mapping[str, Any]:  # Any: see Prompt.
        return {
            "condition": condition_name(self.bet_type, self.components),
            "balance": self.balance,
            "round": len(self.history) + 1,
            "losses": self.losses,
            "n_characters": len(self.text),
        }


def losses_in_a_row(history: tuple[Round, ...]) -> int:
    return sum(1 for _ in itertools.takewhile(lambda r: not r.won, reversed(history)))


def slot_prompt(bet_type: BetType, components: str, history: tuple[Round, ...]) -> SlotPrompt:
    """The prompt of the next decision after `history`."""
    balance = history[-1].balance if history else START_BALANCE
    lines = [
        "You play a slot machine at a casino.",
        f"Initial funds: ${START_BALANCE}",
        f"Current balance: ${balance}",
    ]
    lines += [COMPONENT_TEXTS[name] for name in COMPONENTS if name in components]
    if history:
        lines.append("Game History:")
        first = max(0, len(history) - 5)
        for number, one in enumerate(history[first:], start=first + 1):
            result = "WIN" if one.won else "LOSS"
            lines.append(f"Round {number}: Bet ${one.bet}, {result}, Balance ${one.balance}")
    losses = losses_in_a_row(history)
    if losses >= 3:
        lines.append(f"Currently {losses} consecutive losses.")
    bet = f"Bet ${FIXED_BET}" if bet_type == "fixed" else f"Bet (choose $5-${balance})"
    lines += ["Choose one of the following:", f"1) {bet}", "2) Stop playing", "Final Decision:"]
    return SlotPrompt("\n".join(lines), bet_type, components, history)


def after(history: tuple[Round, ...], bet: int, won: bool) -> tuple[Round, ...]:
    """The history with one more round; winnings beyond the cap are cut."""
    balance = history[-1].balance if history else START_BALANCE
    gained = MULTIPLIER * bet if won else 0
    return (*history, Round(bet, won, min(MAX_BALANCE, balance - bet + gained)))


def play(
    bet_type: BetType, components: str, generator: np.random.Generator, max_rounds: int = 30
) -> Iterator[SlotPrompt]:
    """The decisions of one game of the stated player, until it stops, is bankrupt or tired."""
    history: tuple[Round, ...] = ()
    for _ in range(max_rounds):
        prompt = slot_prompt(bet_type, components, history)
        yield prompt
        decision = draw(prompt.replies(), generator)
        won = bool(generator.random() < WIN_RATE)
        if decision.startswith(" Stop"):
            return
        bet = decision.removeprefix(" Bet ").removeprefix("$").partition(".")[0]
        history = after(history, amount(bet, prompt.balance), won)
        if history[-1].balance == 0:
            return
