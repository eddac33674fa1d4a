"""A decoder layer as the function of one vector that it is on a sequence of one token.

Written out for Llama, with values `v = W_v n1(x)` of each head that has keys (see `layouts`):

    a = x + W_o E v          E repeats each value head for the query heads that share it
    z = a + W_down(act(W_gate n2(a)) * W_up n2(a))

`W_o E` is one matrix with as many columns as values, the sums of W_o's columns of heads that share
values; and `W_o E W_v` is taken as one matrix where that is the smaller of the two.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, rms_norm
from transformers.activations import ACT2FN

from fluoroscope.models.single_layer.layer_tensors import LayerTensors, take
from fluoroscope.models.single_layer.layouts import Layout, parts_of


class OneTokenLayer(nn.Module):
    """Made by `one_token_layer`; its weights take no gradient until they are asked to."""

    def __init__(self, tensors: LayerTensors, is_fused: bool) -> None:
        super().__init__()
        layout, read = tensors.layout, _Weights(tensors)
        self.d_model = tensors.d_model
        self.arrangement = layout.arrangement
        self.attention = _attention(read, is_fused)
        self.norm_1 = read.norm(layout.norm_1)
        is_shared = layout.arrangement == "shared"
        self.norm_2 = nn.Identity() if is_shared else read.norm(layout.norm_2)
        self.post_attention = read.norm(layout.post_attention) if layout.post_attention else None
        self.post_mlp = read.norm(layout.post_mlp) if layout.post_mlp else None
        self.gate, self.up = read.gate_and_up()
        self.down = read.linear(layout.down)
        self.activation = ACT2FN[read.activation]
        self.requires_grad_(False)

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Each vector of `x` alone; sums along the residual stream are in the dtype of `x`."""
        normed = self.norm_1(x)
        attended = self.attention(normed)
        if self.post_attention is not None:
            attended = self.post_attention(attended)
        stream = x + attended
        if self.arrangement == "sequential":
            normed = self.norm_2(stream)
        elif self.arrangement == "parallel":
            normed = self.norm_2(x)
        hidden = self.up(normed)
        hidden = (
            self.activation(hidden)
            if self.gate is None
            else self.activation(self.gate(normed)) * hidden
        )
        added = self.down(hidden)
        if self.post_mlp is not None:
            added = self.post_mlp(added)
        return (stream + added).to(x.dtype)


def one_token_layer(tensors: LayerTensors, *, is_fused: bool = True) -> OneTokenLayer:
    """The layer for single vectors, of tensors of either form.

    Weights that need no change share memory with `tensors`. Without `is_fused` the projections of
    attention stay the checkpoint's own, which matters where they learn.
    """
    return OneTokenLayer(tensors, is_fused)


class _Linear(nn.Linear):
    """Takes what is of another dtype than its weights, as where those are kept in half."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        with torch.device("meta"):
            super().__init__(weight.shape[1], weight.shape[0], bias=bias is not None)
        self.weight = nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, input: Tensor) -> Tensor:
        return linear(input.to(self.weight.dtype), self.weight, self.bias)


class _Norm(nn.Module):
    """In float32 at least, as the layers of transformers have it."""

    def __init__(self, weight: Tensor, bias: Tensor | None, kind: str, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.kind, self.epsilon = kind, epsilon

    def forward(self, x: Tensor) -> Tensor:
        shape, weight = self.weight.shape, self.weight
        given, x = x.dtype, x.to(weight.dtype)
        if self.kind == "rms":
            return rms_norm(x, shape, weight, self.epsilon).to(given)
        return layer_norm(x, shape, weight, self.bias, self.epsilon).to(given)


class _Repeated(nn.Module):
    """Repeats the values of each head for the `n_repeats` query heads that share them."""

    def __init__(self, n_values: int, n_repeats: int) -> None:
        super().__init__()
        self.n_values, self.n_repeats = n_values, n_repeats

    def forward(self, values: Tensor) -> Tensor:
        heads = values.unflatten(-1, (self.n_values, -1))
        return heads.repeat_interleave(self.n_repeats, -2).flatten(-2)


class _Attention(nn.Module):
    """What is left of attention: from the normed vector to what is added to it."""

    def __init__(self, value: _Linear | None, repeat: _Repeated | None, out: _Linear) -> None:
        super().__init__()
        self.value, self.repeat, self.out = value, repeat, out

    def forward(self, normed: Tensor) -> Tensor:
        values = normed if self.value is None else self.value(normed)
        return self.out(values if self.repeat is None else self.repeat(values))


class _Weights:
    """The modules of a layer, made from its tensors."""

    def __init__(self, tensors: LayerTensors) -> None:
        self.layout: Layout = tensors.layout
        self.config = tensors.config
        self.tensors = tensors.tensors
        if tensors.identity.form == "sequence":
            shapes = {name: tuple(tensor.shape) for name, tensor in tensors.tensors.items()}
            parts = parts_of(self.layout, shapes, "token")
            self.tensors = {
                name: take(tensors.tensors[part.source], part) for name, part in parts.items()
            }

    @property
    def activation(self) -> str:
        names = ("hidden_act", "hidden_activation", "activation_function", "activation")
        if self.config.model_type == "gemma2":
            names = names[1:]
        return next(str(found) for name in names if (found := getattr(self.config, name, None)))

    def matrix(self, module: str) -> tuple[Tensor, Tensor | None]:
        """[out, in], and the bias."""
        weight = self.tensors[f"{module}.weight"]
        weight = weight.T.contiguous() if self.layout.is_transposed else weight
        return weight, self.tensors.get(f"{module}.bias")

    def linear(self, module: str) -> _Linear:
        return _Linear(*self.matrix(module))

    def gate_and_up(self) -> tuple[_Linear | None, _Linear]:
        layout = self.layout
        if layout.gate is None:
            return None, self.linear(layout.up)
        if layout.gate != layout.up:
            return self.linear(layout.gate), self.linear(layout.up)
        gate, up = self.matrix(layout.up)[0].chunk(2)
        return _Linear(gate, None), _Linear(up, None)

    def norm(self, module: str) -> _Norm:
        weight, bias = self.tensors[f"{module}.weight"], self.tensors.get(f"{module}.bias")
        # Small weights that 1 is added to do not survive half precision; and norms cost nothing.
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
        bias = None if bias is None else bias.to(weight.dtype)
        return _Norm(weight + self.layout.gain_offset, bias, self.layout.norm, self.epsilon)

    @property
    def epsilon(self) -> float:
        names = ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps")
        return next(
            float(getattr(self.config, name)) for name in names if hasattr(self.config, name)
        )


def _attention(read: _Weights, is_fused: bool) -> _Attention:
    layout = read.layout
    (value, value_bias), (out, out_bias) = read.matrix(layout.value), read.matrix(layout.out)
    n_repeats = out.shape[1] // value.shape[0]
    n_shared = value.shape[0] * read.config.num_attention_heads // out.shape[1]
    if not is_fused:
        repeat = _Repeated(n_shared, n_repeats)
        return _Attention(_Linear(value, value_bias), repeat, _Linear(out, out_bias))
    dtype = value.dtype
    wide = torch.promote_types(dtype, torch.float32)
    if n_repeats > 1:
        out = out.to(wide).unflatten(1, (n_shared, n_repeats, -1)).sum(2).flatten(1)
    bias = out_bias
    if value_bias is not None:
        bias = out.to(wide) @ value_bias.to(wide)
        bias = (bias if out_bias is None else bias + out_bias).to(dtype)
    # One square matrix has fewer entries than two thin ones where values are half as wide as the
    # stream or wider: without shared heads, but not in Llama 3, whose values are a quarter.
    if out.shape[0] <= 2 * value.shape[0]:
        product = (out.to(wide) @ value.to(wide)).to(dtype)
        return _Attention(None, None, _Linear(product, bias))
    return _Attention(_Linear(value, None), None, _Linear(out.to(dtype), bias))
