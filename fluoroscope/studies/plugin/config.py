"""A plug-in study as it is worked on: the spec with what only the models know, and its arms."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import PositiveInt

from fluoroscope.models.training.precision import Decided
from fluoroscope.studies.plugin.form import (
    BASE,
    CONTROLS,
    VARIANTS,
    Control,
    Form,
    Variant,
    control_of,
    middle_layer,
)
from fluoroscope.studies.plugin.settings import PluginSettings


@dataclass(frozen=True)
class Arm:
    """One kind of classifier: what is plugged in, and from which layer."""

    name: str
    """`base`, a variant, a control, or `layer` for layers that were not chosen."""

    form: Form | None
    """None is the encoder alone."""

    layer: int | None
    """None where no layer is in it."""

    @property
    def key(self) -> str:
        """Names its folder; equal for arms that are the same classifier."""
        return self.name if self.layer is None else f"{self.name}-{self.layer:02d}"


class PluginConfig(PluginSettings):
    """A `PluginSpec` with everything filled in."""

    d_model: PositiveInt
    """Width of the encoder."""

    encoder_kind: Literal["encoder", "decoder"]

    max_length: PositiveInt
    """Tokens that a text may have: as set, or as the encoder can read."""

    precision: Decided
    """Of the forward pass while training."""

    d_layer: PositiveInt
    """Width of the large model; 1 where none is needed."""

    n_layers: int
    """Of the large model; 0 where none is needed."""

    @property
    def main_form(self) -> Form | None:
        return None if self.mode == "base" else VARIANTS[self.variant]

    @property
    def all_seeds(self) -> list[int]:
        return [self.seed + i for i in range(self.seeds)]

    @property
    def chooses(self) -> bool:
        """Whether layers are scored."""
        return self.mode == "pifi_ilm"

    @property
    def reads_llm(self) -> bool:
        """Whether the whole large model reads texts: to score layers, or for what they read."""
        forms = [arm.form for arm in self.arms(0)]
        return self.chooses or any(form is not None and form.is_rms_matched for form in forms)

    def main_arm(self, layer: int | None) -> Arm:
        form = self.main_form
        return Arm(BASE, None, None) if form is None else Arm(self.variant, form, layer)

    def arms(self, layer: int | None) -> list[Arm]:
        """All that is trained for a data set whose layer is `layer`; the main arm first."""
        found = [self.main_arm(layer)]
        for name in self.beside:
            found += self._beside(name, layer)
        return list({arm.key: arm for arm in found}.values())

    def _beside(self, name: str, layer: int | None) -> Iterator[Arm]:
        if name == BASE:
            yield Arm(BASE, None, None)
        form = self.main_form
        if form is None or layer is None:
            return
        if name in CONTROLS:
            control: Control = name  # pyright: ignore[reportAssignmentType]  # its keys are these
            changed = control_of(form, control)
            yield Arm(name, changed, layer if changed.has_layer else None)
        elif name in VARIANTS:
            variant: Variant = name  # pyright: ignore[reportAssignmentType]  # its keys are these
            yield Arm(name, VARIANTS[variant], layer)
        else:
            last = self.n_layers - 1
            several = {"last": [last], "middle": [middle_layer(self.n_layers)]}
            for one in several.get(name, range(self.n_layers) if name == "every_layer" else ()):
                yield Arm(self.variant, form, one)
