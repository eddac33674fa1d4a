"""CrowS-Pairs (Nangia et al. 2020, arXiv:2010.00133): two sentences that differ in who is meant.

`sent_more` is the more stereotyping of the two, whatever the direction (`facts["direction"]`:
"stereo" says a stereotype of a disadvantaged group, "antistereo" goes against one); the score is 1
where it is the less probable. Whole sentences are compared, without a prompt.
The authors ask masked models for the words that both sentences share; of a model that reads from
left to right the probability of the whole sentence stands for it, the names of the groups
included, so numbers of the two kinds are not to be compared.

File: `crows_pairs_anonymized.csv`; on the hub `nyu-mll/crows_pairs`, which is a script: give a copy
as `hf:NAME` where scripts are not run. A pair is a group, together with pairs of the same words but
for who is meant. No split upstream: drawn.
"""

import re
from collections.abc import Iterator

from fluoroscope.data.answers.record import group_of
from fluoroscope.data.rows import Hub, Row, UnusableRowError
from fluoroscope.data.tasks.base import ScoredTask
from fluoroscope.data.tasks.prompts import sample_id
from fluoroscope.data.tasks.samples import Sample, equal_options
from fluoroscope.data.tasks.scorers import PairScorer

_DIRECTIONS = ("stereo", "antistereo")
# In the order of the hub's numbers.
_BIASES = (
    "race-color",
    "socioeconomic",
    "gender",
    "disability",
    "nationality",
    "sexual-orientation",
    "physical-appearance",
    "religion",
    "age",
)


def _samples(row: Row) -> Iterator[Sample]:
    options = (row.text("more"), row.text("less"))
    if equal_options(options):
        raise UnusableRowError("its two sentences are the same")
    yield Sample(
        id=sample_id("crows-pairs", *options),
        group_id=group_of(_shared(*options)),
        prompt="",
        options=options,
        roles=("stereotype", "anti-stereotype"),
        category=_named(row, "bias", _BIASES),
        facts={"direction": _named(row, "direction", _DIRECTIONS)},
    )


def _named(row: Row, name: str, names: tuple[str, ...]) -> str:
    value = row.value(name)
    return names[value] if isinstance(value, int) else row.text(name)


def _shared(more: str, less: str) -> str:
    """The words that stand in both, in the order of the first; all of them if none does."""
    words, others = (re.findall(r"\w+", text.casefold()) for text in (more, less))
    return " ".join(word for word in words if word in others) or f"{more} {less}"


CROWS_PAIRS = ScoredTask(
    name="crows-pairs",
    kind="pairs",
    group="pair",
    prompt="",
    max_tokens=1,
    stop=(),
    scores_by=PairScorer(),
    hubs=(Hub("nyu-mll/crows_pairs", None, "test"),),
    files=("crows_pairs_anonymized.csv", "*.csv"),
    columns={
        "more": ("sent_more",),
        "less": ("sent_less",),
        "direction": ("stereo_antistereo",),
        "bias": ("bias_type",),
    },
    samples=_samples,
)
