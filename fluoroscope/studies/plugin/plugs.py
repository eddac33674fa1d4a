"""What stands between the encoder's vector and the head (Kim et al. 2025, arXiv:2506.07424).

    u = L_in p    z = layer(u)    g = L_out z

`L_in` and `L_out` are linear maps without bias, up to the width of the layer and down again. A
residual form gives `p + gate * g` with a gate that starts at 0 (Bachlechner et al. 2020), so that
training begins as the classifier without a plug. Controls put nothing, or a GELU, in the layer's
place, and have the same maps.
"""

from copy import deepcopy

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import derive_seed, torch_stream
from fluoroscope.models.identity import hash_tensors
from fluoroscope.models.single_layer.layer_tensors import LayerIdentity, LayerTensors
from fluoroscope.studies.plugin.form import Form

Vectors = Float[Tensor, "*batch d_model"]
Mask = Int64[Tensor, "batch pos"]

LORA_RANK = 8
LORA_ALPHA = 16


def make_plug(
    form: Form,
    d_model: int,
    layer: LayerTensors | None,
    d_layer: int,
    seed: int,
    target_rms: float | None,
) -> "Plug":
    """A plug from an encoder's width `d_model` through `d_layer` and back, to be trained.

    `layer` is the pretrained one, also for forms around a stand-in, which is made of it here with
    `seed`; it is left as it is. `target_rms` is of the vectors an RMS-matched layer is to read.
    """
    if not form.has_layer:
        between = nn.GELU() if form.middle == "mlp" else nn.Identity()
        return Plug(form, d_model, d_layer, seed, _Bottleneck(between))
    if layer is None:
        raise ConfigError(f"A plug with middle={form.middle} needs the tensors of a layer.")
    if layer.d_model != d_layer:
        raise ConfigError(
            f"The layer reads vectors of {layer.d_model} entries, not d_layer={d_layer}."
        )
    if form.is_rms_matched and not (target_rms or 0) > 0:
        raise ConfigError(
            f"An RMS-matched plug needs target_rms above 0, the root mean square of what the layer "
            f"reads in its own model; got {target_rms}."
        )
    tensors = _stand_in(form, layer, derive_seed(seed, "plugin", "stand-in"))
    middle = LayerMiddle(form, _built(form, tensors), target_rms)
    if form.tuning == "lora":
        add_low_rank(middle.layer, seed)
    return Plug(form, d_model, d_layer, seed, middle, tensors.identity)


class Plug(nn.Module):
    """`into`, a middle and `out_of`; made by `make_plug`."""

    def __init__(
        self,
        form: Form,
        d_model: int,
        d_layer: int,
        seed: int,
        middle: nn.Module,
        identity: LayerIdentity | None = None,
    ) -> None:
        super().__init__()
        self.form = form
        self.identity = identity
        """Of the layer that is inside, be it a stand-in; None where there is none."""

        self.into = new_linear(d_model, d_layer, seed, "into", has_bias=False)
        self.middle = middle
        self.out_of = new_linear(d_layer, d_model, seed, "out_of", has_bias=False)
        self.gate = nn.Parameter(torch.zeros(())) if form.is_residual else None

    def forward(self, p: Vectors, mask: Mask | None = None) -> Vectors:
        """What is read instead of `p`; a form that reads sequences needs the mask of the tokens."""
        g = self.out_of(self.middle(self.into(p), mask))
        return g if self.gate is None else p + self.gate * g

    def frozen_tensors(self) -> dict[str, Tensor]:
        """The tensors of the layer that do not learn, by name; empty where there are none."""
        if not isinstance(self.middle, LayerMiddle):
            return {}
        state = self.middle.layer.state_dict(keep_vars=True)
        return {name: tensor for name, tensor in state.items() if not tensor.requires_grad}

    def frozen_hash(self) -> str | None:
        """A hash of `frozen_tensors`, which training leaves as it is; None where there are none."""
        frozen = self.frozen_tensors()
        return hash_tensors(frozen) if frozen else None


class LayerMiddle(nn.Module):
    """A layer, and what it is given: vectors in float32 at least, perhaps of its own scale."""

    def __init__(self, form: Form, layer: nn.Module, target_rms: float | None) -> None:
        super().__init__()
        self.form = form
        self.layer = layer
        self.target_rms = target_rms if form.is_rms_matched else None

    def forward(self, u: Vectors, mask: Mask | None) -> Vectors:
        # What a layer adds to its input is small beside it, and lost in bfloat16.
        x = u.to(torch.promote_types(u.dtype, torch.float32))
        x = x if self.target_rms is None else rms_matched(x, self.target_rms)
        z = self.layer(x) if self.form.reads == "token" else self.layer(x, mask)
        return z.to(u.dtype)


class _Bottleneck(nn.Module):
    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.between = between

    def forward(self, u: Vectors, mask: Mask | None) -> Vectors:
        return self.between(u)


def rms_matched(u: Vectors, target_rms: float) -> Vectors:
    """`u * target_rms / rms(u)`, vector by vector; a vector of zeros stays one."""
    mean_square = u.square().mean(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return u * (target_rms * mean_square.rsqrt())


def new_linear(d_in: int, d_out: int, seed: int, name: str, *, has_bias: bool = True) -> nn.Linear:
    """A linear map as PyTorch initialises one, U(-1, 1)/sqrt(d_in), from the stream `name`."""
    # Without its own initialisation, which would draw from the global generator.
    linear = nn.Linear(d_in, d_out, bias=has_bias, device="meta").to_empty(device="cpu")
    stream = torch_stream(seed, "plugin", name)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.uniform_(-(d_in**-0.5), d_in**-0.5, generator=stream)
    return linear


def add_low_rank(layer: nn.Module, seed: int) -> None:
    """Low-rank changes of all linear maps in `layer` (Hu et al. 2021), in place; they learn alone.

    Rank 8, alpha 16, by peft; a `ConfigError` where it is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ConfigError(
            "tuning=lora needs the package peft. Install it with `pip install fluoroscope[lora]`."
        ) from None
    names = [name for name, part in layer.named_modules() if isinstance(part, nn.Linear | Conv1D)]
    config = LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=names)
    # It draws from torch's global generator, which is not ours to move.
    with torch.random.fork_rng(devices=[]):
        inject_adapter_in_model(config, layer)
    for name, parameter in layer.named_parameters():
        if "lora_A" in name:
            bound = parameter.shape[-1] ** -0.5
            stream = torch_stream(seed, "plugin", "lora", name)
            with torch.no_grad():
                parameter.uniform_(-bound, bound, generator=stream)


def _stand_in(form: Form, layer: LayerTensors, seed: int) -> LayerTensors:
    from fluoroscope.models.single_layer.stand_ins import permuted_layer, random_layer

    match form.middle:
        case "random":
            return random_layer(layer, seed)
        case "permuted":
            return permuted_layer(layer, seed)
        case _:
            return layer


def _built(form: Form, tensors: LayerTensors) -> nn.Module:
    from fluoroscope.models.single_layer.one_token import one_token_layer
    from fluoroscope.models.single_layer.whole import whole_layer

    is_frozen = form.tuning == "frozen"
    layer = (
        # Its projections learn as the checkpoint has them, not as their product.
        one_token_layer(tensors, is_fused=is_frozen)
        if form.reads == "token"
        else whole_layer(tensors)
    )
    if form.tuning != "unfrozen":
        return layer.requires_grad_(False)
    # The tensors are shared with whoever else was built of them; small steps need float32.
    own = deepcopy(layer)
    is_narrow = torch.finfo(next(own.parameters()).dtype).bits < 32
    return (own.float() if is_narrow else own).requires_grad_(True)
