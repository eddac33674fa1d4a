"""TriviaQA (Joshi et al. 2017, arXiv:1705.03551) without its documents, for own answers.

Files: the json of the release (`{"Data": [{"Question", "QuestionId", "Answer"}]}`, such as
`unfiltered-web-dev.json`) or of the hub's columns; on the hub `mandarjoshi/trivia_qa`, subset
`rc.nocontext`, split validation. The test set has no answers. An answer comes with all its
aliases, also in a normalised form without articles; any of them counts.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fluoroscope.data.answers.record import QUESTION_PROMPT, OpenQuestion, group_of
from fluoroscope.data.answers.sets import FileSource
from fluoroscope.data.rows import Hub, Row, UnusableRowError

_ANSWER = ("Value", "value")
_ALIASES = ("Aliases", "aliases", "NormalizedAliases", "normalized_aliases")


def _questions(row: Row) -> Iterator[OpenQuestion]:
    question, answer = row.text("question"), row.value("answer") if row.has("answer") else None
    if not answer:
        raise UnusableRowError("it has no answer, as in the test set")
    if not isinstance(answer, Mapping):
        raise row.wrong("answer", "an object with a value and aliases", answer)
    [value] = _texts(row, answer, _ANSWER)[:1] or [""]
    if not value or value == "<unk>":
        raise UnusableRowError("it has no answer, as in the test set")
    aliases = _texts(row, answer, _ALIASES)
    yield OpenQuestion(
        id=f"triviaqa-{group_of(question)}",
        group_id=group_of(question),
        dataset="triviaqa",
        prompt=QUESTION_PROMPT.format(question=question),
        answers=(value,),
        aliases=tuple(alias for alias in aliases if alias != value),
    )


def _texts(row: Row, answer: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, ...]:
    found = [answer[name] for name in names if answer.get(name)]
    texts = [text for one in found for text in ([one] if isinstance(one, str) else one)]
    if not all(isinstance(text, str) for text in texts):
        raise row.wrong("answer", f"texts under {', '.join(names)}", texts)
    return tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))


OWN = FileSource(
    "triviaqa",
    group="question",
    prompt=QUESTION_PROMPT,
    hub=Hub("mandarjoshi/trivia_qa", "rc.nocontext", "validation"),
    files=("*dev.json", "*validation*", "*.json", "*.jsonl"),
    columns={"question": ("Question", "question"), "answer": ("Answer", "answer")},
    items=_questions,
)
