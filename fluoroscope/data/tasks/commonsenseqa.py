"""CommonsenseQA (Talmor et al. 2019, arXiv:1811.00937): five options to an everyday question.

Prompt: the question, the lettered options, "Choose one of A, B, C, D, E only.", "Answer:"; one
token, read unconstrained. Files: `train_rand_split.jsonl`, `dev_rand_split.jsonl`, with the
question as a text or as `{"stem", "choices"}`; on the hub `tau/commonsense_qa`. The test side
upstream has no answers, so dev is the test side here; without a training file the split is
drawn. A question is a group.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from fluoroscope.data.answers.record import group_of
from fluoroscope.data.rows import Hub, Row, UnusableRowError
from fluoroscope.data.tasks.base import ScoredTask
from fluoroscope.data.tasks.prompts import CHOICE_PROMPT, choice_sample
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.data.tasks.scorers import ChoiceScorer


class Asked(NamedTuple):
    question: str
    options: list[str]
    right: int
    """Which option it is."""


def asked(row: Row) -> Asked:
    """The question of a row, in either form."""
    key = row.value("answer") if row.has("answer") else None
    if not key:
        raise UnusableRowError("it has no answer key, as in the test set")
    nested = row.value("question")
    if isinstance(nested, Mapping):
        question, choices = str(nested.get("stem", "")).strip(), nested.get("choices")
    else:
        question, choices = row.text("question"), row.value("choices")
    labels, texts = _options(row, choices)
    if key not in labels:
        raise UnusableRowError("its answer key is none of its options")
    return Asked(question, texts, labels.index(key))


def _samples(row: Row) -> Iterator[Sample]:
    question, options, right = asked(row)
    nested = row.value("question")
    concept = nested.get("question_concept") if isinstance(nested, Mapping) else None
    yield choice_sample(
        "commonsenseqa",
        group_of(question),
        question,
        options,
        right,
        category=str(concept or (row.value("concept") if row.has("concept") else "")),
    )


def _options(row: Row, choices: object) -> tuple[list[str], list[str]]:
    """Labels and texts, of two lists or of a list of objects."""
    if isinstance(choices, Mapping):
        return list(choices["label"]), [str(text).strip() for text in choices["text"]]
    if isinstance(choices, list):
        return [one["label"] for one in choices], [str(one["text"]).strip() for one in choices]
    raise row.wrong("choices", "labels and texts", choices)


COMMONSENSEQA = ScoredTask(
    name="commonsenseqa",
    kind="choice",
    group="question",
    prompt=CHOICE_PROMPT,
    max_tokens=1,
    stop=("\n",),
    scores_by=ChoiceScorer(),
    hubs=tuple(Hub("tau/commonsense_qa", None, split) for split in ("train", "validation")),
    files=("*_rand_split.jsonl", "*.jsonl"),
    columns={
        "question": ("question",),
        "choices": ("choices",),
        "answer": ("answerKey",),
        "concept": ("question_concept",),
    },
    samples=_samples,
    own_splits={"train": "train", "dev": "test", "validation": "test"},
)
