"""Texts that a policy has acted in, as a batch to learn from; and where they come from.

Axes: steps (one for each token that was drawn, texts one behind the other), texts, actions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluoroscope.activations.last_positions import last_activations
from fluoroscope.core.errors import MismatchError, NumericsError
from fluoroscope.core.seeding import derive_seed, stream
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.models.generation import generate
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.requests import prompt_tokens
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.texts import Generation, Request
from fluoroscope.studies.policy.acting import Acting
from fluoroscope.studies.policy.bandit import Reward
from fluoroscope.studies.policy.candidates import Candidates
from fluoroscope.studies.policy.heads import PolicyHead
from fluoroscope.studies.policy.objectives import KLEstimate, kl_per_token

_MAX_LOGITS = 2**26
"""Logits that are held at once: a quarter of a gibibyte in float32."""

Ask = Callable[[Sample, int], Request]
"""A sample and a seed -> the request for a reply to it."""


@dataclass(frozen=True, eq=False)
class Rollouts:
    """What happened in the texts of one iteration."""

    observations: Float[Tensor, "steps d_model"]
    allowed: Bool[Tensor, "steps actions"]
    actions: Int[Tensor, " steps"]
    log_probs: Float[Tensor, " steps"]
    """Of the actions, under the policy that drew them."""

    text: Int[Tensor, " steps"]
    place: Int[Tensor, " steps"]
    kl: Float[Tensor, " steps"]
    """To the unsteered model, at each token."""

    outcomes: Float[Tensor, " texts"]
    """The reward of each text, before what acting costs."""

    group: Int[Tensor, " texts"]
    """Which texts have one prompt."""

    @property
    def n_texts(self) -> int:
        return len(self.outcomes)


class RolloutSource(Protocol):
    """Where texts come from: a language model, or a toy world."""

    def roll(self, head: PolicyHead, iteration: int) -> Rollouts:
        """The texts of one iteration; the same for the same head and number."""
        ...


class TextSource:
    """Replies of a language model to samples, several to each, with the policy acting."""

    def __init__(
        self,
        model: LanguageModel,
        candidates: Candidates,
        samples: Sequence[Sample],
        reward: Reward,
        ask: Ask,
        *,
        n_prompts: int,
        group_size: int,
        seed: int = 0,
        sampling: Sampling | None = None,
        is_masked: bool = False,
        kl: KLEstimate | None = None,
        max_rows: int = 256,
    ) -> None:
        """`kl` is how the KL to the unsteered model is estimated, which takes a pass over every
        text; without it, it is 0.
        """
        self._model, self._candidates, self._samples = model, candidates, list(samples)
        self._reward, self._ask, self._seed = reward, ask, seed
        self._n_prompts, self._group_size = min(n_prompts, len(self._samples)), group_size
        self._sampling, self._is_masked = sampling, is_masked
        self._kl: KLEstimate | None = kl
        self._max_rows = max_rows

    def states(self, n: int) -> Float[Tensor, "n d_model"]:
        """What the head reads at the end of up to `n` prompts, to calibrate it."""
        point = self._candidates.acting_point
        prompts = [self._ask(sample, 0).prompt for sample in self._samples[:n]]
        return last_activations(self._model, prompts, [point])[point].float()

    def roll(self, head: PolicyHead, iteration: int) -> Rollouts:
        random = stream(self._seed, "prompts", iteration)
        chosen = random.choice(len(self._samples), self._n_prompts, replace=False)
        samples = [self._samples[i] for i in chosen for _ in range(self._group_size)]
        requests = [
            self._ask(sample, derive_seed(self._seed, "text", iteration, number))
            for number, sample in enumerate(samples)
        ]
        acting = Acting(
            self._model,
            head,
            self._candidates,
            requests,
            is_masked=self._is_masked,
            keeps_observations=True,
        )
        with self._model.intervened(acting):
            generations = generate(
                self._model,
                requests,
                sampling=self._sampling,
                max_rows=self._max_rows,
                logprobs=self._kl is not None,
            )
        log = acting.log()
        assert log.observations is not None
        return Rollouts(
            log.observations,
            log.allowed,
            log.actions,
            log.log_probs,
            log.requests,
            log.places,
            self._divergence(requests, generations),
            torch.tensor(rewarded(self._reward, generations, samples), dtype=torch.float64),
            torch.arange(self._n_prompts).repeat_interleave(self._group_size),
        )

    def _divergence(
        self, requests: Sequence[Request], generations: Sequence[Generation]
    ) -> Float[Tensor, " steps"]:
        if self._kl is None:
            return torch.zeros(sum(len(one.tokens) for one in generations), dtype=torch.float64)
        steered = [score for one in generations for score in one.logprobs or ()]
        unsteered = unsteered_log_probs(self._model, requests, generations)
        return kl_per_token(
            torch.tensor(steered, dtype=torch.float64), torch.cat(unsteered), self._kl
        )


def rewarded(
    reward: Reward, generations: Sequence[Generation], samples: Sequence[Sample]
) -> list[float]:
    """The reward of each text, checked."""
    found = reward(list(generations), list(samples))
    if len(found) != len(generations):
        raise MismatchError(f"{len(generations)} texts were given {len(found)} rewards; one each.")
    for number, value in enumerate(found):
        if value != value:
            raise NumericsError(
                f"The reward of text {number} ({generations[number].text!r}) is NaN."
            )
    return [float(value) for value in found]


@torch.no_grad()
def unsteered_log_probs(
    model: LanguageModel, requests: Sequence[Request], generations: Sequence[Generation]
) -> list[Float[Tensor, " _"]]:
    """Log-probability of each token of each text under the model without edits, in float64."""
    texts = [
        (*prompt_tokens(model, request.prompt), *one.tokens)
        for request, one in zip(requests, generations, strict=True)
    ]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found: list[Tensor] = [torch.empty(0, dtype=torch.float64)] * len(texts)
    while order:
        width = len(texts[order[-1]])
        n_rows = max(1, _MAX_LOGITS // (width * model.vocab_size))
        rows, order = order[-n_rows:], order[:-n_rows]
        tokens = torch.zeros(len(rows), width, dtype=torch.int64)
        mask = torch.zeros_like(tokens)
        for place, row in enumerate(rows):
            tokens[place, : len(texts[row])] = torch.tensor(texts[row])
            mask[place, : len(texts[row])] = 1
        scores = model.token_scores(tokens, mask).double().cpu()
        for place, row in enumerate(rows):
            found[row] = scores[place, generations[row].n_prompt - 1 : len(texts[row]) - 1]
    return found
