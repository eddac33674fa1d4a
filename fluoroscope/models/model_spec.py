"""Which model, as a user says it; this module is free of torch."""

from typing import Literal

from fluoroscope.core.config import Config


class ModelSpec(Config):
    """A bare text is the `source`: `model=gpt2` goes together with `model.dtype=bfloat16`."""

    bare = "source"

    source: str
    """A folder with a Hugging Face model, or a hub id."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the forward pass."""

    revision: str | None = None
    """Revision of a hub model."""
