"""What a score is worth to a policy, before what acting costs.

Where more is better, the score itself. Where a score t is aimed at,

    worth(s) = 1 - ((s - t) / d)^2,   d = max(t, 1 - t)

which is 1 at t and 0 at the far end. A reply that is drawn says less than a probability: its score
is 0 or 1, and its distance from 1/2 is always 1/2. But two replies i, j to one prompt, drawn apart,
have E[(s_i - t)(s_j - t)] = (E[s] - t)^2, so

    reward_i = 1 - (s_i - t) mean_{j != i}(s_j - t) / d^2

has the worth of the expected score as its mean (a U-statistic; Hoeffding 1948), and its policy
gradient points where that worth grows. A distance without the square has no such estimate.

Axes: samples, actions, texts.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import ConfigError
from fluoroscope.data.tasks.samples import Sample, Scorer
from fluoroscope.models.texts import Generation
from fluoroscope.studies.policy.bandit import Reward


def worth(
    scores: Float[Tensor, "samples actions"], towards: float | None
) -> Float[Tensor, "samples actions"]:
    if towards is None:
        return scores
    return 1 - ((scores - towards) / _reach(towards)) ** 2


def text_worth(
    scores: Float[np.ndarray, " texts"], prompts: Sequence[str], towards: float | None
) -> Float[np.ndarray, " texts"]:
    """Of replies to some prompts, several to each where a score is aimed at."""
    if towards is None:
        return scores
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        places[prompt].append(place)
    found = np.empty(len(scores))
    for prompt, mine in places.items():
        if len(mine) < 2:
            raise ConfigError(
                f"The prompt {prompt!r} has one reply; how far replies are from {towards:g} on "
                "average takes two at least."
            )
        away = (scores[mine] - towards) / _reach(towards)
        found[mine] = 1 - away * (away.sum() - away) / (len(mine) - 1)
    return found


def text_reward(scorer: Scorer, towards: float | None) -> Reward:
    """The reward of generated replies, for training."""

    def reward(texts: list[Generation], samples: list[Sample]) -> list[float]:
        scores = scorer.score_texts(samples, [one.text for one in texts])
        values = np.array([score.value for score in scores])
        return text_worth(values, [sample.id for sample in samples], towards).tolist()

    return reward


def _reach(towards: float) -> float:
    return max(towards, 1 - towards)
