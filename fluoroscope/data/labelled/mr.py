"""MR (Pang & Lee 2005): sentences of film reviews, positive or negative.

Files: `rt-polarity.all`, `LABEL sentence` a line, with no sides of its own; or `train.csv` and
`test.csv` without a header, `LABEL,sentence`, as PiFi has it.
"""

from fluoroscope.data.labelled.lines import columns_of, label_first
from fluoroscope.data.labelled.written import Form, WrittenSet
from fluoroscope.data.rows import Hub

_HUB = "cornell-movie-review-data/rotten_tomatoes"

MR = WrittenSet(
    name="mr",
    classes=("negative", "positive"),
    hubs=tuple(Hub(_HUB, None, split) for split in ("train", "validation", "test")),
    forms=(
        Form(("rt-polarity.all",), label_first()),
        Form(
            ("train.csv", "test.csv"),
            columns_of("label", "text", separator=",", has_quotes=True),
        ),
    ),
    aliases=("MR",),
)
