"""Arms: what is trained beside what; each a form of the plugged-in part. Free of torch.

A form says what stands between the encoder's vector and the head. Controls are the form of the
main arm with one thing taken out of it, so that what is left says what that thing was worth.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Middle = Literal["layer", "random", "permuted", "linear", "mlp"]
Tuning = Literal["frozen", "lora", "unfrozen"]
Variant = Literal["faithful", "residual", "rms", "sequence", "lora", "unfrozen"]
Control = Literal["random_layer", "permuted_layer", "linear", "mlp"]
BASE = "base"


@dataclass(frozen=True, kw_only=True)
class Form:
    """`logits = head(p)`, with `p` replaced by what passed through the middle."""

    middle: Middle = "layer"
    """`layer`: of the large model; `random`: random entries of the same size; `permuted`: its own
    entries, rows and columns exchanged; `linear`: nothing between the two maps; `mlp`: a GELU."""

    reads: Literal["token", "sequence"] = "token"
    """Whether the layer reads the pooled vector, or every token before pooling."""

    is_residual: bool = False
    """Whether its output is added to `p` through a gate that starts at 0."""

    is_rms_matched: bool = False
    """Whether vectors enter the layer with the root mean square of what it reads at home."""

    tuning: Tuning = "frozen"
    """Whether the layer itself learns: not at all, low-rank changes, or all of it."""

    @property
    def has_layer(self) -> bool:
        return self.middle in ("layer", "random", "permuted")


VARIANTS: Mapping[Variant, Form] = {
    "faithful": Form(),
    "residual": Form(is_residual=True),
    "rms": Form(is_rms_matched=True),
    "sequence": Form(reads="sequence"),
    "lora": Form(tuning="lora"),
    "unfrozen": Form(tuning="unfrozen"),
}
CONTROLS: Mapping[Control, Middle] = {
    "random_layer": "random",
    "permuted_layer": "permuted",
    "linear": "linear",
    "mlp": "mlp",
}


def middle_layer(n_layers: int) -> int:
    """What is taken unseen, beside the last layer; the later of two."""
    return n_layers // 2


def control_of(form: Form, control: Control) -> Form:
    """The same form around another middle; where no layer is left, nothing is matched or tuned."""
    changed = replace(form, middle=CONTROLS[control])
    return changed if changed.has_layer else replace(changed, is_rms_matched=False, tuning="frozen")
