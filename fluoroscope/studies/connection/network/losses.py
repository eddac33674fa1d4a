"""What reasoners are trained by: pure functions of tensors.

    answers        cross-entropy with label smoothing, of the last states or of those on the way
    cost of steps  the plan's, which has no gradient, and two that have: the expected number of
                   steps, and PonderNet's divergence from a geometric law (Banino et al. 2021,
                   arXiv:2107.05407)
    halting        is the answer right by now? (the halting head of TRM, arXiv:2510.04871)
    slots          how far from evenly they are used

A halting head gives the logit of stopping after each step, given that it has not stopped before:
`p_t = h_t (1 - h_1) ... (1 - h_(t-1))`, h = sigmoid(logit). The last step takes what is left.
Axes as in `reasoner`.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.connection.network.reasoner import Reasoner, Thought

IGNORED = -100
"""The target of a place that is not trained, such as padding."""

TARGET_STEPS = 4
STEP_COST_WEIGHT = 0.001
"""As in the plan [reasoning_cost_weight]."""

Logits = Float[Tensor, "b t v"]
Targets = Int[Tensor, "b t"]


def answer_loss(
    logits: Logits,
    targets: Targets,
    smoothing: float = 0.1,
    n_targets: int | Int[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats over the targets that are not `IGNORED`; 0 where all are.

    `n_targets` is what the sum is divided by: of a batch that is done in parts that of the whole,
    so that the losses of the parts add up to that of the batch. None counts those given.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    total = functional.cross_entropy(
        logits.flatten(0, 1).to(wide),
        targets.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=smoothing,
    )
    if n_targets is None:
        n_targets = (targets != IGNORED).sum().clamp(min=1)
    return total / n_targets


def deep_supervision(
    reasoner: Reasoner,
    thought: Thought,
    target_in: Int[Tensor, "b t"],
    targets: Targets,
    after: Sequence[int],
    smoothing: float = 0.1,
    n_targets: int | Int[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Weighted mean of `answer_loss` after each of the steps `after`, the i-th with weight i.

    Later steps count more, as they are what is asked for in the end. Costs an output a step.
    """
    if not after or list(after) != sorted(set(after)):
        raise ConfigError(f"Steps to supervise must be given, each once and rising, got {after}.")
    weights = [weight / sum(range(len(after) + 1)) for weight in range(1, len(after) + 1)]
    losses = [
        answer_loss(reasoner.logits(thought, target_in, step), targets, smoothing, n_targets)
        for step in after
    ]
    return (torch.stack(losses) * losses[0].new_tensor(weights)).sum()


def step_cost(
    n_steps: Int[Tensor, " b"], target: int = TARGET_STEPS, weight: float = STEP_COST_WEIGHT
) -> Float[Tensor, ""]:
    """The plan's `weight * (steps - target)^2`, mean over texts.

    A count has no gradient: it moves the loss that is reported and trains nothing. What trains is
    `expected_steps` or `ponder_divergence`.
    """
    return weight * (n_steps - target).square().to(torch.get_default_dtype()).mean()


def halting_probabilities(halt_logits: Float[Tensor, "steps b"]) -> Float[Tensor, "steps b"]:
    """Of having stopped after exactly so many steps; sums to 1 over steps."""
    return _log_halting(halt_logits).exp()


def expected_steps(halt_logits: Float[Tensor, "steps b"]) -> Float[Tensor, " b"]:
    """Steps until a text stops, where it stops by chance: `sum of t p_t`, with gradients."""
    # The sum over t of the probability that more than t steps are done.
    return 1 + _log_left(halt_logits).exp()[1:].sum(dim=0)


def ponder_divergence(halt_logits: Float[Tensor, "steps b"], rate: float) -> Float[Tensor, ""]:
    """`KL(p || geometric)`, mean over texts, in nats; PonderNet's price of thinking.

    `rate` is the chance to stop after each step that is asked for: the law's mean is `1 / rate`
    steps but for its tail, which the last step takes, as it does in `p`.
    """
    if not 0 < rate < 1:
        raise ConfigError(f"The rate of a geometric law is between 0 and 1, got {rate}.")
    wanted = torch.full_like(halt_logits[:, :1], rate).logit()
    log_p, log_wanted = _log_halting(halt_logits), _log_halting(wanted)
    return (log_p.exp() * (log_p - log_wanted)).sum(dim=0).mean()


def is_right(logits: Logits, targets: Targets) -> Bool[Tensor, " b"]:
    """Whether every target of a text is its likeliest token; True where there is none."""
    return ((logits.argmax(dim=-1) == targets) | (targets == IGNORED)).all(dim=1)


def halting_loss(
    halt_logits: Float[Tensor, "steps b"], right: Bool[Tensor, "steps b"]
) -> Float[Tensor, ""]:
    """Binary cross-entropy of stopping with "the answer is right after this step", mean of all.

    The head of TRM: it then stops where it holds its answer for right. `right` is `is_right` of
    the logits after each step.
    """
    return functional.binary_cross_entropy_with_logits(halt_logits, right.to(halt_logits.dtype))


def unevenness(routing: Float[Tensor, "b s m"]) -> Float[Tensor, ""]:
    """`1 - H(use) / log m` of the batch's mean use of slots: 0 where all slots get as much, 1 where
    one gets everything. To be added where slots are left unused.
    """
    n_slots = routing.shape[-1]
    if n_slots == 1:
        return routing.new_zeros(())
    shares = routing.sum(dim=1)
    # Of each text alike, however long.
    use = (shares / shares.sum(dim=-1, keepdim=True)).mean(dim=0)
    # A use that underflowed to 0 has no gradient, where that of its logarithm is infinite.
    logs = use.clamp(min=torch.finfo(use.dtype).tiny).log()
    return 1 + (use * logs).sum() / math.log(n_slots)


def _log_left(halt_logits: Float[Tensor, "steps b"]) -> Float[Tensor, "steps b"]:
    """Logarithm of the chance not to have stopped before each step; 0 before the first."""
    # Products of (1 - h) underflow where a head is sure; their logarithms do not.
    left = functional.logsigmoid(-halt_logits).cumsum(dim=0)
    return torch.cat([torch.zeros_like(left[:1]), left[:-1]])


def _log_halting(halt_logits: Float[Tensor, "steps b"]) -> Float[Tensor, "steps b"]:
    stops = functional.logsigmoid(halt_logits)
    # The last step takes what is left.
    stops = torch.cat([stops[:-1], torch.zeros_like(stops[-1:])])
    return _log_left(halt_logits) + stops
