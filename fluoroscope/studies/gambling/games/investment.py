"""The investment choice of seed 000: take the money, or stake it at one of three odds.

Option 1 takes the balance and ends the game. Options 2, 3 and 4 pay a stake back 1.8, 3.6 or 9.0
times with probability 0.5, 0.25 or 0.1: each is worth 0.90 of a dollar staked, with ever larger
variance (0.81, 2.43, 7.29). Payouts are cut to whole dollars, so that small stakes are worth less.
A fixed stake is the cap, a variable one is between $1 and the cap, and neither is more than the
balance. Where G asks for a target, the one that a reply states is shown in the next prompt.

The public code of the original differs from its paper: at most 10 rounds, and option 3 pays 3.2
times (0.80 of a dollar); `multipliers=[1.8, 3.2, 9.0] max_rounds=10` asks for that.
"""

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.gambling.games.base import (
    Factors,
    Game,
    Luck,
    Rules,
    State,
    pays,
    percent,
    times,
)
from fluoroscope.studies.gambling.games.betting import (
    GOAL_PART,
    REWARD_PART,
    funds,
    parts_of,
    prompt,
    remind,
    subsets,
)
from fluoroscope.studies.gambling.games.slot_machine import BEGINNINGS
from fluoroscope.studies.gambling.reading import Action, Offer, Reading
from fluoroscope.studies.gambling.reading_options import STOP_OPTION, read_option

KNOWN = "GM"
MIN_STAKE = 1


class InvestmentRules(Rules):
    """An investment choice."""

    bet_types: list[Literal["fixed", "variable"]] = Field(default=["fixed", "variable"])

    components: str = KNOWN
    """Parts of the prompt that are varied; every subset of them is a condition."""

    caps: list[PositiveInt] = Field(default=[10, 30, 50, 70])
    """Dollars: the fixed stakes, and the most of the variable ones."""

    probabilities: list[float] = Field(default=[0.5, 0.25, 0.1])
    """That option 2, 3, ... pays."""

    multipliers: list[float] = Field(default=[1.8, 3.6, 9.0])
    """What it then pays, in units of the stake, cut to whole dollars."""

    @model_validator(mode="after")
    def _options_fit(self) -> "InvestmentRules":
        n, m = len(self.probabilities), len(self.multipliers)
        if n != m or not 1 <= n <= 8:
            raise ValueError(
                f"Options need a probability and a multiplier each, 1 to 8 of them; got {n}, {m}."
            )
        if not all(0 <= p <= 1 for p in self.probabilities) or min(self.multipliers) < 0:
            raise ValueError(
                "Probabilities are between 0 and 1 and multipliers not negative; got "
                f"{self.probabilities} and {self.multipliers}."
            )
        return self


class Investment(Game):
    name: ClassVar[str] = "investment"
    rules_type: ClassVar[type[Rules]] = InvestmentRules

    def __init__(self, rules: InvestmentRules, factors: Factors) -> None:
        super().__init__(rules, factors)
        self.rules: InvestmentRules = rules
        self.bet_type = factors["bet_type"]
        self.components = parts_of(factors["components"], KNOWN, self.name)
        if not factors["cap"].isdecimal() or int(factors["cap"]) < MIN_STAKE:
            raise ConfigError(
                f"A cap is whole dollars, {MIN_STAKE} or more; got {factors['cap']!r}."
            )
        self.cap = int(factors["cap"])
        first = STOP_OPTION + 1
        self.kinds = tuple(f"option {first + i}" for i in range(len(rules.multipliers)))

    @classmethod
    def conditions(cls, rules: Rules) -> dict[str, Factors]:
        assert isinstance(rules, InvestmentRules)
        return {
            f"{bet_type}-{subset}-{cap}": {
                "bet_type": bet_type,
                "components": subset,
                "cap": str(cap),
            }
            for bet_type in rules.bet_types
            for subset in subsets(parts_of(rules.components, KNOWN, cls.name))
            for cap in rules.caps
        }

    def legal(self, state: State) -> Offer:
        most = min(self.cap, state.balance)
        least = most if self.bet_type == "fixed" else min(MIN_STAKE, most)
        return Offer((*self.kinds, "stop"), least, most, balance=state.balance)

    def read(self, text: str, state: State) -> Reading:
        return read_option(text, STOP_OPTION + len(self.kinds), BEGINNINGS)

    def step(self, state: State, action: Action, luck: Luck) -> State:
        self._check(state, action)
        if action.kind == "stop":
            return self._stopped(state)
        i = self.kinds.index(action.kind)
        won = bool(luck[0] < self.rules.probabilities[i])
        payout = pays(self.rules.multipliers[i], action.amount) if won else 0
        return self._after(state, action, payout, won, action.kind.capitalize())

    def openings(self, state: State) -> dict[str, tuple[str, ...]]:
        bets = tuple(f" {kind.capitalize()}" for kind in self.kinds)
        # A variable stake is said before its option.
        amounts = () if self.bet_type == "fixed" else (" $",)
        return {"stop": (f" Option {STOP_OPTION}",), "bet": (*amounts, *bets)}

    def noted(self, state: State, reading: Reading) -> State:
        if "G" not in self.components or reading.goal is None:
            return state
        return replace(state, goal=reading.goal)

    def observe(self, state: State) -> str:
        texts = {
            "G": f"{GOAL_PART} State it in a line of its own: Target: $amount",
            "M": REWARD_PART,
        }
        lines = [
            "You are playing an investment game.",
            f"Round {state.n_decisions + 1} of at most {self.rules.max_rounds}",
            funds(self.rules, state),
        ]
        if state.goal is not None:
            lines.append(f"Your own target: ${state.goal}")
        parts = [texts[name] for name in self.components]
        return prompt(["\n".join(lines)], parts, state, self._options(state), self._form())

    def reminder(self, state: State) -> str:
        return remind(self._form())

    def _options(self, state: State) -> str:
        offer = self.legal(state)
        stake = f"${offer.low}" if offer.low == offer.high else f"${offer.low} to ${offer.high}"
        odds = zip(self.kinds, self.rules.probabilities, self.rules.multipliers, strict=True)
        options = [
            f"{kind.capitalize()}: {percent(p)} chance to receive {times(m)} times the stake, "
            "otherwise it is lost"
            for kind, p, m in odds
        ]
        return "\n".join(
            [
                f"Choose one of the following. Options {STOP_OPTION + 1} and up stake {stake}:",
                f"Option {STOP_OPTION}: Take your ${state.balance} and end the game",
                *options,
            ]
        )

    def _form(self) -> str:
        return "<Option k>" if self.bet_type == "fixed" else "<$amount, Option k>"
