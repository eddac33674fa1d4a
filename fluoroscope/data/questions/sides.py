"""Which side a question is on, and how a side is made smaller.

A set's own sides are kept. Without a validation side a tenth of the training questions becomes it,
by group, and never the test side: what is chosen by a side is not judged on it. Without a training
side the validation side is trained on, and that is said. A text that is asked with two answers is
left out, and so is one whose group a later side has; a text is there once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from fluoroscope.data.corpus_config import Split
from fluoroscope.data.labelled.base import Origin, limited
from fluoroscope.data.labelled.example import Example
from fluoroscope.data.labelled.splitting import Found, split_examples
from fluoroscope.data.questions.question import Question
from fluoroscope.data.rows import LeftOut


class FoundQuestion(NamedTuple):
    """A question with where it is from, and the side that the set has it on."""

    where: str
    own: Split | None
    question: Question


class QuestionSides(NamedTuple):
    questions: list[Question]
    left_out: list[LeftOut]
    origins: Mapping[Split, Origin]
    notes: tuple[str, ...]


def split_questions(found: Sequence[FoundQuestion], seed: int) -> QuestionSides:
    """Every question with its side; what is on none is handed back with the reason."""
    found, notes = _with_training_side(found)
    agreed, two_answers = _of_one_answer(found)
    by_id = {one.question.id: one.question for one in agreed}
    sides = split_examples(
        [Found(one.where, one.own, _example(one.question)) for one in agreed], "sound", seed
    )
    questions = [replace(by_id[one.id], split=one.split) for one in sides.examples]
    return QuestionSides(questions, [*two_answers, *sides.left_out], sides.origins, notes)


def limited_questions(questions: Sequence[Question], n: int, seed: int) -> list[Question]:
    """At most `n` questions of one side, in the order of their ids: whole groups, with about its
    share of each depth, or else of each answer where they are known. The order of rows plays no
    part.
    """
    by_id = {one.id: one for one in questions}
    return [by_id[one.id] for one in limited([_example(one) for one in questions], n, seed)]


def _with_training_side(
    found: Sequence[FoundQuestion],
) -> tuple[Sequence[FoundQuestion], tuple[str, ...]]:
    own = {one.own for one in found}
    if None in own or "train" in own:
        return found, ()
    if own == {"validation", "test"}:
        n = sum(one.own == "validation" for one in found)
        note = f"There is no training part: the {n:,} questions of the validation part stand in"
        return [one._replace(own="train") if one.own == "validation" else one for one in found], (
            note,
        )
    [only] = own
    note = f"There is a {only} part alone: its {len(found):,} questions are drawn into three sides"
    return found, (note,)


def _of_one_answer(
    found: Sequence[FoundQuestion],
) -> tuple[list[FoundQuestion], list[LeftOut]]:
    answers: dict[str, set[str]] = {}
    for one in found:
        answers.setdefault(one.question.id, set()).add(one.question.target)
    kept, left_out = [], []
    for one in found:
        if len(answers[one.question.id]) > 1:
            left_out.append(LeftOut(one.where, "the same text has two answers"))
        else:
            kept.append(one)
    return kept, left_out


def _example(question: Question) -> Example:
    """What `data/labelled` splits and limits; its label is what sides have the same share of."""
    if question.depth is not None:
        label = question.depth
    else:
        label = question.choices.index(question.target) if question.choices else 0
    return Example(
        id=question.id,
        text=question.source,
        pair=None,
        label=label,
        split=question.split,
        group_id=question.group_id,
    )
