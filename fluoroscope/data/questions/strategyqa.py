"""StrategyQA (Geva et al. 2021, arXiv:2101.02235): yes or no, by steps that are not said.

`CLOSED_BOOK`: source `strategy: <question> Answer (Yes or No):` and nothing else of the row: its
steps, evidence and facts were written by who knew the answer. `WITH_FACTS` is another track, whose
source has the facts before the question. The answers of the official test part are not public: its
2,290 others are the 2,061 of `train.json` and the 229 of `dev.json`, which are the test side here;
on the hub a copy that is cut into train and test. A question is a group.
"""

from fluoroscope.data.labelled.example import group_of
from fluoroscope.data.labelled.lines import table
from fluoroscope.data.labelled.written import SIDES, Form
from fluoroscope.data.questions.written import Draft, WrittenQuestions
from fluoroscope.data.rows import Hub, Row, UnusableRowError

_ANSWERS = {"true": "Yes", "yes": "Yes", "1": "Yes", "false": "No", "no": "No", "0": "No"}


def _closed_book(row: Row) -> Draft:
    question = row.text("question")
    return Draft(f"strategy: {question} Answer (Yes or No):", _answer(row), group_of(question))


def _with_facts(row: Row) -> Draft:
    question, facts = row.text("question"), row.value("facts")
    said = [facts] if isinstance(facts, str) else facts
    if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
        raise row.wrong("facts", "a text or a list of texts", facts)
    told = " ".join(one.strip() for one in said if one.strip())
    if not told:
        raise UnusableRowError("it has no facts")
    source = f"strategy: Facts: {told} Question: {question} Answer (Yes or No):"
    return Draft(source, _answer(row), group_of(question))


def _answer(row: Row) -> str:
    answer = row.value("answer") if row.has("answer") else None
    said = "" if answer is None else str(answer).strip().casefold()
    if not said:
        raise UnusableRowError("it has no answer, as in the official test part")
    if said not in _ANSWERS:
        raise row.wrong("answer", "true or false", answer)
    return _ANSWERS[said]


CLOSED_BOOK = WrittenQuestions(
    name="strategyqa",
    kind="choice",
    prompt="strategy: {question} Answer (Yes or No):",
    answers=("Yes", "No"),
    hubs=tuple(Hub("ChilleD/StrategyQA", None, split) for split in ("train", "test")),
    forms=(Form(("train.json", "dev.json"), table),),
    columns={"question": ("question",), "answer": ("answer",), "facts": ("facts",)},
    draft=_closed_book,
    sides={**SIDES, "dev": "test"},
)
WITH_FACTS = WrittenQuestions(
    name="strategyqa_facts",
    kind="choice",
    prompt="strategy: Facts: {facts} Question: {question} Answer (Yes or No):",
    answers=CLOSED_BOOK.answers,
    hubs=CLOSED_BOOK.hubs,
    forms=CLOSED_BOOK.forms,
    columns=CLOSED_BOOK.columns,
    draft=_with_facts,
    sides=CLOSED_BOOK.sides,
    aliases=("strategyqa",),
)
