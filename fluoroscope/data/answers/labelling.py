"""Whether a model's own answer is true: do the words of a right answer stand in it?

Texts are compared as words, lower-cased, with punctuation as borders; a right answer counts
where its words stand one after the other. Words have borders: "no" is not in "not known", as it
is for a search of substrings. The longest answer found decides, so that "No, because of the
moon" is a wrong one although "No" is right. Rows that cannot be told are handed back with the
reason.

Labels of this kind are wrong at times: a true answer in other words counts as made up.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fluoroscope.data.answers.record import (
    AnswerRecord,
    LabelSource,
    OpenQuestion,
    Span,
    answer_span,
)
from fluoroscope.data.rows import LeftOut

# "1,000" and "2.5" are one word each, or "1" would be found in both.
_WORD = re.compile(r"\d+(?:[.,]\d+)+|[^\W_]+")
_FIRST_ONLY = frozenset({("yes",), ("no",), ("true",), ("false",)})
"""Answers that many sentences hold for other reasons; they count where they begin the answer."""


class Label(NamedTuple):
    """Of an answer; 1 is made up."""

    label: int
    source: LabelSource
    span: Span
    """The answer within the completion: by the same rule whatever the label is."""

    matched: Span | None
    """Where the words stand that decided; None where none were found. For people to look at: as
    only some answers have one, whatever is computed from it tells the label."""


class _Word(NamedTuple):
    text: str
    span: Span


class _Found(NamedTuple):
    n_words: int
    span: Span


def label_answer(completion: str, question: OpenQuestion) -> Label | LeftOut:
    span = answer_span(completion)
    if span is None:
        return LeftOut(question.id, "the answer is empty")
    words = _words(completion[: span[1]])
    if _longest(words, question.abstentions):
        return LeftOut(question.id, "it says that it does not know")
    exact = _longest(words, question.answers)
    alias = _longest(words, question.aliases)
    wrong = _longest(words, question.wrong)
    right = max(exact, alias, key=_length)
    if right and wrong and right.n_words == wrong.n_words:
        return LeftOut(question.id, "a right answer and a wrong one as long stand in it")
    is_right = _length(right) > _length(wrong)
    decided_by = right if is_right else wrong
    # On a tie the answer itself; where nothing is found, all that was looked for.
    is_alias = _length(alias) > _length(exact) if is_right else bool(question.aliases)
    source: LabelSource = question.label_source or ("alias" if is_alias else "exact")
    return Label(int(not is_right), source, span, decided_by and decided_by.span)


def labelled(
    question: OpenQuestion,
    completion: str,
    generator: Mapping[str, Any],  # Any: see AnswerRecord.
    sample: int = 0,
) -> AnswerRecord | LeftOut:
    """The record of a model's own answer; `sample` counts several answers to one question."""
    found = label_answer(completion, question)
    if isinstance(found, LeftOut):
        return found
    return AnswerRecord(
        id=f"{question.id}/{sample}",
        group_id=question.group_id,
        dataset=question.dataset,
        prompt=question.prompt,
        completion=completion,
        label=found.label,
        label_source=found.source,
        answer_span=found.span,
        generator=generator,
        category=question.category,
    )


def find_answer(completion: str, answer: str) -> Span | None:
    """Where the words of `answer` first stand in `completion`, one after the other."""
    found = _find(_words(completion), answer)
    return found and found.span


def _longest(words: list[_Word], answers: Iterable[str]) -> _Found | None:
    return max((_find(words, answer) for answer in answers), key=_length, default=None)


def _length(found: _Found | None) -> int:
    return found.n_words if found else 0


def _find(words: list[_Word], answer: str) -> _Found | None:
    wanted = tuple(word.text for word in _words(answer))
    n = len(wanted)
    if not n:
        return None
    last = 0 if wanted in _FIRST_ONLY else len(words) - n
    for start in range(min(last, len(words) - n) + 1):
        if tuple(word.text for word in words[start : start + n]) == wanted:
            return _Found(n, (words[start].span[0], words[start + n - 1].span[1]))
    return None


def _words(text: str) -> list[_Word]:
    return [_Word(m[0].casefold().replace(",", ""), m.span()) for m in _WORD.finditer(text)]
