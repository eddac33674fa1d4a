"""One labelled text, or pair of texts. Free of torch."""

from dataclasses import dataclass
from typing import Literal

from fluoroscope.data.corpus_config import Split
from fluoroscope.data.documents import text_id

Task = Literal["classification", "entailment"]
"""What a label is of: one text, or what a first text says of a second."""

Splitting = Literal["sound", "paper"]
"""`sound`: no group on two sides, no text twice; `paper`: the sides as PiFi had them."""


@dataclass(frozen=True, slots=True)
class Example:
    id: str
    """Of the set and the texts alone, whatever the order of rows."""

    text: str
    pair: str | None
    """The second text (a hypothesis), where the set has two."""

    label: int
    """Index into the classes of the set."""

    split: Split
    group_id: str
    """What is kept on one side: a text however it is cased and spaced; of pairs, the first."""

    part: str = ""
    """Of the test side, where it has several that are told apart."""


def example_id(name: str, text: str, pair: str | None) -> str:
    texts = text if pair is None else f"{text}\0{pair}"
    return f"{name}-{text_id(texts)}"


def group_of(text: str) -> str:
    """The same however the text is spaced and cased."""
    return text_id(" ".join(text.casefold().split()))
