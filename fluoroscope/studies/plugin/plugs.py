"""What stands between the encoder's vector and the head (Kim et al. 2025, arXiv:2506.07424).

    u = L_in p    z = layer(u)    g = L_out z

`L_in` and `L_out` are linear maps without bias, up to the width of the layer and down again. A
residual form gives `p + gate * g` with a gate that starts at 0 (Bachlechner et al. 2020), so that
training begins as the classifier without a plug. Controls put nothing, or a GELU, in the layer's
place, and have the same maps.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.studies.plugin.form import Form

Vectors = Float[Tensor, "*batch d_model"]
Mask = Int64[Tensor, "batch pos"]


class Plug(nn.Module):
    """`into`, a middle, `out_of`; only the middle differs between forms."""

    def __init__(
        self, form: Form, d_model: int, d_layer: int, seed: int, middle: nn.Module
    ) -> None:
        super().__init__()
        self.form = form
        self.into = new_linear(d_model, d_layer, seed, "into", has_bias=False)
        self.middle = middle
        self.out_of = new_linear(d_layer, d_model, seed, "out_of", has_bias=False)
        self.gate = nn.Parameter(torch.zeros(())) if form.is_residual else None

    def forward(self, p: Vectors, mask: Mask | None = None) -> Vectors:
        """Vectors in the place of those given; `mask` is of the tokens, where they are a sequence."""
        g = self.out_of(self.middle(self.into(p)))
        return g if self.gate is None else p + self.gate * g


def new_linear(d_in: int, d_out: int, seed: int, name: str, *, has_bias: bool = True) -> nn.Linear:
    """A linear map as PyTorch initialises one, U(-1, 1)/sqrt(d_in), from the stream `name`."""
    linear = nn.utils.skip_init(nn.Linear, d_in, d_out, bias=has_bias)
    stream = torch_stream(seed, "plugin", name)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.uniform_(-(d_in**-0.5), d_in**-0.5, generator=stream)
    return linear
