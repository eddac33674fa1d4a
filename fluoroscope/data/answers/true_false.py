"""True and false statements by topic (SAPLMA: Azaria and Mitchell 2023, arXiv:2304.13734).

Files: `statement,label` with 1 for true, one csv a topic (`cities_true_false.csv` is of the topic
"cities"), or one file with a column `topic`; on the hub `notrichardren/azaria-mitchell`. A
statement answers nothing, so its prompt is empty. The topic is the group: a detector is judged on
topics that it has not seen (`leave_one_group_out`).
"""

from collections.abc import Iterator

from fluoroscope.data.answers.record import AnswerRecord, stated_answer
from fluoroscope.data.answers.sets import FileSource
from fluoroscope.data.rows import Hub, Row, UnusableRowError

# Ours is the other way round: 1 is made up.
_MADE_UP = {"1": 0, "1.0": 0, "true": 0, "0": 1, "0.0": 1, "false": 1}


def _statements(row: Row) -> Iterator[AnswerRecord]:
    statement, label = row.text("statement"), str(row.value("label")).strip().lower()
    if label not in _MADE_UP:
        raise UnusableRowError("'label' is neither 1 (true) nor 0 (false)")
    topic = row.text("topic") if row.has("topic") else row.stem.removesuffix("_true_false")
    yield stated_answer("true-false", topic, "", statement, _MADE_UP[label], category=topic)


TRUE_FALSE = FileSource(
    "true-false",
    group="topic",
    prompt="",
    hub=Hub("notrichardren/azaria-mitchell", None, "combined"),
    files=("*_true_false.csv", "*.csv"),
    columns={
        "statement": ("statement", "claim"),
        "label": ("label",),
        "topic": ("topic", "dataset"),
    },
    items=_statements,
)
