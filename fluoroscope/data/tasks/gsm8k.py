"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168): school arithmetic in words.

Prompt: "Q: ...", a line that asks for the number after ####, "A:"; up to 512 tokens. Files:
`train.jsonl` and `test.jsonl` of the release (those with questions of a tutor are passed over); on
the hub `openai/gsm8k`, `main`. The split is the set's own, a tenth of train being the validation
side. A question is a group.
"""

from collections.abc import Iterator
from typing import NamedTuple

from fluoroscope.data.answers.record import group_of
from fluoroscope.data.rows import Hub, Row, UnusableRowError
from fluoroscope.data.tasks.base import ScoredTask
from fluoroscope.data.tasks.prompts import sample_id
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.data.tasks.scorers import NumberScorer, read_number

_PROMPT = "Q: {question}\nGive the steps, then the final answer after ####.\nA:"


class Solved(NamedTuple):
    """A question and the number that answers it, as it is written."""

    question: str
    key: str


def solved(row: Row) -> Solved:
    question = row.text("question")
    _, mark, key = row.text("answer").partition("####")
    if not mark or read_number(key) is None:
        raise UnusableRowError("it has no answer key: no number after ####")
    return Solved(question, key.strip())


def _samples(row: Row) -> Iterator[Sample]:
    question, key = solved(row)
    prompt = _PROMPT.format(question=question)
    yield Sample(
        id=sample_id("gsm8k", prompt),
        group_id=group_of(question),
        prompt=prompt,
        references=(key,),
    )


GSM8K = ScoredTask(
    name="gsm8k",
    kind="number",
    group="question",
    prompt=_PROMPT,
    max_tokens=512,
    stop=("\nQ:",),
    scores_by=NumberScorer(),
    hubs=(Hub("openai/gsm8k", "main", "train"), Hub("openai/gsm8k", "main", "test")),
    # train.jsonl and test.jsonl, and neither train_socratic.jsonl nor test_socratic.jsonl.
    files=("t*[nt].jsonl", "*.jsonl"),
    columns={"question": ("question",), "answer": ("answer",)},
    samples=_samples,
    own_splits={"train": "train", "test": "test"},
)
