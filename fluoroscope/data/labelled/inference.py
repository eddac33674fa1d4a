"""Entailment: does a first sentence imply a second, contradict it, or neither?

`SNLI` (Bowman et al. 2015, arXiv:1508.05326). `MNLI` (Williams et al. 2018, arXiv:1704.05426):
its test labels are not public, so both of its validation sides, `matched` and `mismatched`, are
parts of the test side; PiFi tests on the second alone and takes the last 9,832 rows to train on as
its validation side. `SNLI_CAD` (Kaushik et al. 2020, arXiv:1909.12434): 1,666, 200 and 400 pairs
of SNLI; people edited those of the test side in one of their sentences until another label was
true, which are the part `edited`. Pairs edited from its validation side are not read: a model
chosen by them would know of the edits.

Pairs with one first sentence are a group. Those that people did not agree on are left out.
"""

from fluoroscope.data.labelled.lines import headed
from fluoroscope.data.labelled.splitting import PaperSides
from fluoroscope.data.labelled.written import SIDES, Form, WrittenSet
from fluoroscope.data.rows import Hub

_CLASSES = ("entailment", "neutral", "contradiction")
_COLUMNS = {
    "text": ("premise", "sentence1"),
    "pair": ("hypothesis", "sentence2"),
    "label": ("gold_label", "label"),
}
_NO_GOLD = "people did not agree on its label"
_UNLABELLED = {"-": _NO_GOLD, "-1": _NO_GOLD}

SNLI = WrittenSet(
    name="snli",
    task="entailment",
    classes=_CLASSES,
    hubs=tuple(Hub("stanfordnlp/snli", None, side) for side in ("train", "validation", "test")),
    forms=(
        Form(("snli_1.0_train.txt", "snli_1.0_dev.txt", "snli_1.0_test.txt"), headed()),
        Form(("train.tsv", "dev.tsv", "test.tsv"), headed()),
    ),
    columns=_COLUMNS,
    unlabelled=_UNLABELLED,
)
MNLI = WrittenSet(
    name="mnli",
    task="entailment",
    classes=_CLASSES,
    hubs=tuple(
        Hub("nyu-mll/glue", "mnli", side)
        for side in ("train", "validation_matched", "validation_mismatched")
    ),
    forms=(
        Form(("train.tsv", "dev_matched.tsv", "dev_mismatched.tsv"), headed()),
        Form(
            (
                "multinli_1.0_train.txt",
                "multinli_1.0_dev_matched.txt",
                "multinli_1.0_dev_mismatched.txt",
            ),
            headed(),
        ),
    ),
    columns=_COLUMNS,
    unlabelled=_UNLABELLED,
    sides={**SIDES, "dev": "test", "validation": "test"},
    parts={"matched": "matched", "mismatched": "mismatched"},
    paper=PaperSides(n_last=9832, test_parts=("mismatched",)),
)
SNLI_CAD = WrittenSet(
    name="snli_cad",
    task="entailment",
    classes=_CLASSES,
    hubs=(),
    forms=(
        Form(("orig_train.tsv", "orig_dev.tsv", "orig_test.tsv", "revised_test.tsv"), headed()),
    ),
    columns=_COLUMNS,
    unlabelled=_UNLABELLED,
    parts={"orig": "original", "revised": "edited"},
)
