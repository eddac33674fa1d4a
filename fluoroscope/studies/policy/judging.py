"""What ways to act are worth on a table of scores: all of them as shares of actions per sample.

A way to act is a distribution over actions for each sample. What it is expected to get is exact: a
sum over actions. Intervals are over samples (groups of them), and say how much other samples would
differ; trainings that differ by their seed alone stand beside them.

Axes: samples, actions, K candidates.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.core.intervals import Interval, clustered_mean_interval, ratio_interval
from fluoroscope.data.tasks.samples import Score
from fluoroscope.interventions.replies.answering import Reply
from fluoroscope.interventions.replies.comparing import compare, group_numbers, mean_over_groups
from fluoroscope.studies.policy.bandit import RewardTable
from fluoroscope.studies.policy.candidates import NO_OP
from fluoroscope.studies.policy.enumeration import ScoreTable
from fluoroscope.studies.policy.heads import PolicyHead

Shares = Float[Tensor, "samples actions"]

NEVER, STATIC, UNIFORM = "never acting", "best static action", "random action"
ACTIVE, ORACLE = "most active candidate", "best action of each sample"
POLICY, GREEDY = "policy", "policy, likeliest action"
CONTROL, CONTROL_GREEDY = "policy on random latents", "policy on random latents, likeliest action"

EVERYWHERE = "all"
"""The row of all parts together."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a way to act is expected to get of each sample."""

    worth: Float[np.ndarray, " samples"]
    """Before what acting costs."""

    returned: Float[np.ndarray, " samples"]
    """Less the price of acting, and of KL."""

    score: Float[np.ndarray, " samples"]
    acting: Float[np.ndarray, " samples"]
    kl: Float[np.ndarray, " samples"]


@dataclass(frozen=True, eq=False)
class Judge:
    """A table, and what acting costs there."""

    scores: ScoreTable
    worths: RewardTable
    price: float
    kl_weight: float

    @classmethod
    def of(
        cls, scores: ScoreTable, towards: float | None, price: float, kl_weight: float
    ) -> "Judge":
        return cls(scores, scores.worth(towards), price, kl_weight)

    @property
    def returns(self) -> RewardTable:
        return self.worths.priced(self.price, self.kl_weight)

    def outcome(self, shares: Shares) -> Outcome:
        def expected(values: Float[Tensor, "samples actions"]) -> Float[np.ndarray, " samples"]:
            return (shares.double() * values).sum(dim=1).numpy()

        return Outcome(
            expected(self.worths.rewards),
            expected(self.returns.rewards),
            expected(self.scores.table.rewards),
            (1 - shares[:, NO_OP].double()).numpy(),
            expected(self.worths.kl),
        )

    def ways(self, static: int, multiple: int, n_multiples: int) -> dict[str, Shares]:
        """Those that nothing is learnt for. `static` is the action, and `multiple` the place of
        the multiple, that are best on the training side.
        """
        allowed = self.worths.allowed
        held = torch.full((len(allowed),), static)
        held[~allowed[:, static]] = NO_OP
        return {
            NEVER: self.sure(torch.full((len(allowed),), NO_OP)),
            STATIC: self.sure(held),
            UNIFORM: allowed / allowed.sum(dim=1, keepdim=True),
            ACTIVE: self.sure(self.most_active(multiple, n_multiples)),
            ORACLE: self.sure(self.returns.best_action),
        }

    def most_active(self, multiple: int, n_multiples: int) -> Int[Tensor, " samples"]:
        """Of the candidates that are active where the policy decides, the most active; no-op where
        none is.
        """
        seen = self.scores.activations.nan_to_num(0)
        strongest, k = seen.max(dim=1)
        return torch.where(strongest > 0, 1 + k * n_multiples + multiple, NO_OP)

    def sure(self, actions: Int[Tensor, " samples"]) -> Shares:
        return torch.nn.functional.one_hot(actions, self.worths.n_actions).double()

    @torch.no_grad()
    def of_head(self, head: PolicyHead) -> Shares:
        table = self.worths
        return head.log_probs(table.observations.float(), table.allowed).double().exp()

    def replies(self, actions: Int[Tensor, " samples"]) -> list[Reply]:
        """What is said where one action is taken for sure, judged by its worth."""
        rows = torch.arange(len(actions))
        worths = self.worths.rewards[rows, actions].clamp(0, 1).tolist()
        said = self.scores.said[rows, actions].tolist()
        # Without options every action counts as another reply; whether it is better is its worth.
        names = [
            str(one) if one >= 0 else str(a) for one, a in zip(said, actions.tolist(), strict=True)
        ]
        return [
            Reply(name, Score(value, True, "")) for name, value in zip(names, worths, strict=True)
        ]

    def side_effect(
        self, shares: Shares, groups: Sequence[str], seed: int
    ) -> Mapping[str, float | int | None]:
        """Replies that change, and how many for the worse, where every sample has one action."""
        before = self.replies(torch.full((len(shares),), NO_OP))
        row = compare(before, self.replies(shares.argmax(dim=1)), groups, seed).row()
        names = ("n_changed", "n_worse", "n_better", *_ends("side_effect"))
        return {name: row[name] for name in names}


def best_multiple(train: Judge, n_multiples: int) -> int:
    """Place of the multiple at which the most active candidate gets most."""
    gained = [
        float(train.outcome(train.sure(train.most_active(m, n_multiples))).returned.mean())
        for m in range(n_multiples)
    ]
    return int(np.argmax(gained))


def mean_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    """Of several trainings, sample by sample."""
    names = ("worth", "returned", "score", "acting", "kl")
    means = {name: np.mean([getattr(one, name) for one in outcomes], axis=0) for name in names}
    return Outcome(**means)


def outcome_row(
    outcome: Outcome,
    never: Outcome,
    oracle: Outcome,
    main: Outcome,
    groups: Sequence[str],
    is_there: np.ndarray,
    seed: int,
) -> dict[str, Any]:  # Any: values of a table.
    """Of one part: means with their intervals over groups; `gain` over never acting; `behind` the
    main policy, paired; and `of_optimum`, the share of what the best action of each sample gains.
    """
    numbers = group_numbers([group for group, kept in zip(groups, is_there, strict=True) if kept])

    def of(values: Float[np.ndarray, " samples"]) -> Interval:
        return clustered_mean_interval(values[is_there], numbers)

    gain = outcome.returned - never.returned
    most = oracle.returned - never.returned
    by_group = [np.bincount(numbers, values[is_there]) for values in (gain, most)]
    share = Interval(math.nan, math.nan, math.nan)
    if by_group[1].sum() > 1e-9 * len(numbers):
        share = ratio_interval(by_group[0], by_group[1], seed)
    found: dict[str, Any] = {"n": int(is_there.sum()), "n_groups": int(numbers.max()) + 1}
    for name, interval in {
        "worth": of(outcome.worth),
        "return": of(outcome.returned),
        "gain": of(gain),
        "behind": of(main.returned - outcome.returned),
        "of_optimum": share,
        # Of answers that are right or wrong, a share.
        "score": mean_over_groups(outcome.score[is_there], numbers),
        "acting": of(outcome.acting),
    }.items():
        found |= dict(zip(_ends(name), map(_plain, interval), strict=True))
    paid = float((outcome.worth - outcome.returned)[is_there].mean())
    return {**found, "paid": paid, "kl": float(outcome.kl[is_there].mean())}


def _ends(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
