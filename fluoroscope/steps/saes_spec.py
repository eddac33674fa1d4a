"""Which SAEs a user names for a study; this module is free of torch."""

from typing import Any

from pydantic import model_validator

from fluoroscope.core.config import Config


class SAEsSpec(Config):
    """Which SAEs; a bare text or list is the `source`."""

    bare = "source"

    source: str | list[str] | None = None
    """A folder with SAEs, a dictionary run, `organism:batch_topk`, a hub id of Llama Scope or
    Gemma Scope, or a list of such; null where a study can do without."""

    hook_points: str | list[str] | None = None
    """Which of them are used: `1-31.resid_post`; all that there are, if not given."""

    @model_validator(mode="before")
    @classmethod
    def _none_names_none(cls, value: Any) -> Any:  # Any: pydantic's raw input.
        return {} if value is None else value
