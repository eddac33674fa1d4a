"""In which precision a training passes through its network; free of torch until it is decided."""

from typing import Literal

from fluoroscope.core.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Decided = Literal["float32", "bfloat16", "float16"]

MIXED: dict[Decided, str] = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""As accelerate calls them."""


def decided(precision: Precision) -> Decided:
    """Refuses `auto`, which `decide` should have been asked about before."""
    if precision == "auto":
        raise ConfigError(
            "Precision must be float32, bfloat16 or float16 by now, got auto, which is decided "
            "where the device is known."
        )
    return precision


def decide(precision: Precision) -> Decided:
    """`auto` is bfloat16 where there is a GPU that has it, else float32."""
    if precision != "auto":
        return precision
    import torch

    has_half = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bfloat16" if has_half else "float32"
