"""What replies under steering are worth: the score that is sought, and whether they are language.

Axes: n samples.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fluoroscope.core.errors import ConfigError
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.interventions.positions import ALL
from fluoroscope.interventions.replies.answering import Asking, Reply
from fluoroscope.interventions.replies.drift import Drift, drift
from fluoroscope.interventions.replies.option_passes import read_options
from fluoroscope.interventions.replies.option_texts import OptionTexts
from fluoroscope.interventions.replies.quality import norm_share, repetition
from fluoroscope.interventions.replies.strengths import Judged
from fluoroscope.interventions.row_edits import EditSet
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.steps.task_parts import part_of
from fluoroscope.studies.steering.plans import Plan

_AT_ONCE = 64
"""Texts that are scored again in one pass."""


def goal(
    samples: Sequence[Sample],
    replies: Sequence[Reply],
    towards: float | None,
    within: str | None,
) -> float:
    """The mean score; or, where a score is aimed at, 1 less the mean distance from it of the means
    of the parts, so that one part cannot make up for another.
    """
    return goal_of(samples, [reply.score.value for reply in replies], towards, within)


def goal_of(
    samples: Sequence[Sample], values: Sequence[float], towards: float | None, within: str | None
) -> float:
    """`goal` of the scores alone."""
    if towards is None:
        return float(np.mean(values))
    parts: dict[str, list[float]] = {}
    for sample, value in zip(samples, values, strict=True):
        parts.setdefault(part_of(sample, within), []).append(value)
    return 1 - float(np.mean([abs(np.mean(part) - towards) for part in parts.values()]))


def watched_texts(path: str | None, samples: Sequence[Sample], n: int) -> list[str]:
    """Texts on which perplexity is watched: paragraphs of a file, or the samples' own."""
    if path is None:
        found = [one.prompt if one.prompt.strip() else one.options[0] for one in samples]
    else:
        file = Path(path).expanduser()
        if not file.is_file():
            raise ConfigError(f"strength.texts={path} is no file; give a text file.")
        found = [part for part in file.read_text(encoding="utf-8").split("\n\n") if part.strip()]
    return list(dict.fromkeys(found))[:n]


def text_perplexity(
    model: LanguageModel, samples: Sequence[Sample], replies: Sequence[Reply], asking: Asking
) -> float:
    """Of generated replies under the model as it is now; NaN where none has a token."""
    said = [
        OptionTexts.of(model, asking.prompt(sample), (reply.text,))
        for sample, reply in zip(samples, replies, strict=True)
        if reply.text.strip()
    ]
    total, n_tokens = 0.0, 0
    for start in range(0, len(said), _AT_ONCE):
        for one in read_options(model, said[start : start + _AT_ONCE], {}, {}):
            total, n_tokens = total - one.sums[0], n_tokens + one.n_tokens[0]
    return math.exp(total / n_tokens) if n_tokens else math.nan


def judged(
    plan: Plan,
    strength: float,
    score: float,
    replies: Sequence[Reply],
    drifted: Drift | None,
    norms: dict[HookPoint, float],
    text_ratio: float | None,
) -> Judged:
    """What a search looks at. The perplexity ratio is the larger of two: of given texts, edited as
    if the model wrote them, and of generated replies under the unsteered model.
    """
    is_added = plan.recipe.action == "add" and bool(plan.parts)
    added = {point: strength * vector for point, vector in plan.added().items()} if is_added else {}
    ratios = [drifted.perplexity_ratio.value] if drifted else []
    ratios += [text_ratio] if text_ratio is not None else []
    is_text = text_ratio is not None
    return Judged(
        score,
        max(ratios, default=None),
        norm_share(added, norms) if added else None,
        float(np.mean([repetition(reply.text) for reply in replies])) if is_text else None,
    )


def drifted(model: LanguageModel, texts: Sequence[str], edits: EditSet) -> Drift | None:
    """None where nothing is edited."""
    return drift(model, texts, edits, ALL) if edits else None
