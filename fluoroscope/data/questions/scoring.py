"""What a written answer is worth: read strictly, and wrong where it cannot be read.

Normalised text is lower-cased, without articles, punctuation and blanks that are not needed (as
SQuAD's, Rajpurkar et al. 2016, arXiv:1606.05250). A choice is read if it is one of the known
answers, or an option's letter with a sign behind it ("B) mall"); nothing else is taken for an
answer, so that garbage gets no share of chance. Numbers are equal within 1e-6.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from sklearn.metrics import f1_score

from fluoroscope.core.errors import ConfigError
from fluoroscope.data.questions.question import Kind, Question
from fluoroscope.data.tasks.scorers import read_number

NUMBERS_ARE_EQUAL = 1e-6

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_LETTERED = re.compile(r"\(?(\w)[).:](?:\s|\Z)")
_ENDLESS = re.compile(r"[\d,]{300}")
_WHOLE_NUMBER = re.compile(r"[-−+]?[$€£]?[\d.,/\s]+%?")


class Judged(NamedTuple):
    """A written answer and what was read of it."""

    is_right: bool
    is_readable: bool
    read: str
    """The known answer, the number, or the normalised text; empty where none could be read."""

    is_exact: bool
    """Whether it is the target, both normalised."""


@dataclass(frozen=True)
class AnswerScores:
    """Of many answers; each is in [0, 1]."""

    n: int
    accuracy: float
    """Of choices and numbers the share that is right; of text that of exact matches."""

    exact_match: float
    parse_rate: float
    """Share of answers that could be read; the others are wrong."""

    macro_f1: float | None = None
    """Of choices: the mean over answers that are wanted or given at all."""

    token_f1: float | None = None
    """Of text: the mean of SQuAD's."""

    def as_dict(self) -> dict[str, float]:
        """Without what does not apply."""
        return {name: value for name, value in vars(self).items() if value is not None}


def judge(question: Question, text: str, kind: Kind) -> Judged:
    """`text` is what was written for the question."""
    is_exact = _is_exact(text, question.target)
    match kind:
        case "choice":
            chosen = read_choice(text, _choices(question))
            return Judged(chosen == question.target, chosen is not None, chosen or "", is_exact)
        case "number":
            number, wanted = _number(text), _number(question.target)
            if wanted is None:
                raise ConfigError(
                    f"The answer to {question.id!r} is no number: {question.target!r}. Is its set "
                    "one of text?"
                )
            if number is None:
                return Judged(False, False, "", is_exact)
            is_near = abs(number - wanted) < NUMBERS_ARE_EQUAL
            return Judged(is_near, True, f"{float(number):.10g}", is_exact)
        case "text":
            return Judged(is_exact, bool(text.strip()), normalised(text), is_exact)


def _is_exact(text: str, target: str) -> bool:
    """As normalised; an answer of which that leaves nothing, such as `?!`, is compared as it is."""
    wanted = normalised(target)
    return normalised(text) == wanted if wanted else text.strip() == target.strip()


def judged(questions: Sequence[Question], texts: Sequence[str], kind: Kind) -> list[Judged]:
    """One for each question, in their order, so that two models can be compared in pairs."""
    if len(questions) != len(texts):
        raise ConfigError(f"{len(questions)} questions have {len(texts)} answers; one each.")
    return [judge(question, text, kind) for question, text in zip(questions, texts, strict=True)]


def answer_scores(questions: Sequence[Question], texts: Sequence[str], kind: Kind) -> AnswerScores:
    found = judged(questions, texts, kind)
    if not found:
        raise ConfigError("There are no answers to score; give one question at least.")
    targets = [one.target for one in questions]
    return AnswerScores(
        n=len(found),
        accuracy=float(right(found).mean()),
        exact_match=float(np.mean([one.is_exact for one in found])),
        parse_rate=float(np.mean([one.is_readable for one in found])),
        macro_f1=macro_f1(targets, [one.read for one in found]) if kind == "choice" else None,
        token_f1=float(np.mean([*map(token_f1, texts, targets)])) if kind == "text" else None,
    )


def right(found: Sequence[Judged]) -> Bool[np.ndarray, " n"]:
    return np.array([one.is_right for one in found], bool)


def normalised(text: str) -> str:
    """An answer that is nothing but an article ("A") stays one."""
    plain = " ".join(text.casefold().translate(_PUNCTUATION).split())
    return " ".join(_ARTICLE.sub(" ", plain).split()) or plain


def read_choice(text: str, choices: Sequence[str]) -> str | None:
    """The choice that is written; None where it is none of them, or could be several: of `+` and
    `-`, or `-1` and `1`, nothing may be taken away.
    """
    if text.strip() in choices:
        return text.strip()
    n_alike = Counter(map(_bare, choices))
    known = {_bare(choice): choice for choice in choices if n_alike[_bare(choice)] == 1}
    # A choice of signs alone is not what an empty answer says.
    known.pop("", None)
    if _bare(text) in known:
        return known[_bare(text)]
    letter = _LETTERED.match(text.strip())
    return known.get(letter[1].casefold()) if letter else None


def is_number(text: str) -> bool:
    """Whether it is a number and nothing else."""
    return bool(_WHOLE_NUMBER.fullmatch(text.strip())) and _number(text) is not None


def macro_f1(targets: Sequence[str], read: Sequence[str]) -> float:
    """An answer that could not be read is of no class and lowers the recall of its own."""
    labels = sorted({*targets, *read} - {""})
    return float(f1_score(targets, read, labels=labels, average="macro"))


def token_f1(text: str, target: str) -> float:
    """SQuAD's: the harmonic mean of the shares of words of each that the other has."""
    said, wanted = normalised(text).split(), normalised(target).split()
    if not said or not wanted:
        return float(said == wanted)
    n_common = (Counter(said) & Counter(wanted)).total()
    return 2 * n_common / (len(said) + len(wanted))


def _number(text: str) -> Fraction | None:
    """A model that repeats a digit for ever states no number, and none that a float could hold."""
    return None if _ENDLESS.search(text) else read_number(text)


def _choices(question: Question) -> tuple[str, ...]:
    if question.choices is None:
        raise ConfigError(f"{question.id!r} has no choices to read an answer by.")
    return question.choices


def _bare(text: str) -> str:
    """Without case, and without blanks and signs around it."""
    return " ".join(text.casefold().split()).strip(string.punctuation + " ")
