"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168): school arithmetic in words.

Source `solve: <question>`, target the number after `####` alone: without commas, and without a
decimal part where it has none. Files and hub as the task of the same name has them; it has no
validation part. A question is a group.
"""

from fractions import Fraction

from fluoroscope.data.labelled.example import group_of
from fluoroscope.data.labelled.lines import table
from fluoroscope.data.labelled.written import Form
from fluoroscope.data.questions.written import Draft, WrittenQuestions
from fluoroscope.data.rows import Row, UnusableRowError
from fluoroscope.data.tasks import gsm8k
from fluoroscope.data.tasks.scorers import read_number


def plain_number(number: Fraction) -> str:
    """`Fraction(1080)` -> `1080`, `Fraction(1, 2)` -> `0.5`."""
    return str(number.numerator) if number.denominator == 1 else f"{float(number):.10g}"


def _draft(row: Row) -> Draft:
    question, key = gsm8k.solved(row)
    number = read_number(key)
    if number is None:
        raise UnusableRowError("it has no answer key: no number after ####")
    return Draft(f"solve: {question}", plain_number(number), group_of(question))


GSM8K = WrittenQuestions(
    name="gsm8k",
    kind="number",
    prompt="solve: {question}",
    hubs=gsm8k.GSM8K.hubs,
    # Not those with questions of a tutor, train_socratic.jsonl and test_socratic.jsonl.
    forms=(Form(("train.jsonl", "test.jsonl"), table),),
    columns=gsm8k.GSM8K.columns,
    draft=_draft,
)
