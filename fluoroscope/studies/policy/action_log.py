"""What a policy did: one step for each token that was drawn, in tables and for replay.

Axes: steps, sorted by request and then by t, the number of the token in its text; actions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluoroscope.core.errors import InterventionError
from fluoroscope.models.texts import Generation
from fluoroscope.studies.policy.candidates import NO_OP, Candidates
from fluoroscope.studies.policy.heads import entropy

LogRow = dict[str, int | float | str | None]
"""One line of the log: request, t, token, action, hook_point, latent, coefficient, probability
(of the action), no_op_probability, entropy (nats), n_allowed, logit_before and logit_after (of
the token, where they were asked for)."""

Place = tuple[int, int]
"""A request and a t."""


@dataclass(frozen=True, eq=False)
class ActionLog:
    """Choices as they were made, and the logits that they were drawn from."""

    candidates: Candidates
    requests: Int[Tensor, " steps"]
    places: Int[Tensor, " steps"]
    """t: token t of the request's text was drawn after this step."""

    actions: Int[Tensor, " steps"]
    logits: Float[Tensor, "steps actions"]
    """-inf where an action was not allowed."""

    observations: Float[Tensor, "steps d_model"] | None = None
    """What the head read, where it was kept."""

    def __post_init__(self) -> None:
        pairs = torch.stack([self.requests, self.places], dim=1)
        if len(pairs) != len(torch.unique(pairs, dim=0)):
            raise InterventionError(
                "A token was decided twice: one log is of one `generate`. Make an intervention "
                "of its own for each."
            )

    def __len__(self) -> int:
        return len(self.actions)

    @cached_property
    def all_log_probs(self) -> Float[Tensor, "steps actions"]:
        """Of every action, in float64, by the distribution that was drawn from."""
        return self.logits.double().log_softmax(dim=-1)

    @property
    def log_probs(self) -> Float[Tensor, " steps"]:
        """Of the actions that were taken."""
        return self.all_log_probs.gather(1, self.actions[:, None])[:, 0]

    @property
    def allowed(self) -> Bool[Tensor, "steps actions"]:
        return self.logits > -torch.inf

    @property
    def entropies(self) -> Float[Tensor, " steps"]:
        return entropy(self.all_log_probs)

    def scripts(self, n_requests: int) -> list[list[int]]:
        """The actions of each request, for `Replay`."""
        found: list[list[int]] = [[] for _ in range(n_requests)]
        for request, action in zip(self.requests.tolist(), self.actions.tolist(), strict=True):
            found[request].append(action)
        return found

    def rows(
        self,
        generations: Sequence[Generation],
        token_logits: Mapping[Place, tuple[float, float]] | None = None,
    ) -> list[LogRow]:
        """For parquet and JSON lines; `generations` are those of the same requests, and
        `token_logits` what `forced.token_logits` gives.
        """
        self._check(generations)
        places = zip(self.requests.tolist(), self.places.tolist(), strict=True)
        chosen = self.log_probs.exp().tolist()
        idle = self.all_log_probs[:, NO_OP].exp().tolist()
        entropies, n_allowed = self.entropies.tolist(), self.allowed.sum(dim=1).tolist()
        found: list[LogRow] = []
        for step, (request, t) in enumerate(places):
            action = int(self.actions[step])
            name = self.candidates.name(action)
            before, after = (token_logits or {}).get((request, t), (None, None))
            found.append(
                {
                    "request": request,
                    "t": t,
                    "token": generations[request].tokens[t],
                    "action": action,
                    "hook_point": None if name.point is None else str(name.point),
                    "latent": name.latent,
                    "coefficient": name.coefficient,
                    "probability": chosen[step],
                    "no_op_probability": idle[step],
                    "entropy": entropies[step],
                    "n_allowed": n_allowed[step],
                    "logit_before": before,
                    "logit_after": after,
                }
            )
        return found

    def _check(self, generations: Sequence[Generation]) -> None:
        n_tokens = sum(len(one.tokens) for one in generations)
        if n_tokens != len(self):
            raise InterventionError(
                f"The log has {len(self)} steps, and the texts have {n_tokens} tokens: they are "
                "not of the same `generate`. Give the texts that it was made with, all of them."
            )


def scripts_of_rows(rows: Sequence[LogRow], n_requests: int) -> list[list[int]]:
    """The actions of each request from the rows of a log that was written."""
    found: list[dict[int, int]] = [{} for _ in range(n_requests)]
    for row in rows:
        request, t, action = row["request"], row["t"], row["action"]
        assert isinstance(request, int)
        assert isinstance(t, int)
        assert isinstance(action, int)
        found[request][t] = action
    for request, script in enumerate(found):
        if sorted(script) != list(range(len(script))):
            raise InterventionError(
                f"The log of request {request} has {len(script)} steps, which are not those of "
                "tokens 0, 1, 2...: rows are missing."
            )
    return [[script[t] for t in range(len(script))] for script in found]


def runner_up(log_probs: Float[Tensor, " actions"], action: int) -> int | None:
    """The likeliest action besides the one that was taken; None where no other was allowed."""
    others = log_probs.clone()
    others[action] = -torch.inf
    best = int(others.argmax())
    return None if math.isinf(float(others[best])) else best
