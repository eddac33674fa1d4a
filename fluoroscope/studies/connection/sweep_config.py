"""The four phases of the plan, each of which hands its winner to the next; free of torch."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from fluoroscope.core.config import Config
from fluoroscope.data.questions.names import canonical_name

Phase = Literal["phase1", "phase2", "phase3", "phase4", "final"]
PHASES: tuple[Phase, ...] = ("phase1", "phase2", "phase3", "phase4", "final")


class SweepConfig(Config):
    """Phases in place of `arms`; the plan's numbers are the defaults."""

    is_on: bool = False
    """Whether this run is a sweep, phase after phase (`fluoro sweep connection`)."""

    ratios: list[PositiveFloat] = Field(default_factory=lambda: [0.25, 0.5, 1, 2])
    """Phase 2: slots by width, N / D."""

    ranks: list[PositiveInt] = Field(default_factory=lambda: [8, 16, 32, 64])
    """Phase 3."""

    thresholds: list[PositiveFloat] = Field(default_factory=lambda: [0.001, 0.01, 0.1])
    """Phase 4: of updates, as the plan has them."""

    changes: list[PositiveFloat] = Field(default_factory=lambda: [0.3, 0.1, 0.03, 0.01])
    """Phase 4: of the relative change of a text's states, which does fall."""

    fixed_steps: PositiveInt = 4
    """Phase 4: what never stops early."""

    final_sets: list[Annotated[str, AfterValidator(canonical_name)]] = Field(default_factory=list)
    """Question sets that only the winner of all phases is trained on, beside those of `data`."""

    largest_gib: PositiveFloat | None = None
    """Arms that need more memory than this are left out, and the report says so; null tries all."""
