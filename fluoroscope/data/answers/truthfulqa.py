"""TruthfulQA (Lin et al. 2022, arXiv:2109.07958): questions that people answer falsely.

Files: `TruthfulQA.csv` (790 questions) or the older `TruthfulQA_v0_817.csv`, `mc_task.json`; on
the hub `truthfulqa/truthful_qa`. Three uses: `PAIRS` takes the best answer and every incorrect
one of the csv; `MC0`, `MC1` and `MC2` the choices of the multiple-choice tasks (the best answer
and one, the best and several, all true and false ones); `OWN` is for a model's own answers.

The answers are told apart by style alone to a good part: the false are shorter and less hedged.
"""

from collections.abc import Callable, Iterator

from fluoroscope.data.answers.record import (
    QUESTION_PROMPT,
    AnswerRecord,
    OpenQuestion,
    group_of,
    stated_answer,
)
from fluoroscope.data.answers.sets import FileSource
from fluoroscope.data.rows import Hub, LeftOut, Row, UnusableRowError

_HUB = Hub("truthfulqa/truthful_qa", "generation", "validation")
_MC_HUB = _HUB._replace(subset="multiple_choice")
_FILES = ("TruthfulQA.csv", "TruthfulQA*.csv")
_COLUMNS = {
    "question": ("Question", "question"),
    "best": ("Best Answer", "best_answer"),
    "correct": ("Correct Answers", "correct_answers"),
    "incorrect": ("Incorrect Answers", "incorrect_answers"),
    "category": ("Category", "category"),
}


def _pairs(row: Row) -> Iterator[AnswerRecord | LeftOut]:
    question, category = row.text("question"), row.text("category")
    incorrect, correct = row.texts("incorrect"), row.texts("correct")
    if not incorrect:
        raise UnusableRowError("'Incorrect Answers' is empty")
    prompt, group = QUESTION_PROMPT.format(question=question), group_of(question)
    best = row.text("best")
    yield stated_answer("truthfulqa", group, prompt, best, 0, category)
    for answer in incorrect:
        # The best answer among the incorrect ones is found as a text with both labels.
        if answer in correct and answer != best:
            yield LeftOut(row.where, "an answer is listed as correct and as incorrect")
        else:
            yield stated_answer("truthfulqa", group, prompt, answer, 1, category)


def _questions(row: Row) -> Iterator[OpenQuestion]:
    question, best = row.text("question"), row.text("best")
    correct, incorrect = row.texts("correct"), row.texts("incorrect")
    yield OpenQuestion(
        id=f"truthfulqa-{group_of(question)}",
        group_id=group_of(question),
        dataset="truthfulqa",
        prompt=QUESTION_PROMPT.format(question=question),
        answers=(best,),
        aliases=tuple(answer for answer in correct if answer != best),
        wrong=tuple(answer for answer in incorrect if answer not in (best, *correct)),
        category=row.text("category"),
    )


def _choices(name: str) -> Callable[[Row], Iterator[AnswerRecord | LeftOut]]:
    def choices(row: Row) -> Iterator[AnswerRecord | LeftOut]:
        question = row.text("question")
        prompt, group = QUESTION_PROMPT.format(question=question), group_of(question)
        for answer, is_true in _targets(row).items():
            if not answer.strip():
                yield LeftOut(row.where, "a choice is empty")
            else:
                yield stated_answer(name, group, prompt, answer.strip(), 1 - is_true)

    return choices


def _targets(row: Row) -> dict[str, int]:
    """Choice -> 1 if it is true, from {choice: 0 or 1} or the hub's two lists."""
    targets = row.value("targets")
    if isinstance(targets, dict) and set(targets) == {"choices", "labels"}:
        targets = dict(zip(targets["choices"], targets["labels"], strict=True))
    if not isinstance(targets, dict) or not all(value in (0, 1) for value in targets.values()):
        raise row.wrong("targets", "choices with 0 or 1 each", targets)
    return targets


def _multiple_choice(name: str, task: str, hub: Hub = _MC_HUB) -> FileSource[AnswerRecord]:
    columns = {"question": ("question",), "targets": (f"{task}_targets",)}
    files = ("mc_task.json",)
    return FileSource(name, "question", QUESTION_PROMPT, hub, files, columns, _choices(name))


PAIRS = FileSource("truthfulqa", "question", QUESTION_PROMPT, _HUB, _FILES, _COLUMNS, _pairs)
OWN = FileSource("truthfulqa", "question", QUESTION_PROMPT, _HUB, _FILES, _COLUMNS, _questions)
MC0 = _multiple_choice("truthfulqa-binary", "mc0")
MC1 = _multiple_choice("truthfulqa-mc1", "mc1")
MC2 = _multiple_choice("truthfulqa-mc", "mc2")
