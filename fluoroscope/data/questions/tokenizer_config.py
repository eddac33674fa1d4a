"""Which tokens questions are read and written in; this module is free of torch."""

from typing import Literal

from pydantic import PositiveInt

from fluoroscope.core.config import Config

TRAINED = "trained"


class TokenizerConfig(Config):
    """Trained here on the training side, or somebody else's; a bare text is a `source`."""

    bare = "source"

    source: str = TRAINED
    """`trained`, a hub id (`google-t5/t5-base`), or the folder of a tokenizer."""

    revision: str | None = None
    """Of a hub id; null is the newest."""

    kind: Literal["auto", "bpe", "words"] = "auto"
    """`trained`: parts of words by frequency (byte-level BPE), or whole words and signs; `auto` is
    words for sets that are made, which have few, and BPE for all others."""

    vocab_size: PositiveInt = 8000
    """`trained`: tokens at most, with the three special ones."""
