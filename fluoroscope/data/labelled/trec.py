"""TREC questions (Li & Roth 2002): what kind of thing does a question ask for? Six kinds.

Files: `COARSE:fine question` a line (`TREC.train`, `TREC.test`, or `train_5500.label`,
`TREC_10.label` of the first release), or `NUMBER question` (`TREC.train.all`, `TREC.test.all`),
whose numbers are not the hub's.
"""

from collections.abc import Iterator
from pathlib import Path

from fluoroscope.data.labelled.lines import Values, label_first
from fluoroscope.data.labelled.written import COLUMNS, SIDES, Form, WrittenSet
from fluoroscope.data.rows import Hub

_KINDS = {
    "abbr": "abbreviation",
    "enty": "entity",
    "desc": "description",
    "hum": "human",
    "loc": "location",
    "num": "number",
}
_NUMBERED = ("desc", "enty", "abbr", "hum", "loc", "num")


def _raw(file: Path) -> Iterator[Values]:
    for row in label_first()(file):
        yield {**row, "label": row["label"].partition(":")[0]}


TREC = WrittenSet(
    name="trec",
    classes=tuple(_KINDS.values()),
    hubs=(Hub("CogComp/trec", None, "train"), Hub("CogComp/trec", None, "test")),
    forms=(
        Form(("TREC.train", "TREC.test"), _raw, _KINDS),
        Form(("train_5500.label", "TREC_10.label"), _raw, _KINDS),
        Form(
            ("TREC.train.all", "TREC.test.all"),
            label_first(),
            {str(number): _KINDS[kind] for number, kind in enumerate(_NUMBERED)},
        ),
    ),
    columns={**COLUMNS, "label": ("coarse_label", "label-coarse", "label")},
    sides={**SIDES, "10": "test"},
)
