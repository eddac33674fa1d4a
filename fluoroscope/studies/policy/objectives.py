"""What a policy is improved by: pure functions of tensors.

    REINFORCE   advantage x log-probability, advantage = return less the mean of the others in
                its group (leave-one-out; Kool et al. 2019), which is unbiased
    GRPO        advantage = (return - mean) / standard deviation in its group, clipped ratio, mean
                over the tokens of a text (Shao et al. 2024, arXiv:2402.03300, eq. 3 and 4.1.2)
    PPO         clipped ratio (Schulman et al. 2017, arXiv:1707.06347, eq. 7) and generalised
                advantages of a value head (Schulman et al. 2016, arXiv:1506.02438, eq. 16)

A group is the texts of one prompt. An episode ends with its text, and nothing is discounted
unless asked for. The price for acting and the KL to the unsteered model are subtracted from the
reward of the token where they arise.

Axes: steps (one for each token that was drawn, texts one behind the other), texts, actions.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

KLEstimate = Literal["k1", "k3"]


def group_baseline(
    returns: Float[Tensor, " texts"], group: Int[Tensor, " texts"]
) -> Float[Tensor, " texts"]:
    """Return less the mean of the others of its group; 0 for a text that is alone."""
    mean, n = _group_means(returns, group)
    return (returns.double() - mean) * n / (n - 1).clamp(min=1)


def group_normalised(
    returns: Float[Tensor, " texts"], group: Int[Tensor, " texts"]
) -> Float[Tensor, " texts"]:
    """(return - mean) / standard deviation of its group; 0 where a group is all alike."""
    mean, n = _group_means(returns, group)
    centred = returns.double() - mean
    variance = _group_sums(centred.square(), group) / n
    # Rounding leaves equal returns a spread beside 0, which must not be divided by.
    is_alike = variance.sqrt() <= 1e-9 * (1 + mean.abs())
    return torch.where(is_alike, 0.0, centred / variance.sqrt().clamp(min=1e-300))


def priced_normalised(
    returns: Float[Tensor, " texts"],
    outcomes: Float[Tensor, " texts"],
    group: Int[Tensor, " texts"],
) -> Float[Tensor, " texts"]:
    """GRPO's advantage where a return is an outcome less costs: in units of the spread of the
    group's outcomes, or, where these are all alike, of the other groups' on average.

    By the spread of returns, a group of equal outcomes would have its costs, however small, blown
    up to the size of an outcome, and nothing would pay but to do nothing. Without costs it is
    `group_normalised`.
    """
    mean, _ = _group_means(returns, group)
    plain, n = _group_means(outcomes, group)
    spread = (_group_sums((outcomes.double() - plain).square(), group) / n).sqrt()
    is_alike = spread <= 1e-9 * (1 + plain.abs())
    # Where no group says what an outcome's spread is, costs are taken as they are.
    usual = spread[~is_alike].mean() if bool((~is_alike).any()) else torch.ones(())
    centred = returns.double() - mean
    centred = torch.where(centred.abs() <= 1e-9 * (1 + mean.abs()), 0.0, centred)
    return centred / torch.where(is_alike, usual.double(), spread)


def clipped_surrogate(
    log_probs: Float[Tensor, " steps"],
    old_log_probs: Float[Tensor, " steps"],
    advantages: Float[Tensor, " steps"],
    clip: float,
) -> Float[Tensor, " steps"]:
    """min(ratio A, clip(ratio, 1 - clip, 1 + clip) A) of every step, to be maximised."""
    ratio = (log_probs - old_log_probs).exp()
    bounded = ratio.clamp(1 - clip, 1 + clip)
    return torch.minimum(ratio * advantages, bounded * advantages)


def clipped_share(
    log_probs: Float[Tensor, " steps"], old_log_probs: Float[Tensor, " steps"], clip: float
) -> float:
    """How many steps have moved beyond the clip."""
    ratio = (log_probs - old_log_probs).double().exp()
    return float(((ratio - 1).abs() > clip).double().mean())


def mean_over_texts(
    values: Float[Tensor, " steps"], text: Int[Tensor, " steps"], n_texts: int
) -> Float[Tensor, ""]:
    """The mean over texts of the mean over their tokens, as GRPO has it; summed in float64."""
    sums, counts = _text_sums(values, text, n_texts)
    return (sums / counts.clamp(min=1)).mean()


def sum_over_texts(
    values: Float[Tensor, " steps"], text: Int[Tensor, " steps"], n_texts: int
) -> Float[Tensor, ""]:
    """The mean over texts of the sum over their tokens: the gradient of a text's log-probability,
    whatever its length.
    """
    return _text_sums(values, text, n_texts)[0].mean()


def kl_per_token(
    steered: Float[Tensor, " steps"], unsteered: Float[Tensor, " steps"], kind: KLEstimate = "k3"
) -> Float[Tensor, " steps"]:
    """KL(steered || unsteered) at each token, estimated from the log-probabilities of the token
    that the steered model drew (Schulman 2020; arXiv:2402.03300, eq. 4).

    `k1` is log p - log q; `k3` is q / p - log(q / p) - 1, which has the same mean, never falls
    below 0, and varies less. Both need tokens drawn at temperature 1.
    """
    gain = (unsteered - steered).double()
    return -gain if kind == "k1" else gain.exp() - gain - 1


def token_rewards(
    outcomes: Float[Tensor, " texts"],
    text: Int[Tensor, " steps"],
    is_last: Float[Tensor, " steps"],
    costs: Float[Tensor, " steps"],
) -> Float[Tensor, " steps"]:
    """The outcome at the last token of a text, less what each token costs."""
    return outcomes.double()[text] * is_last - costs.double()


def text_returns(
    rewards: Float[Tensor, " steps"], text: Int[Tensor, " steps"], n_texts: int
) -> Float[Tensor, " texts"]:
    return _text_sums(rewards, text, n_texts)[0]


def generalised_advantages(
    rewards: Float[Tensor, " steps"],
    values: Float[Tensor, " steps"],
    text: Int[Tensor, " steps"],
    place: Int[Tensor, " steps"],
    *,
    discount: float = 1.0,
    trace: float = 1.0,
) -> Float[Tensor, " steps"]:
    """A_t = sum_k (discount * trace)^k d_{t+k} with d_t = r_t + discount * V_{t+1} - V_t, where
    nothing is worth anything behind a text's end. `trace` (lambda) of 1 is return less value.
    """
    n_texts, longest = int(text.max()) + 1, int(place.max()) + 1
    grid = torch.zeros(n_texts, longest + 1, 2, dtype=torch.float64, device=rewards.device)
    grid[text, place] = torch.stack([rewards.double(), values.detach().double()], dim=-1)
    found = torch.zeros(n_texts, longest + 1, dtype=torch.float64, device=rewards.device)
    for t in range(longest - 1, -1, -1):
        surprise = grid[:, t, 0] + discount * grid[:, t + 1, 1] - grid[:, t, 1]
        found[:, t] = surprise + discount * trace * found[:, t + 1]
    return found[text, place]


def expected_reward(
    log_probs: Float[Tensor, "samples actions"], rewards: Float[Tensor, "samples actions"]
) -> Float[Tensor, ""]:
    """Mean over samples of sum_a pi(a | s) R(s, a), whose gradient is exact: no draw is in it."""
    return (log_probs.double().exp() * rewards.double()).sum(dim=-1).mean()


def falling(start: float, iteration: int, n_iterations: int) -> float:
    """A weight that falls linearly from `start` to 0 at the last iteration."""
    return start * (1 - iteration / max(1, n_iterations - 1))


def _group_means(
    returns: Float[Tensor, " texts"], group: Int[Tensor, " texts"]
) -> tuple[Float[Tensor, " texts"], Float[Tensor, " texts"]]:
    n = _group_sums(torch.ones_like(returns, dtype=torch.float64), group)
    return _group_sums(returns.double(), group) / n, n


def _group_sums(
    values: Float[Tensor, " texts"], group: Int[Tensor, " texts"]
) -> Float[Tensor, " texts"]:
    sums = values.new_zeros(int(group.max()) + 1)
    return sums.index_add(0, group, values)[group]


def _text_sums(
    values: Float[Tensor, " steps"], text: Int[Tensor, " steps"], n_texts: int
) -> tuple[Float[Tensor, " texts"], Float[Tensor, " texts"]]:
    zeros = torch.zeros(n_texts, dtype=torch.float64, device=values.device)
    ones = torch.ones_like(values, dtype=torch.float64)
    return zeros.index_add(0, text, values.double()), zeros.index_add(0, text, ones)
