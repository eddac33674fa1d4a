"""How slots become an answer: one file a form."""

from typing import TYPE_CHECKING

from fluoroscope.core.registry import Registry

if TYPE_CHECKING:
    from fluoroscope.studies.connection.network.outputs.base import SlotOutput

_HOME = "fluoroscope.studies.connection.network.outputs"

OUTPUTS: "Registry[type[SlotOutput]]" = Registry(
    "output",
    {
        "slots_to_sequence": f"{_HOME}.slots_to_sequence:SlotsToSequence",
        "decoder": f"{_HOME}.decoder:Decoder",
    },
)
