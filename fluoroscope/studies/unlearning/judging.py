"""What was forgotten and what was kept: accuracy beside chance, and one treatment beside another.

A person is one group: their questions are alike, and intervals are over people. Fewer than ten
people give no interval, and then nothing is said of chance or of a difference.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Bool

from fluoroscope.core.errors import ConfigError
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.interventions.replies.answering import Asking, Reply, reply_all
from fluoroscope.interventions.replies.comparing import (
    Comparison,
    compare,
    group_numbers,
    mean_over_groups,
)
from fluoroscope.interventions.row_edits import EditSet
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.studies.unlearning.clamping import UNTREATED, Treatment
from fluoroscope.studies.unlearning.sets import Side, chance

EVERY_CATEGORY = "all"
Verdict = Literal["at chance", "above chance", "below chance", "cannot be told"]


def ask(
    model: LanguageModel,
    samples: Sequence[Sample],
    asking: Asking,
    treatment: Treatment = UNTREATED,
) -> list[Reply]:
    """A reply to each sample, treated as its prompt asks for."""
    flags = treatment.flags(model, [asking.prompt(one) for one in samples])
    return ask_flagged(model, samples, asking, treatment.edits, flags)


def ask_flagged(
    model: LanguageModel,
    samples: Sequence[Sample],
    asking: Asking,
    edits: EditSet,
    flags: Bool[np.ndarray, " samples"],
) -> list[Reply]:
    """A reply to each sample, with the edits where it is flagged."""
    found: dict[int, Reply] = {}
    for is_flagged in (False, True):
        places = [place for place, flag in enumerate(flags) if bool(flag) is is_flagged]
        own = edits if is_flagged else {}
        replies = reply_all(model, [samples[place] for place in places], asking, own)
        found |= dict(zip(places, replies, strict=True))
    return [found[place] for place in range(len(samples))]


def accuracy_table(side: Side, samples: Sequence[Sample], replies: Sequence[Reply]) -> pl.DataFrame:
    """A row for all samples and one for each category: accuracy with its interval over groups,
    beside that of chance. `verdict` says where the interval lies.
    """
    if len(samples) != len(replies) or not samples:
        raise ConfigError(
            f"There are {len(samples)} samples and {len(replies)} replies; give one for each, and "
            "at least one."
        )
    categories = [one.category for one in samples]
    rows = [_accuracy(side, EVERY_CATEGORY, samples, replies)]
    for name in sorted(set(categories) - {""}):
        mine = [place for place, one in enumerate(categories) if one == name]
        some = [samples[place] for place in mine], [replies[place] for place in mine]
        rows.append(_accuracy(side, name, *some))
    return pl.DataFrame(rows)


def side_effects(
    samples: Sequence[Sample], untreated: Sequence[Reply], treated: Mapping[str, Sequence[Reply]]
) -> pl.DataFrame:
    """A row for each treatment: what it changed of the replies, paired by sample."""
    groups = [one.group_id for one in samples]
    rows = [
        {"treatment": name, **compare(untreated, replies, groups).row()}
        for name, replies in treated.items()
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def conditional_against_static(
    samples: Sequence[Sample], static: Sequence[Reply], conditional: Sequence[Reply]
) -> Comparison:
    """Conditional minus static, on the samples to keep, paired by sample."""
    return compare(static, conditional, [one.group_id for one in samples])


def conditional_statement(found: Comparison) -> str:
    """Whether clamping where it is called for keeps more than clamping everywhere, in a
    sentence.
    """
    value, low, high = found.difference
    if math.isnan(low):
        return (
            "Whether conditional clamping keeps more than static clamping cannot be told: "
            f"{found.n_groups} groups are too few for an interval ({100 * value:+.1f} points)."
        )
    numbers = (
        f"{100 * value:+.1f} points of accuracy on what is to be kept, 95 % interval "
        f"{100 * low:+.1f} to {100 * high:+.1f}, {found.n} samples in {found.n_groups} groups"
    )
    if low > 0:
        return f"Conditional clamping keeps more than static clamping: {numbers}."
    if high < 0:
        return f"Conditional clamping is not better: it keeps less than static clamping, {numbers}."
    return f"Conditional clamping is not shown to be better than static clamping: {numbers}."


def shortfall(forget: float, retain: float, by_chance: float, retain_before: float) -> float:
    """How far accuracies are from forgotten and kept: what is above chance of the one, and what is
    lost of the other. What settings and weights are chosen by.
    """
    return max(0.0, forget - by_chance) + max(0.0, retain_before - retain)


def _accuracy(
    side: Side, category: str, samples: Sequence[Sample], replies: Sequence[Reply]
) -> dict[str, str | int | float | None]:
    values = np.array([one.score.value for one in replies], dtype=float)
    groups = group_numbers([one.group_id for one in samples])
    accuracy, low, high = mean_over_groups(values, groups)
    by_chance = chance(samples)
    return {
        "side": side,
        "category": category,
        "n": len(samples),
        "n_groups": len(np.unique(groups)),
        "accuracy": accuracy,
        "accuracy_low": None if math.isnan(low) else low,
        "accuracy_high": None if math.isnan(high) else high,
        "chance": by_chance,
        "verdict": _verdict(low, high, by_chance),
        "unreadable": float(np.mean([not one.score.is_readable for one in replies])),
    }


def _verdict(low: float, high: float, by_chance: float) -> Verdict:
    if math.isnan(low):
        return "cannot be told"
    if low > by_chance:
        return "above chance"
    return "below chance" if high < by_chance else "at chance"
