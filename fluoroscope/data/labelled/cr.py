"""CR (Hu & Liu 2004): sentences of customers' reviews, positive or negative.

File: `custrev.all`, `LABEL sentence` a line, with no sides of its own.
"""

from fluoroscope.data.labelled.lines import label_first
from fluoroscope.data.labelled.written import Form, WrittenSet
from fluoroscope.data.rows import Hub

CR = WrittenSet(
    name="cr",
    classes=("negative", "positive"),
    hubs=(Hub("SetFit/SentEval-CR", None, "train"), Hub("SetFit/SentEval-CR", None, "test")),
    forms=(Form(("custrev.all",), label_first()),),
)
