"""How fast what was forgotten comes back, when a model is fine-tuned on a part of it again.

What is only hidden comes back after a few steps, and also of what was not trained on. People (or
documents) are split: the model is trained on some, and asked about those as well as about the
others. Clamping stays on while the model learns, so that it may learn around it; a detector reads
the model as it then is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.interventions.replies.answering import Asking
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.studies.unlearning.clamping import UNTREATED, Treatment
from fluoroscope.studies.unlearning.config import FineTuningConfig
from fluoroscope.studies.unlearning.finetuning import FineTuner
from fluoroscope.studies.unlearning.judging import accuracy_table, ask
from fluoroscope.studies.unlearning.sets import Passage

TAUGHT, NOT_TAUGHT = "taught again", "not taught again"


class Taught(NamedTuple):
    """A part of what was forgotten, and the samples about it and about the rest."""

    passages: tuple[Passage, ...]
    taught: tuple[Sample, ...]
    not_taught: tuple[Sample, ...]


def part_to_teach(
    passages: Sequence[Passage], samples: Sequence[Sample], share: float, seed: int
) -> Taught:
    """The passages of a share of all groups; samples belong to the group of their `group_id`."""
    if not 0 < share < 1:
        raise ConfigError(f"The share that is taught again is between 0 and 1, got {share}.")
    groups = sorted({one.group for one in passages})
    n = round(share * len(groups))
    if not 0 < n < len(groups):
        raise ConfigError(
            f"A share of {share:g} of {len(groups)} groups is {n} of them; some must be taught and "
            "some not. Give another share, or more to forget."
        )
    order = stream(seed, "relearning", "groups").permutation(len(groups))
    chosen = {groups[int(place)] for place in order[:n]}
    return Taught(
        tuple(one for one in passages if one.group in chosen),
        tuple(one for one in samples if one.group_id in chosen),
        tuple(one for one in samples if one.group_id not in chosen),
    )


def relearn(
    model: LanguageModel,
    part: Taught,
    asking: Asking,
    config: FineTuningConfig,
    treatment: Treatment = UNTREATED,
    sink: Sink = SILENT,
) -> pl.DataFrame:
    """Rows of `accuracy_table` after 0, `config.validate_every`, ... steps, with `iteration` and
    `of` (taught again or not).
    """
    if config.objective != "ordinary":
        raise ConfigError(
            f"What was forgotten is learnt again by objective=ordinary, got {config.objective!r}."
        )
    plain = config.model_copy(update={"retain_weight": 0.0})
    tuner = FineTuner(model, part.passages, (), plain, treatment=treatment)
    tables = [_asked(tuner.model, part, asking, treatment, 0)]
    for iteration in range(tuner.n_iterations):
        tuner.advance(iteration, sink)
        done = iteration + 1
        if done % config.validate_every == 0 or done == tuner.n_iterations:
            tables.append(_asked(tuner.model, part, asking, treatment, done))
        sink.progress(done, tuner.n_iterations, "steps")
    return pl.concat(tables, how="vertical_relaxed")


def _asked(
    model: LanguageModel, part: Taught, asking: Asking, treatment: Treatment, done: int
) -> pl.DataFrame:
    sides = {TAUGHT: part.taught, NOT_TAUGHT: part.not_taught}
    tables = [
        accuracy_table("forget", samples, ask(model, samples, asking, treatment)).select(
            pl.lit(done).alias("iteration"), pl.lit(name).alias("of"), pl.all()
        )
        for name, samples in sides.items()
        if samples
    ]
    return pl.concat(tables, how="vertical_relaxed")
