"""Prompts with lettered options, and the same with their options in another order."""

import string
from collections.abc import Sequence
from dataclasses import replace

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream
from fluoroscope.data.documents import text_id
from fluoroscope.data.rows import UnusableRowError
from fluoroscope.data.tasks.samples import Sample, equal_options

CHOICE_PROMPT = "{question}\n{options}\nChoose one of {letters} only.\nAnswer:"
LETTERS = string.ascii_uppercase


def lettered(options: Sequence[str]) -> str:
    """A line an option: `A. ...`."""
    return "\n".join(f"{LETTERS[i]}. {option}" for i, option in enumerate(options))


def choice_sample(
    dataset: str,
    group_id: str,
    question: str,
    options: Sequence[str],
    right: int,
    *,
    category: str = "",
    roles: tuple[str, ...] = (),
) -> Sample:
    """A question with its options in their own order; two that are the same make it unusable."""
    if not 2 <= len(options) <= len(LETTERS):
        raise UnusableRowError(f"it has {len(options)} options")
    if not all(option.strip() for option in options):
        raise UnusableRowError("an option is empty")
    if equal_options(options):
        raise UnusableRowError("two of its options are the same")
    if not 0 <= right < len(options):
        raise UnusableRowError("its answer key is none of its options")
    letters = ", ".join(LETTERS[: len(options)])
    prompt = CHOICE_PROMPT.format(question=question, options=lettered(options), letters=letters)
    return Sample(
        id=sample_id(dataset, prompt),
        group_id=group_id,
        prompt=prompt,
        options=tuple(options),
        right=(right,),
        category=category,
        roles=roles,
    )


def sample_id(dataset: str, *texts: str) -> str:
    """The same from whichever file: a hash of what is asked."""
    return f"{dataset}-{text_id(chr(0).join(texts))}"


def shuffle_options(sample: Sample, seed: int) -> Sample:
    """The same question with its options in an order drawn by the seed and the sample's id, so
    that no letter is right more often; everything else, the id too, stays.
    """
    block = lettered(sample.options)
    if not sample.right or block not in sample.prompt:
        raise ConfigError(
            f"The sample {sample.id!r} has no lettered options to shuffle; only those of "
            "multiple choice have."
        )
    before, _, after = sample.prompt.rpartition(block)
    order = stream(seed, "options", sample.id).permutation(len(sample.options)).tolist()
    options = tuple(sample.options[place] for place in order)
    return replace(
        sample,
        prompt=before + lettered(options) + after,
        options=options,
        right=tuple(sorted(order.index(place) for place in sample.right)),
        roles=tuple(sample.roles[place] for place in order) if sample.roles else (),
    )
