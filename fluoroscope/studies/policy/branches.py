"""Branch points: where an action first changes a text, and whether that decided the outcome.

The branch of a text is its first token that would have been another if the policy had done
nothing at that position, on the same luck, with all earlier actions as they were. From there the
text is written anew twice, with no-op and with the runner-up at the branch and the policy free
behind it, on the same luck throughout: what differs is due to that one action. As a control the
action itself is forced in the same way, which must give the text that it gave.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch

from fluoroscope.data.tasks.samples import Sample
from fluoroscope.models.generation import generate
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.requests import prompt_tokens
from fluoroscope.models.sampling import Sampling, row_luck
from fluoroscope.models.texts import Generation, Request
from fluoroscope.studies.policy.acting import Acting
from fluoroscope.studies.policy.action_log import ActionLog, Place, runner_up
from fluoroscope.studies.policy.bandit import Reward
from fluoroscope.studies.policy.candidates import NO_OP
from fluoroscope.studies.policy.forced import Reading, next_logits
from fluoroscope.studies.policy.heads import PolicyHead
from fluoroscope.studies.policy.rollouts import rewarded


class BranchPoint(NamedTuple):
    """Where a text would have gone on differently."""

    request: int
    t: int
    action: int
    token: int
    unsteered_token: int
    """What no-op at this position would have drawn."""

    runner_up: int | None
    """The likeliest other action; None where none was allowed."""


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A branch point, and the outcome of each way on."""

    point: BranchPoint
    outcome: float
    without: float
    """With no-op at the branch."""

    with_runner_up: float | None
    is_same_again: bool
    """Whether forcing the action itself gave the same text, as it must but for rounding."""

    @property
    def is_decisive(self) -> bool:
        """Whether doing nothing there would have changed the outcome."""
        return self.outcome != self.without

    def row(self) -> dict[str, int | float | bool | None]:
        """For tables."""
        values = {name: value for name, value in asdict(self).items() if name != "point"}
        return {**self.point._asdict(), **values, "is_decisive": self.is_decisive}


def branch_points(
    model: LanguageModel,
    log: ActionLog,
    requests: Sequence[Request],
    generations: Sequence[Generation],
    sampling: Sampling | None = None,
) -> list[BranchPoint]:
    """The branch of each text that has one, in their order; `sampling` as it was generated."""
    places = [
        (request, t)
        for request, t, action in zip(
            log.requests.tolist(), log.places.tolist(), log.actions.tolist(), strict=True
        )
        if action != NO_OP
    ]
    unsteered = _idle_tokens(model, log, requests, generations, places, sampling or Sampling())
    step_of = {
        (request, t): step
        for step, (request, t) in enumerate(
            zip(log.requests.tolist(), log.places.tolist(), strict=True)
        )
    }
    found: dict[int, BranchPoint] = {}
    for place, other in zip(places, unsteered, strict=True):
        request, t = place
        token, step = generations[request].tokens[t], step_of[place]
        if token != other and request not in found:
            action = int(log.actions[step])
            second = runner_up(log.all_log_probs[step], action)
            found[request] = BranchPoint(request, t, action, token, other, second)
    return list(found.values())


def judge_branches(
    model: LanguageModel,
    head: PolicyHead,
    log: ActionLog,
    requests: Sequence[Request],
    samples: Sequence[Sample],
    generations: Sequence[Generation],
    reward: Reward,
    *,
    sampling: Sampling | None = None,
    is_masked: bool = False,
) -> list[Branch]:
    """What would have come of each text with another action at its branch."""
    points = branch_points(model, log, requests, generations, sampling)
    scripts = log.scripts(len(requests))
    ways: list[tuple[int, list[int]]] = []
    for number, point in enumerate(points):
        others = [point.action, NO_OP, point.runner_up]
        past = scripts[point.request][: point.t]
        ways += [(number, [*past, action]) for action in others if action is not None]
    if not ways:
        return []
    asked = [requests[points[number].request] for number, _ in ways]
    acting = Acting(
        model, head, log.candidates, asked, is_masked=is_masked, forced=[way for _, way in ways]
    )
    with model.intervened(acting):
        texts = generate(model, asked, sampling=sampling)
    worth = rewarded(reward, texts, [samples[points[number].request] for number, _ in ways])
    found = []
    for number, point in enumerate(points):
        mine = [i for i, (of, _) in enumerate(ways) if of == number]
        same, without, *rest = mine
        found.append(
            Branch(
                point=point,
                outcome=worth[same],
                without=worth[without],
                with_runner_up=worth[rest[0]] if rest else None,
                is_same_again=texts[same].tokens == generations[point.request].tokens,
            )
        )
    return found


def _idle_tokens(
    model: LanguageModel,
    log: ActionLog,
    requests: Sequence[Request],
    generations: Sequence[Generation],
    places: Sequence[Place],
    sampling: Sampling,
) -> list[int]:
    """The token that each place would have had with no-op there."""
    scripts = log.scripts(len(requests))
    prompts = {r: prompt_tokens(model, requests[r].prompt) for r, _ in places}
    lucks = {r: row_luck(requests[r].seed, requests[r].max_tokens) for r, _ in places}
    readings = [
        Reading(prompts[r], generations[r].tokens[:t], (*scripts[r][:t], NO_OP)) for r, t in places
    ]
    found = [0] * len(places)
    for numbers, logits in next_logits(model, log.candidates, readings):
        luck = torch.tensor([lucks[places[i][0]][places[i][1]] for i in numbers])
        tokens = sampling.choose(logits, luck.to(logits.device)).tolist()
        for number, token in zip(numbers, tokens, strict=True):
            found[number] = token
    return found
