"""When a text has been thought about enough: one file a form, a text decided by itself alone.

The plan's code stops the whole batch together, when the last of its texts is ready: what becomes
of a text, and what it costs, then depends on its batch mates. That is a defect, and not here.
"""

from typing import TYPE_CHECKING

from fluoroscope.core.registry import Registry

if TYPE_CHECKING:
    from fluoroscope.studies.connection.network.halting.base import Halting

_HOME = "fluoroscope.studies.connection.network.halting"

HALTING: "Registry[type[Halting]]" = Registry(
    "halting",
    {
        "fixed": f"{_HOME}.fixed:Fixed",
        "threshold": f"{_HOME}.threshold:Threshold",
        "relative": f"{_HOME}.relative:Relative",
        "learned": f"{_HOME}.learned:Learned",
    },
)
