"""What text a study reads, said in settings; this module is free of torch and of data sets."""

import re
from collections.abc import Callable, Iterator
from typing import Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from fluoroscope.core.config import Config
from fluoroscope.core.registry import Registry

Split = Literal["train", "validation", "test"]
MODEL_SOURCE = "model:"
HUB_PREFIX = "hf:"
GENERATED: Registry[Callable[[], Iterator[str]]] = Registry(
    "Corpus", {"organism:": "fluoroscope.organism.world:corpus"}
)
"""Sources whose documents are made as they are read, without end."""

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class SampledTextConfig(Config):
    """How text is drawn from the model itself, for `source="model:"`."""

    seed: int = 0
    """Document `i` depends on this seed, `i` and the model alone, not on its neighbours."""

    temperature: float = Field(default=1.0, gt=0)
    """Logits are divided by this; 1 samples from the model's own distribution."""

    max_tokens: PositiveInt = 128
    """A document that has not ended by then is cut here."""

    tile: PositiveInt = 128
    """Documents drawn together; part of WHAT, as it decides how floating point rounds."""


class CorpusConfig(Config):
    """Text -> documents -> windows of tokens, split by document; a bare text is a `source`."""

    bare = "source"

    source: str
    """A .txt, .jsonl or .parquet file, a folder of them, `hf:NAME` (a data set on the hub),
    `model:` (text sampled from the model), or `organism:` (text of the organism's world)."""

    text_field: str = "text"
    """The field or column of jsonl, parquet and hub data sets that holds the text."""

    take: str = "all"
    """Which documents: `all`, `first:N`, `last:N`, or `hash:FRACTION` (chosen by text)."""

    held_out: float = Field(default=0.1, ge=0, lt=1)
    """Share of documents kept from training: one half is validation, the other test. Chosen by
    a hash of the text, so that equal documents fall on the same side."""

    context: int = Field(default=128, ge=2)
    """Tokens in a window."""

    pack: bool = True
    """Whether a window runs on into the next document. If not, a window holds one document, or a
    piece of it, and padding: for prompts, which a model is to read from their first token on."""

    bos: Literal["auto", "always", "never"] = "auto"
    """Whether each document and each window starts with the model's first token; `auto` does
    as the tokenizer does by itself."""

    split_documents_on: str = "auto"
    """Where a plain text file is cut: `line`, `blank_line`, `single_newline` (blank lines are
    paragraphs within a document), `file`, or any other text, which is then the separator.
    `auto` looks at the first MiB: `<|endoftext|>` if there is one; `line` if no line is blank;
    `single_newline` if lines are whole paragraphs (median above 100 characters); otherwise
    `blank_line`."""

    hub_subset: str | None = None
    """The configuration of a hub data set that has several."""

    hub_split: str = "train"
    """The split of a hub data set to read; ours are made from it."""

    sampled: SampledTextConfig = SampledTextConfig()
    """Used by `source="model:"` alone."""

    @field_validator("take")
    @classmethod
    def _take_is_known(cls, value: str) -> str:
        parse_take(value)
        return value

    @model_validator(mode="after")
    def _what_is_taken_can_be_told(self) -> "CorpusConfig":
        has_no_end = self.source == MODEL_SOURCE or self.source in GENERATED
        if has_no_end and parse_take(self.take)[0] in ("last", "hash"):
            raise ValueError(f"take={self.take} needs a corpus that ends; use first:N or all.")
        return self

    @field_validator("split_documents_on")
    @classmethod
    def _separator_is_text(cls, value: str) -> str:
        if not value:
            raise ValueError("give a rule or a separator; an empty text separates nothing.")
        return value


def parse_take(take: str) -> tuple[Literal["all", "first", "last", "hash"], float]:
    """`first:100` -> ("first", 100); `all` counts as ("all", 1)."""
    if take == "all":
        return "all", 1.0
    number = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?"
    match = re.fullmatch(rf"(first|last|hash):({number})", take)
    if match is None:
        raise ValueError("must be `all`, `first:N`, `last:N` or `hash:FRACTION`.")
    amount = float(match[2])
    if match[1] == "hash" and not 0 < amount <= 1:
        raise ValueError("hash:FRACTION takes a share above 0 and at most 1.")
    if match[1] != "hash" and (amount < 1 or not amount.is_integer()):
        raise ValueError(f"{match[1]}:N takes a whole number of documents, at least 1.")
    match match[1]:
        case "first":
            return "first", amount
        case "last":
            return "last", amount
        case _:
            return "hash", amount
