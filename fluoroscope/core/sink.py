"""Where library code reports to: progress, metrics, messages, checkpoints.

Library code (training loops, evaluations) never prints, logs or writes a run: it calls a
`Sink`. The default does nothing; a run hands in one that writes its event log, a notebook
one that draws a progress bar.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluoroscope.core.tensors import State


class Sink:
    """Does nothing; subclasses override what they care about."""

    def progress(self, done: int, total: int, unit: str = "items") -> None:
        """`done` of `total` `unit` are finished; called often, so overrides must throttle."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers measured at iteration `step`, for curves."""

    def message(self, text: str) -> None:
        """One sentence that a person following the work should see."""

    def checkpoint(self, done: int, make_state: Callable[[], "State"]) -> None:
        """A moment at which work may be saved; `make_state` is called only if it is."""


SILENT = Sink()
