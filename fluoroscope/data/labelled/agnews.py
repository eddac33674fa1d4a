"""AG News (Zhang et al. 2015, arXiv:1509.01626): titles and first lines of news, of four topics.

Files: `train.csv` and `test.csv` without a header, `CLASS,TITLE,DESCRIPTION` with classes from 1.
Title and description are one text with a space between, as on the hub.
"""

from collections.abc import Iterator
from pathlib import Path

from fluoroscope.data.labelled.lines import Values, columns_of
from fluoroscope.data.labelled.written import Form, WrittenSet
from fluoroscope.data.rows import Hub

_CLASSES = ("world", "sports", "business", "sci/tech")
_COLUMNS = columns_of("label", "title", "description", separator=",", has_quotes=True)


def _joined(file: Path) -> Iterator[Values]:
    for row in _COLUMNS(file):
        yield {"label": row["label"], "text": f"{row['title']} {row['description']}"}


AGNEWS = WrittenSet(
    name="agnews",
    classes=_CLASSES,
    hubs=(Hub("fancyzhx/ag_news", None, "train"), Hub("fancyzhx/ag_news", None, "test")),
    forms=(
        Form(
            ("train.csv", "test.csv"),
            _joined,
            {str(number): name for number, name in enumerate(_CLASSES, start=1)},
        ),
    ),
    aliases=("ag_news",),
)
