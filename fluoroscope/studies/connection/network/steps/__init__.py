"""What a step of thought does with what slots hear: one file a form."""

from typing import TYPE_CHECKING

from fluoroscope.core.registry import Registry

if TYPE_CHECKING:
    from fluoroscope.studies.connection.network.steps.base import Step

_HOME = "fluoroscope.studies.connection.network.steps"

STEPS: "Registry[type[Step]]" = Registry(
    "step",
    {
        "relu_norm": f"{_HOME}.relu_norm:ReluNorm",
        "gated": f"{_HOME}.gated:Gated",
    },
)
