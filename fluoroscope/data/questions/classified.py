"""Labelled sets whose label is written: SST-2, a simple task beside those of reasoning, and MNLI.

Texts, labels, files and hub are those of `data/labelled`. SST-2 is that of whole sentences (6,920
to train on), not GLUE's 67,349 phrases. MNLI's matched part is the validation side and its
mismatched part the test side, as its own test labels are not public.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fluoroscope.data.corpus_config import Split
from fluoroscope.data.labelled.base import LabelledSet, labelled_set
from fluoroscope.data.labelled.example import Example
from fluoroscope.data.questions.base import SEED, GatheredQuestions, QuestionSet
from fluoroscope.data.questions.question import Kind
from fluoroscope.data.questions.sides import FoundQuestion
from fluoroscope.data.questions.written import Draft, drafted, gathered
from fluoroscope.data.rows import Hub


@dataclass(frozen=True, kw_only=True)
class ClassifiedSet(QuestionSet):
    """The labelled set of the same name, in writing."""

    name: str
    prompt: str
    """`{text}` and `{pair}` stand for the texts."""

    parts: Mapping[str, Split] = field(default_factory=dict)
    """Part of the labelled set's test side -> our side, where that is another."""

    kind: Kind = "choice"

    @property
    def labelled(self) -> LabelledSet:
        return labelled_set(self.name)

    @property
    def choices(self) -> tuple[str, ...]:
        return self.labelled.classes

    @property
    def hub(self) -> Hub | None:
        hub_id = self.labelled.hub_id
        return Hub(hub_id, None, "") if hub_id else None

    def read(self, place: Path | str | None = None, *, seed: int = SEED) -> GatheredQuestions:
        read = self.labelled.read(place, seed=seed)
        found: list[FoundQuestion] = []
        for one in read.items:
            # What was drawn of a training side goes back to it, as sides are drawn here.
            own: Split = "train" if read.origins[one.split] == "drawn" else one.split
            side = self.parts.get(one.part, own)
            question = drafted(self.name, self._draft(one), side, self.choices)
            found.append(FoundQuestion(one.id, side, question))
        return gathered(
            self.name, str(place), self.kind, self.choices, found, list(read.left_out), seed
        )

    def _draft(self, one: Example) -> Draft:
        source = self.prompt.format(text=one.text, pair=one.pair)
        return Draft(source, self.choices[one.label], one.group_id)


SST2 = ClassifiedSet(name="sst2", prompt="sst2 sentence: {text}")
MNLI = ClassifiedSet(
    name="mnli",
    prompt="infer: Premise: {text} Hypothesis: {pair}",
    parts={"matched": "validation", "mismatched": "test"},
)
