"""MMLU (Hendrycks et al. 2021, arXiv:2009.03300): questions of 57 subjects, four options each.

Prompt: the question, the lettered options, "Choose one of A, B, C, D only.", "Answer:"; one token,
read unconstrained. Files: `dev/SUBJECT_dev.csv`, `val/SUBJECT_val.csv` and `test/SUBJECT_test.csv`
with a header line (question, choice0..3, answer as a place or a letter), or one folder of them; on
the hub `cais/mmlu`, all subjects.

The own split has dev (five questions a subject) and auxiliary_train to learn from; where nothing
but dev is there, `splitting="drawn"` gives more. A question is a group, in whichever subject.
"""

from collections.abc import Iterator

from fluoroscope.data.answers.record import group_of
from fluoroscope.data.rows import Hub, Row, UnusableRowError
from fluoroscope.data.tasks.base import ScoredTask
from fluoroscope.data.tasks.prompts import CHOICE_PROMPT, LETTERS, choice_sample
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.data.tasks.scorers import ChoiceScorer

_CHOICES = ("choice0", "choice1", "choice2", "choice3")


def _samples(row: Row) -> Iterator[Sample]:
    question = row.text("question")
    if row.has("choices"):
        options = [str(option).strip() for option in row.value("choices")]
    else:
        options = [row.text(name) for name in _CHOICES]
    subject = row.text("subject") if row.has("subject") else row.stem.rpartition("_")[0]
    yield choice_sample(
        "mmlu", group_of(question), question, options, _right(row), category=subject or row.stem
    )


def _right(row: Row) -> int:
    answer = row.value("answer")
    if answer is None or not str(answer).strip():
        raise UnusableRowError("it has no answer key")
    said = str(answer).strip()
    if said.isdecimal():
        return int(said)
    if len(said) == 1 and said in LETTERS:
        return LETTERS.index(said)
    raise row.wrong("answer", "a place from 0 or a letter", answer)


MMLU = ScoredTask(
    name="mmlu",
    kind="choice",
    group="question",
    prompt=CHOICE_PROMPT,
    max_tokens=1,
    stop=("\n",),
    scores_by=ChoiceScorer(),
    hubs=tuple(Hub("cais/mmlu", "all", split) for split in ("dev", "validation", "test")),
    files=("*/*.csv", "*.csv"),
    columns={
        "question": ("question",),
        "answer": ("answer",),
        "choices": ("choices",),
        "subject": ("subject",),
    }
    | {name: (name, name.replace("choice", "option")) for name in _CHOICES},
    samples=_samples,
    own_splits={
        "dev": "train",
        "train": "train",
        "val": "validation",
        "validation": "validation",
        "test": "test",
    },
)
