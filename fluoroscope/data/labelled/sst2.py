"""SST-2 (Socher et al. 2013): sentences of film reviews, positive or negative.

The 6,920, 872 and 1,821 whole sentences of the treebank, as PiFi takes them, and not the 67,349
phrases of GLUE. Files: `train.tsv`, `dev.tsv`, `test.tsv`, each `sentence TAB label`.
"""

from fluoroscope.data.labelled.lines import columns_of
from fluoroscope.data.labelled.written import Form, WrittenSet
from fluoroscope.data.rows import Hub

SST2 = WrittenSet(
    name="sst2",
    classes=("negative", "positive"),
    hubs=tuple(Hub("SetFit/sst2", None, split) for split in ("train", "validation", "test")),
    forms=(Form(("train.tsv", "dev.tsv", "test.tsv"), columns_of("text", "label")),),
)
