"""Subj (Pang & Lee 2004): sentences of reviews and of plots, subjective or objective.

File: `subj.all`, `LABEL sentence` a line, where 0 is subjective; the hub has it the other way.
"""

from fluoroscope.data.labelled.lines import label_first
from fluoroscope.data.labelled.written import Form, WrittenSet
from fluoroscope.data.rows import Hub

SUBJ = WrittenSet(
    name="subj",
    classes=("objective", "subjective"),
    hubs=(Hub("SetFit/subj", None, "train"), Hub("SetFit/subj", None, "test")),
    forms=(Form(("subj.all",), label_first(), {"0": "subjective", "1": "objective"}),),
)
