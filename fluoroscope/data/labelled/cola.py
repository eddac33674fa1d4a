"""CoLA (Warstadt et al. 2019, arXiv:1805.12471): is a sentence acceptable English?

GLUE keeps the labels of its test side, so its 1,043 validation sentences are the test side here,
as in PiFi, and the validation side is drawn from the 8,551 for training. Files: `train.tsv`,
`val.tsv` (a part of GLUE's training side that some releases have apart) and `dev.tsv`, each
`source TAB label TAB star TAB sentence`; `test.tsv`, which has no labels, is not read.
"""

from collections.abc import Mapping

from fluoroscope.data.corpus_config import Split
from fluoroscope.data.labelled.lines import columns_of
from fluoroscope.data.labelled.written import Form, WrittenSet
from fluoroscope.data.rows import Hub

_SIDES: Mapping[str, Split] = {
    "train": "train",
    "val": "train",
    "dev": "test",
    "validation": "test",
}

COLA = WrittenSet(
    name="cola",
    classes=("unacceptable", "acceptable"),
    hubs=tuple(Hub("nyu-mll/glue", "cola", split) for split in ("train", "validation")),
    forms=(
        Form(
            ("train.tsv", "val.tsv", "dev.tsv"),
            columns_of("source", "label", "star", "text"),
        ),
    ),
    unlabelled={"-1": "its label is not public"},
    sides=_SIDES,
)
