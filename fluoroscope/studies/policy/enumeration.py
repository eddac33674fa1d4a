"""The score of every action for every sample, exact: nothing is drawn.

Where the probabilities of options, or of whole options, are scored, one decision at the prompt's
end makes the reply; the action is held while an option is read, as static steering holds its own.
A prompt is read once, and all actions go through as one batch (`Screen`). Where a reply is one
generated token, `bandit.enumerate_rewards` sums over all tokens that may come.

Axes: samples, actions, K candidates, d_model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.interventions.edits import AddDirection
from fluoroscope.interventions.positions import GENERATED, LAST
from fluoroscope.interventions.replies.answering import Asking, first_tokens
from fluoroscope.interventions.replies.option_texts import OptionTexts
from fluoroscope.interventions.row_edits import EditSet
from fluoroscope.interventions.screening import Screen
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.requests import prompt_tokens
from fluoroscope.models.texts import Generation, Request
from fluoroscope.studies.policy.bandit import RewardTable, enumerate_rewards, kl_to_first, states
from fluoroscope.studies.policy.candidates import Candidates
from fluoroscope.studies.policy.worth import worth

_FLOOR = 1e-5
"""Tokens that no action gives more are not scored; what they are together is in `missed`."""


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """What every action makes of every sample."""

    table: RewardTable
    """Its rewards are scores."""

    said: Int[Tensor, "samples actions"]
    """Which option wins; -1 where a token is generated."""

    activations: Float[Tensor, "samples K"]
    """Of the candidates at the prompt's end; NaN where they are behind the first hook point."""

    def __len__(self) -> int:
        return len(self.table)

    def worth(self, towards: float | None) -> RewardTable:
        """With what the scores are worth as rewards, before any cost."""
        return replace(self.table, rewards=worth(self.table.rewards, towards))


@torch.no_grad()
def enumerate_scores(
    model: LanguageModel,
    candidates: Candidates,
    samples: Sequence[Sample],
    asking: Asking,
    *,
    is_masked: bool = False,
    sink: Sink = SILENT,
) -> ScoreTable:
    """By the way of `asking`; of `texts` their one token."""
    candidates.check_fits(model)
    if asking.way == "texts":
        table = _of_tokens(model, candidates, samples, asking, is_masked, sink)
        said = torch.full_like(table.rewards, -1, dtype=torch.int64)
        return ScoreTable(table, said, _activations(candidates, table.observations))
    edits = _edits(candidates)
    read = _options if asking.way == "options" else _sums
    scores, said, kl, prompts = [], [], [], []
    for number, sample in enumerate(samples):
        prompt, own, options, moved = read(model, sample, asking, edits)
        scores.append(own)
        said.append(options)
        kl.append(moved)
        prompts.append(prompt)
        sink.progress(number + 1, len(samples), "samples")
    observations, allowed = states(model, candidates, prompts, is_masked)
    table = RewardTable(
        torch.stack(scores),
        observations,
        allowed,
        torch.stack(kl),
        torch.zeros(len(samples), dtype=torch.float64),
    )
    return ScoreTable(table, torch.stack(said), _activations(candidates, observations))


def _edits(candidates: Candidates) -> list[EditSet]:
    """Of each action. No-op adds nothing at the first hook point, so that it goes through in the
    pass of the others; a model without edits would be a pass of its own.
    """
    nothing: EditSet = {candidates.acting_point: AddDirection(candidates.directions[0], 0.0)}
    return [nothing, *(candidates.edit(action) for action in range(1, candidates.n_actions))]


_Read = tuple[tuple[int, ...], Tensor, Tensor, Tensor]
"""The prompt; of each action its score, the option that wins, and its KL."""


def _options(
    model: LanguageModel, sample: Sample, asking: Asking, edits: Sequence[EditSet]
) -> _Read:
    prompt = prompt_tokens(model, asking.prompt(sample))
    texts = OptionTexts.of(model, asking.prompt(sample), asking.scorer.replies(sample))
    shares = Screen(model, prompt).next_tokens(edits).cpu()
    found = shares[:, first_tokens(sample, texts)]
    scores = [asking.scorer.score_options(sample, row).value for row in found.tolist()]
    kl = kl_to_first(shares)
    return prompt, torch.tensor(scores, dtype=torch.float64), found.argmax(dim=1), kl


def _sums(model: LanguageModel, sample: Sample, asking: Asking, edits: Sequence[EditSet]) -> _Read:
    if not sample.prompt.strip():
        raise ConfigError(
            f"{sample.id!r} compares whole sentences: there is no prompt at whose end a policy "
            "could choose. Take a task with prompts."
        )
    texts = OptionTexts.of(model, asking.prompt(sample), sample.options)
    screen = Screen(model, texts.prompt, positions=LAST | GENERATED)
    kl = kl_to_first(screen.next_tokens(edits).cpu())
    # An option that another begins with is asked for alone: a tree takes it to end there.
    parts = [texts.options]
    if any(a != b and b[: len(a)] == a for a in texts.options for b in texts.options):
        parts = [(option,) for option in texts.options]
    shares = torch.cat([screen.answers(edits, part) for part in parts], dim=1).cpu()
    sums = shares.clamp(min=torch.finfo(torch.float64).tiny).log()
    lengths = [len(option) for option in texts.options]
    scores = [asking.scorer.score_sums(sample, row, lengths).value for row in sums.tolist()]
    return texts.prompt, torch.tensor(scores, dtype=torch.float64), sums.argmax(dim=1), kl


def _of_tokens(
    model: LanguageModel,
    candidates: Candidates,
    samples: Sequence[Sample],
    asking: Asking,
    is_masked: bool,
    sink: Sink,
) -> RewardTable:
    def scored(texts: list[Generation], asked: list[Sample]) -> list[float]:
        found = asking.scorer.score_texts(asked, [one.text for one in texts])
        return [score.value for score in found]

    requests = [
        Request(prompt=asking.prompt(one), max_tokens=1, stop=asking.stop) for one in samples
    ]
    return enumerate_rewards(
        model,
        candidates,
        samples,
        requests,
        scored,
        sampling=asking.sampling,
        floor=_FLOOR,
        is_masked=is_masked,
        sink=sink,
    )


def _activations(
    candidates: Candidates, observations: Float[Tensor, "samples d_model"]
) -> Float[Tensor, "samples K"]:
    point = candidates.acting_point
    found = torch.full((len(observations), candidates.n_candidates), torch.nan)
    if point in candidates.readers:
        read = candidates.readers[point](observations)
        found[:, candidates.members(point)] = read.cpu().float()
    return found
