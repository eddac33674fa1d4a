"""IMDB (Maas et al. 2011), and the part of it that people turned round (Kaushik et al. 2020).

`IMDB` is 25,000 film reviews to train on and 25,000 to test on. `IMDB_CAD` (arXiv:1909.12434) has
1,707, 245 and 488 of them, and the 488 of the test side once more, edited by people as little as
turns the verdict: the test side's parts are `original` and `edited`, and a classifier that reads
the verdict itself does as well on both.
"""

from fluoroscope.data.labelled.lines import headed
from fluoroscope.data.labelled.written import Form, WrittenSet
from fluoroscope.data.rows import Hub

IMDB = WrittenSet(
    name="imdb",
    classes=("negative", "positive"),
    hubs=tuple(Hub("stanfordnlp/imdb", "plain_text", split) for split in ("train", "test")),
)
IMDB_CAD = WrittenSet(
    name="imdb_cad",
    classes=("negative", "positive"),
    hubs=(),
    forms=(
        Form(
            ("orig_train.tsv", "orig_dev.tsv", "orig_test.tsv", "new_test.tsv"),
            headed(has_quotes=True),
        ),
    ),
    parts={"orig": "original", "new": "edited"},
)
