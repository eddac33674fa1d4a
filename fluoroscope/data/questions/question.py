"""One question with the text that answers it. Free of torch."""

from dataclasses import dataclass
from typing import Literal

from fluoroscope.core.errors import CorpusError
from fluoroscope.data.corpus_config import Split
from fluoroscope.data.documents import text_id

Kind = Literal["choice", "number", "text"]
"""What an answer is compared as: one of a few known answers, a number, or words."""

_MOST_SAID = 60


@dataclass(frozen=True, slots=True)
class Question:
    id: str
    """Of the set and the texts alone, whatever the order of rows."""

    group_id: str
    """Questions of one group are on one side."""

    split: Split
    source: str
    """What is read, with the prefix of its task."""

    target: str
    """What is to be written."""

    choices: tuple[str, ...] | None = None
    """All answers that there are, the target among them, where these are known."""

    depth: int | None = None
    """Steps that the answer takes, where it was made so or a table says it."""

    hops: tuple[str, ...] = ()
    """What is known after each of the steps, the target last."""

    def __post_init__(self) -> None:
        for name in ("id", "group_id", "source", "target"):
            if not getattr(self, name).strip():
                raise CorpusError(f"A question needs text as its {name}, got {self!r:.200}.")
        said = f"The question {self.id!r} ({self.source[:_MOST_SAID]!r}...)"
        if self.choices is not None and self.target not in self.choices:
            raise CorpusError(
                f"{said} has the answer {self.target!r}, which is none of "
                f"{', '.join(self.choices)}."
            )
        if self.hops and (self.hops[-1] != self.target or len(self.hops) != self.depth):
            raise CorpusError(
                f"{said} has the hops {self.hops}; they must be {self.depth}, as its depth is, and "
                f"end with its answer {self.target!r}."
            )


def question_id(name: str, source: str, depth: int | None = None) -> str:
    """The same from whichever file. A source that does not say how deep it is meant has an id for
    every depth.
    """
    texts = source if depth is None else f"{source}\0{depth}"
    return f"{name}-{text_id(texts)}"
