"""What a user says of the anatomy study; this module is free of torch."""

from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from fluoroscope.steps.subject_spec import SubjectSpec
from fluoroscope.studies.anatomy.settings import AnatomySettings


class AnatomySpec(AnatomySettings, SubjectSpec):
    """`fluoro run anatomy`: what SAE activations look like, layer by layer and position by
    position, what becomes of them without position information, and which features SAEs share.
    """

    @model_validator(mode="before")
    @classmethod
    def _trains_on_what_is_read(cls, value: Any) -> Any:  # Any: pydantic's raw input.
        # Without SAEs some are trained, on the corpus that is looked at if no other is named.
        if not isinstance(value, Mapping) or "corpus" not in value:
            return value
        train = value.get("train")
        saes = value.get("saes")
        source = saes.get("source") if isinstance(saes, Mapping) else saes
        if train is None and source is None:
            train = {}
        if isinstance(train, Mapping) and "corpus" not in train:
            return {**value, "train": {**train, "corpus": value["corpus"]}}
        return value
