"""Which model, as a user says it; this module is free of torch."""

from typing import Any, Literal

from pydantic import model_validator

from fluoroscope.core.config import Config


class ModelSpec(Config):
    """A bare text is the `source`: `model=gpt2` goes together with `model.dtype=bfloat16`."""

    source: str
    """A folder with a Hugging Face model, or a hub id."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the forward pass."""

    revision: str | None = None
    """Revision of a hub model."""

    @model_validator(mode="before")
    @classmethod
    def _text_is_a_source(cls, value: Any) -> Any:  # Any: pydantic's raw input.
        return {"source": value} if isinstance(value, str) else value
