"""One-token tasks as a contextual bandit: every action of every sample, enumerated.

Where a reply is one token, an action changes one distribution, which `Screen` gives exactly for
all K + 1 actions over the prompt that was read once. So R(s, a), the expected reward of action a
for sample s, is a number and no estimate; sum_a pi(a | s) R(s, a) has an exact gradient, and the
best action of each sample is an upper bound of what any policy can reach.

Axes: samples, actions, vocab, d_model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluoroscope.activations.last_positions import last_activations
from fluoroscope.core.errors import InterventionError, MismatchError
from fluoroscope.core.intervals import Interval, mean_interval
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.interventions.screening import Screen
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.requests import Prepared, prepare
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.stopping import continuation
from fluoroscope.models.texts import Generation, Request
from fluoroscope.studies.policy.candidates import NO_OP, Candidates

Reward = Callable[[list[Generation], list[Sample]], list[float]]
"""What texts are worth, each with the sample that it replies to."""


@dataclass(frozen=True, eq=False)
class RewardTable:
    """What every action is worth in every state."""

    rewards: Float[Tensor, "samples actions"]
    """R(s, a), in float64."""

    observations: Float[Tensor, "samples d_model"]
    """What the head reads: the unsteered stream at the prompt's last position."""

    allowed: Bool[Tensor, "samples actions"]
    kl: Float[Tensor, "samples actions"]
    """KL(steered || unsteered) of the next token at temperature 1, in nats."""

    missed: Float[Tensor, " samples"]
    """The most probability that any action gives to tokens whose reward was not asked for."""

    def __post_init__(self) -> None:
        if not bool(self.allowed[:, NO_OP].all()) or not bool(self.rewards.isfinite().all()):
            raise InterventionError(
                "A table of rewards is finite, and allows no-op in every state. Was a reward NaN?"
            )

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def n_actions(self) -> int:
        return self.rewards.shape[1]

    def priced(self, price: float, kl_weight: float = 0.0) -> "RewardTable":
        """With what acting costs taken off."""
        costs = kl_weight * self.kl
        costs[:, 1:] += price
        return replace(self, rewards=self.rewards - costs)

    def of(self, samples: Sequence[int]) -> "RewardTable":
        """Some of the samples."""
        rows = torch.tensor(samples, dtype=torch.int64)
        parts = (self.rewards, self.observations, self.allowed, self.kl, self.missed)
        return RewardTable(*(part[rows] for part in parts))

    @property
    def best_action(self) -> Int[Tensor, " samples"]:
        """The oracle's; no-op where nothing is better."""
        return self.rewards.masked_fill(~self.allowed, -torch.inf).argmax(dim=-1)

    @property
    def best_static(self) -> int:
        """The one action that is best for all samples; where it is not allowed, no-op is done."""
        return int(self._static().mean(dim=0).argmax())

    def static(self, action: int) -> Float[Tensor, " samples"]:
        """What each sample gets where one action is always taken that is allowed."""
        return self._static()[:, action]

    def _static(self) -> Float[Tensor, "samples actions"]:
        return torch.where(self.allowed, self.rewards, self.rewards[:, :1])


@torch.no_grad()
def enumerate_rewards(
    model: LanguageModel,
    candidates: Candidates,
    samples: Sequence[Sample],
    requests: Sequence[Request],
    reward: Reward,
    *,
    sampling: Sampling | None = None,
    floor: float = 0.0,
    is_masked: bool = False,
    sink: Sink = SILENT,
) -> RewardTable:
    """R(s, a) of the token that is drawn at the prompt's end, by `sampling` (with temperature 0
    that is one token an action).

    Every token that some action gives more than `floor` is handed to `reward` once a sample, as
    the text of one token; others are taken to be worth 0, and `missed` says how much they are.
    """
    candidates.check_fits(model)
    if len(samples) != len(requests) or not samples:
        raise MismatchError(
            f"Give one request for each sample, got {len(requests)} for {len(samples)}."
        )
    sampling = sampling or Sampling()
    one_token = [replace(one, max_tokens=1) for one in requests]
    prepared = prepare(model, one_token)
    edits = [candidates.edit(action) for action in range(candidates.n_actions)]
    rewards, kl, missed = [], [], []
    for number, (sample, asked) in enumerate(zip(samples, prepared, strict=True)):
        shares = Screen(model, asked.prompt).next_tokens(edits).cpu()
        kl.append(kl_to_first(shares))
        # The logarithm of the model's own distribution is its logits but for a constant.
        drawn = sampling.probabilities(shares.log())
        tokens = (drawn.amax(dim=0) > floor).nonzero()[:, 0]
        texts = [_generation(model, asked, number, token) for token in tokens.tolist()]
        worth = reward(texts, [sample] * len(texts))
        rewards.append(drawn[:, tokens] @ torch.tensor(worth, dtype=torch.float64))
        missed.append((1 - drawn[:, tokens].sum(dim=1)).amax().clamp(min=0))
        sink.progress(number + 1, len(samples), "samples")
    prompts = [one.prompt for one in prepared]
    return RewardTable(
        torch.stack(rewards),
        *states(model, candidates, prompts, is_masked),
        torch.stack(kl),
        torch.stack(missed),
    )


def judge_bandit(
    table: RewardTable, probabilities: Float[Tensor, "samples actions"], static_action: int
) -> dict[str, Interval]:
    """The mean reward of a policy over samples, between its bounds and beside its controls.

    `static_action` is to be chosen on other samples (`best_static`); the oracle knows the reward
    of each sample, so that no policy gets more.
    """
    shares = probabilities.double()
    uniform = table.allowed / table.allowed.sum(dim=1, keepdim=True)
    found = {
        "policy": (shares * table.rewards).sum(dim=1),
        "policy, likeliest action": _taken(table, shares.argmax(dim=1)),
        "oracle": _taken(table, table.best_action),
        "best static action": table.static(static_action),
        "never": table.rewards[:, NO_OP],
        "random action": (uniform * table.rewards).sum(dim=1),
    }
    return {name: mean_interval(values.numpy()) for name, values in found.items()}


def _taken(table: RewardTable, actions: Int[Tensor, " samples"]) -> Float[Tensor, " samples"]:
    return table.rewards.gather(1, actions[:, None])[:, 0]


def states(
    model: LanguageModel,
    candidates: Candidates,
    prompts: Sequence[tuple[int, ...]],
    is_masked: bool,
) -> tuple[Float[Tensor, "samples d_model"], Bool[Tensor, "samples actions"]]:
    """What the head reads, and what it may choose, as `Acting` has it at the first token."""
    point = candidates.acting_point
    rows = last_activations(model, prompts, [point])[point]
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    active = torch.full((len(rows), candidates.n_candidates), not is_masked)
    if is_masked:
        found = candidates.active(point, rows.to(model.device)).cpu()
        active[:, candidates.members(point)] = found
    return rows, candidates.allowed(active)


def _generation(model: LanguageModel, asked: Prepared, request: int, token: int) -> Generation:
    """What `generate` gives where this is the one token that was drawn."""
    is_stop = token in asked.rule.tokens
    text = continuation(model.tokenizer, asked.prompt, [] if is_stop else [token])
    cuts = [text.find(string) for string in asked.rule.strings if string in text]
    return Generation(
        request=request,
        text=text[: min(cuts)] if cuts else text,
        tokens=(token,),
        finish="stop_string" if cuts else "stop_token" if is_stop else "length",
        n_prompt=len(asked.prompt),
        n_edits=1,
    )


def kl_to_first(shares: Float[Tensor, "actions vocab"]) -> Float[Tensor, " actions"]:
    """KL(row || first row) of every row, in nats."""
    # A share that underflowed to 0 adds nothing where it is the steered one's.
    smallest = torch.finfo(torch.float64).tiny
    gain = shares.clamp(min=smallest).log() - shares[:1].clamp(min=smallest).log()
    return (shares * gain).sum(dim=1).clamp(min=0)
