"""A sweep as it is worked on: prompts, latents, conditions, and the cells that they make.

A cell is one edit of one prompt; every cell has the same trials, and trial t of a prompt draws
its tokens by the same numbers in every cell (common random numbers).
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from pydantic import Field

from fluoroscope.core.config import Config
from fluoroscope.core.seeding import stream
from fluoroscope.steps.sae_sources import SAEChoice
from fluoroscope.steps.sweep_settings import SweepControls, SweepTexts

Kind = Literal["baseline", "set", "scale", "reconstruction", "random latent"]


class SweptSAE(SAEChoice):
    """An SAE whose latents are edited."""

    latents: list[int]
    """Those that are edited, in the order in which they were given."""


class Condition(Config):
    """What every latent is set to, or multiplied with."""

    name: str
    kind: Literal["set", "scale"]
    value: float | None = None
    """The same for all latents; null where each has its own."""

    values: dict[str, list[float]] = Field(default_factory=dict)
    """Hook point -> a value for each of its latents."""

    def value_of(self, hook_point: str, place: int) -> float:
        return self.value if self.value is not None else self.values[hook_point][place]


class Prompt(Config):
    id: str
    text: str
    n_tokens: int
    tokens: list[int] | None = None
    """What the model reads, where that is not the text alone, as in a chat."""


class Cell(NamedTuple):
    """One edit, the same for every prompt."""

    number: int
    kind: Kind
    condition: str
    hook_point: str | None = None
    latent: int | None = None
    value: float | None = None


class SweepConfig(Config):
    """Everything that decides what a sweep finds."""

    saes: list[SweptSAE]
    conditions: list[Condition]
    prompts: list[Prompt]
    positions: str
    texts: SweepTexts
    controls: SweepControls
    seed: int

    def cells(self) -> list[Cell]:
        """The cells of every prompt, always in this order; the first is the baseline."""
        found = [Cell(0, "baseline", "baseline")]
        for kind, condition, point, latent, value in self._edited():
            found.append(Cell(len(found), kind, condition, point, latent, value))
        return found

    def _edited(self) -> Iterator[tuple[Kind, str, str, int | None, float | None]]:
        for sae in self.saes:
            if self.controls.reconstruction:
                yield "reconstruction", "reconstruction", sae.hook_point, None, None
            for condition in self.conditions:
                for place, latent in enumerate(sae.latents):
                    value = condition.value_of(sae.hook_point, place)
                    yield condition.kind, condition.name, sae.hook_point, latent, value
            for condition in self.conditions:
                for place in self._random_places(sae):
                    value = condition.value_of(sae.hook_point, place)
                    latent = sae.latents[place]
                    yield "random latent", condition.name, sae.hook_point, latent, value

    def _random_places(self, sae: SweptSAE) -> list[int]:
        n = min(self.controls.n_random, len(sae.latents))
        chosen = stream(self.seed, "controls", sae.hook_point).permutation(len(sae.latents))[:n]
        return sorted(chosen.tolist())
