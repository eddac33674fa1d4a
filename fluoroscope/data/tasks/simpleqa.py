"""SimpleQA (Wei et al. 2024, arXiv:2411.04368): short questions with one answer that stays true.

Prompt: "Answer in a few words.", "Question: ...", "Answer:"; 16 tokens, one line. A reply is
right if the words of the answer stand in it one after the other. That is stricter than the
release's judge (a language model) and than the sentence similarity of CorrSteer: another form of
a date or of a name counts as wrong, so numbers are lower than published ones.

File: `simple_qa_test_set.csv`; on the hub `basicv8vc/SimpleQA`. A question is a group. No split
upstream: drawn.
"""

import ast
from collections.abc import Iterator, Mapping

from fluoroscope.data.answers.labelling import find_answer
from fluoroscope.data.answers.record import group_of
from fluoroscope.data.rows import Hub, Row, UnusableRowError
from fluoroscope.data.tasks.base import ScoredTask
from fluoroscope.data.tasks.prompts import sample_id
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.data.tasks.scorers import ShortAnswerScorer

_PROMPT = "Answer in a few words.\nQuestion: {question}\nAnswer:"


def _samples(row: Row) -> Iterator[Sample]:
    question, answer = row.text("question"), row.text("answer")
    aliases = row.texts("aliases") if row.has("aliases") else ()
    if find_answer(answer, answer) is None:
        raise UnusableRowError("its answer has no words to look for")
    metadata = _metadata(row)
    prompt = _PROMPT.format(question=question)
    yield Sample(
        id=sample_id("simpleqa", prompt),
        group_id=group_of(question),
        prompt=prompt,
        references=(answer, *(alias for alias in aliases if alias != answer)),
        category=metadata.get("topic", ""),
        facts={"answer_type": metadata.get("answer_type", "")},
    )


def _metadata(row: Row) -> dict[str, str]:
    """Topic and kind of answer; the file holds a dictionary as Python prints it."""
    if not row.has("metadata"):
        return {}
    value = row.value("metadata")
    try:
        found = ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        raise row.wrong("metadata", "a dictionary", value) from None
    if not isinstance(found, Mapping):
        return {}
    return {name: str(found[name]) for name in ("topic", "answer_type") if name in found}


SIMPLEQA = ScoredTask(
    name="simpleqa",
    kind="short answer",
    group="question",
    prompt=_PROMPT,
    max_tokens=16,
    stop=("\n",),
    scores_by=ShortAnswerScorer(),
    hubs=(Hub("basicv8vc/SimpleQA", None, "test"),),
    files=("simple_qa_test_set.csv", "*.csv"),
    columns={
        "question": ("problem", "question"),
        "answer": ("answer",),
        "aliases": ("aliases",),
        "metadata": ("metadata",),
    },
    samples=_samples,
)
