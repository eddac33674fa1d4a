"""HaluEval (Li et al. 2023, arXiv:2305.11747): right and hallucinated answers, written to order.

Files as upstream: `general_data.json` (replies to user queries, judged by people, with marked
spans), `qa_data.json` or the candidates `qa_one-turn_data.json` and `qa_multi-turn_data.json`,
`dialogue_data.json`, `summarization_data.json`; on the hub `pminervini/HaluEval`. All but
`general` give a right and a hallucinated answer to a row. Questions are asked without the
`knowledge` that their answers were written from.

A right answer of `qa` is a few words and a hallucinated one is a sentence: length alone tells
nine in ten, so nothing is shown by a detector that does as well.
"""

from collections.abc import Iterator

from fluoroscope.data.answers.record import (
    QUESTION_PROMPT,
    AnswerRecord,
    Span,
    group_of,
    stated_answer,
)
from fluoroscope.data.answers.sets import FileSource
from fluoroscope.data.rows import Hub, LeftOut, Row, UnusableRowError

_HUB = "pminervini/HaluEval"
_DIALOGUE_PROMPT = "{history} [Assistant]:"
_SUMMARY_PROMPT = "Document: {document}\nSummary:"


def _general(row: Row) -> Iterator[AnswerRecord | LeftOut]:
    query, reply = row.text("query"), row.text("reply")
    verdict = row.text("verdict").lower()
    if verdict not in ("yes", "no"):
        raise UnusableRowError("'hallucination' is neither yes nor no")
    prompt = QUESTION_PROMPT.format(question=query)
    spans: list[Span] = []
    for marked in row.texts("spans") if row.has("spans") else ():
        start = reply.find(marked)
        if start < 0:
            yield LeftOut(row.where, "a marked span is not in the reply (its record is kept)")
        else:
            spans.append((start, start + len(marked)))
    yield stated_answer(
        "halueval-general",
        group_of(query),
        prompt,
        reply,
        int(verdict == "yes"),
        made_up_spans=tuple(sorted(spans)),
    )


def _qa(row: Row) -> Iterator[AnswerRecord]:
    question = row.text("question")
    return _both(row, "halueval-qa", question, QUESTION_PROMPT.format(question=question))


def _dialogue(row: Row) -> Iterator[AnswerRecord]:
    history = row.text("history")
    # The last turn is the human's; what is judged is the assistant's next.
    prompt = _DIALOGUE_PROMPT.format(history=history)
    return _both(row, "halueval-dialogue", history, prompt)


def _summarization(row: Row) -> Iterator[AnswerRecord]:
    document = row.text("document")
    prompt = _SUMMARY_PROMPT.format(document=document)
    return _both(row, "halueval-summarization", document, prompt)


def _both(row: Row, dataset: str, about: str, prompt: str) -> Iterator[AnswerRecord]:
    right, hallucinated = row.text("right"), row.text("hallucinated")
    for answer, label in ((right, 0), (hallucinated, 1)):
        yield stated_answer(dataset, group_of(about), prompt, answer, label)


GENERAL = FileSource(
    "halueval-general",
    group="query",
    prompt=QUESTION_PROMPT,
    hub=Hub(_HUB, "general", "data"),
    files=("general_data.json",),
    columns={
        "query": ("user_query",),
        "reply": ("chatgpt_response",),
        "verdict": ("hallucination", "hallucination_label"),
        "spans": ("hallucination_spans",),
    },
    items=_general,
)
QA = FileSource(
    "halueval-qa",
    group="question",
    prompt=QUESTION_PROMPT,
    hub=Hub(_HUB, "qa", "data"),
    files=("qa_data.json", "qa_*data.json"),
    columns={
        "question": ("question",),
        "right": ("right_answer",),
        "hallucinated": ("hallucinated_answer",),
    },
    items=_qa,
)
DIALOGUE = FileSource(
    "halueval-dialogue",
    group="dialogue",
    prompt=_DIALOGUE_PROMPT,
    hub=Hub(_HUB, "dialogue", "data"),
    files=("dialogue_data.json",),
    columns={
        "history": ("dialogue_history",),
        "right": ("right_response",),
        "hallucinated": ("hallucinated_response",),
    },
    items=_dialogue,
)
SUMMARIZATION = FileSource(
    "halueval-summarization",
    group="document",
    prompt=_SUMMARY_PROMPT,
    hub=Hub(_HUB, "summarization", "data"),
    files=("summarization_data.json",),
    columns={
        "document": ("document",),
        "right": ("right_summary",),
        "hallucinated": ("hallucinated_summary",),
    },
    items=_summarization,
)
