"""LogiQA (Liu et al. 2020, arXiv:2007.08124): what follows from a text, four options.

Source `reason: Context: .. Question: .. Options: A) .. B) .. C) .. D) ..`, target a letter. The
plan's own prompt has no options, and nobody could answer it by a letter. Files: `Train.txt`,
`Eval.txt`, `Test.txt`, eight lines a question (blank, letter, context, question, four options); on
the hub the tables that were made of `lucasmccabe/logiqa`, whose own form is a script. A context is
a group. In the files 19 questions of the test part have their options in the order A, C, B, D, and
the right letter is the option's own: read by place, they would have wrong answers.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from fluoroscope.core.errors import CorpusError
from fluoroscope.data.labelled.example import group_of
from fluoroscope.data.labelled.lines import Values, lines
from fluoroscope.data.labelled.written import SIDES, Form
from fluoroscope.data.questions.written import Draft, WrittenQuestions, lettered_options
from fluoroscope.data.rows import Hub, Row, UnusableRowError
from fluoroscope.data.tasks.prompts import LETTERS

_N_OPTIONS = 4
_LINES = 8
_LETTER = re.compile(r"\s*([A-D])(?:\s*[.)]|\s)\s*", re.IGNORECASE)


def _eights(file: Path) -> Iterator[Values]:
    found = list(lines(file))
    while found and not found[-1].strip():
        found.pop()
    for start in range(0, len(found), _LINES):
        some = found[start : start + _LINES]
        if len(some) < _LINES or some[0].strip() or len(some[1].strip()) != 1:
            raise CorpusError(
                f"{file.name}, line {start + 1}: eight lines are a question (blank, letter, "
                f"context, question, four options), got {some!r:.200}. Is it a file of LogiQA?"
            )
        _, answer, context, query, *options = some
        yield {
            "context": context,
            "query": query,
            "options": _in_order(options),
            "correct_option": answer,
        }


def _in_order(options: list[str]) -> list[str]:
    """By their letters, without them: `B.text`, `b. text` and `B text` are `text`. Where some have
    no letter of their own, all stay where they are.
    """
    found = [_LETTER.match(option) for option in options]
    letters = [one[1].upper() if one else "" for one in found]
    if sorted(letters) == list(LETTERS[:_N_OPTIONS]):
        options = [options[letters.index(letter)] for letter in LETTERS[:_N_OPTIONS]]
        letters = sorted(letters)
    return [
        _LETTER.sub("", option, count=1) if letter == LETTERS[place] else option.strip()
        for place, (option, letter) in enumerate(zip(options, letters, strict=True))
    ]


def _draft(row: Row) -> Draft:
    options = row.value("options")
    if not isinstance(options, list) or not all(isinstance(one, str) for one in options):
        raise row.wrong("options", "a list of texts", options)
    options = [one.strip() for one in options]
    if len(options) != _N_OPTIONS or not all(options):
        raise UnusableRowError("it has not four options")
    context = row.text("context")
    source = (
        f"reason: Context: {context} Question: {row.text('query')} "
        f"Options: {lettered_options(options)}"
    )
    return Draft(source, LETTERS[_right(row)], group_of(context))


def _right(row: Row) -> int:
    """The place of the right option, whether it is written 0, '0', 'a' or 'A'."""
    answer = row.value("answer")
    said = "" if answer is None else str(answer).strip().upper()
    if not said:
        raise UnusableRowError("it has no answer key")
    if said.isdecimal() and int(said) < _N_OPTIONS:
        return int(said)
    if len(said) == 1 and said in LETTERS[:_N_OPTIONS]:
        return LETTERS.index(said)
    raise row.wrong("answer", "a place from 0 to 3 or a letter from A to D", answer)


LOGIQA = WrittenQuestions(
    name="logiqa",
    kind="choice",
    prompt="reason: Context: {context} Question: {question} Options: A) .. B) .. C) .. D) ..",
    answers=tuple(LETTERS[:_N_OPTIONS]),
    hubs=tuple(
        Hub("lucasmccabe/logiqa", None, split, "refs/convert/parquet")
        for split in ("train", "validation", "test")
    ),
    forms=(Form(("Train.txt", "Eval.txt", "Test.txt"), _eights),),
    columns={
        "context": ("context",),
        "query": ("query", "question"),
        "options": ("options", "choices"),
        "answer": ("correct_option", "answer"),
    },
    draft=_draft,
    sides={**SIDES, "eval": "validation"},
)
