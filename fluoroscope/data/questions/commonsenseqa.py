"""CommonsenseQA (Talmor et al. 2019, arXiv:1811.00937): five options to an everyday question.

Source `commonsense: Question: .. Options: A) .. B) .. C) .. D) .. E) ..`, target a letter. Files
and hub as the task of the same name has them: the test part has no answers, so dev is the test
side. A question is a group.
"""

from fluoroscope.data.labelled.example import group_of
from fluoroscope.data.labelled.lines import table
from fluoroscope.data.labelled.written import Form
from fluoroscope.data.questions.written import Draft, WrittenQuestions, lettered_options
from fluoroscope.data.rows import Row, UnusableRowError
from fluoroscope.data.tasks import commonsenseqa
from fluoroscope.data.tasks.prompts import LETTERS

_N_OPTIONS = 5


def _draft(row: Row) -> Draft:
    question, options, right = commonsenseqa.asked(row)
    if len(options) != _N_OPTIONS or not all(options):
        raise UnusableRowError("it has not five options")
    source = f"commonsense: Question: {question} Options: {lettered_options(options)}"
    return Draft(source, LETTERS[right], group_of(question))


COMMONSENSEQA = WrittenQuestions(
    name="commonsenseqa",
    kind="choice",
    prompt="commonsense: Question: {question} Options: A) .. B) .. C) .. D) .. E) ..",
    answers=tuple(LETTERS[:_N_OPTIONS]),
    hubs=commonsenseqa.COMMONSENSEQA.hubs,
    forms=(Form(("train_rand_split.jsonl", "dev_rand_split.jsonl"), table),),
    columns=commonsenseqa.COMMONSENSEQA.columns,
    draft=_draft,
    sides=commonsenseqa.COMMONSENSEQA.own_splits,
)
