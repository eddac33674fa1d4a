"""The real layer of transformers around borrowed weights, for sequences."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fluoroscope.core.errors import ModelError
from fluoroscope.models.single_layer.blocks import empty_block, rotary_embedding
from fluoroscope.models.single_layer.layer_tensors import LayerTensors

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class WholeLayer(nn.Module):
    """Made by `whole_layer`; without dropout in whichever mode, and frozen until asked not to be.

    Learned positions are no part of a layer: GPT-2's sees none but through its input.
    """

    def __init__(self, tensors: LayerTensors) -> None:
        super().__init__()
        self.config = tensors.config
        self.d_model = tensors.d_model
        self.block = empty_block(tensors.config, tensors.identity.layer)
        missing, unknown = self.block.load_state_dict(
            dict(tensors.tensors), strict=False, assign=True
        )
        weights = dict(self.block.named_parameters())
        if unknown or set(missing) & set(weights):
            raise ModelError(
                "A whole layer is made of tensors of form 'sequence', got form "
                f"{tensors.identity.form!r}: {len(missing)} weights are missing."
            )
        self.rotary = rotary_embedding(tensors.config)
        self.window = _window(tensors.config, tensors.identity.layer)
        self.requires_grad_(False)
        self.train(False)

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        attention_mask: Int[Tensor, "batch pos"],
        is_causal: bool = True,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Tokens whose mask is 0 are seen by none; what comes out for them has no meaning."""
        weight = next(self.block.parameters())
        stream = x.to(weight.dtype)
        arguments: dict[str, object] = {
            "attention_mask": self._bias(stream, attention_mask, is_causal)
        }
        if self.rotary is not None:
            positions = torch.arange(x.shape[1], device=x.device)[None]
            arguments["position_embeddings"] = self.rotary(stream, positions)
        if self.config.model_type == "falcon":
            # Where it is given, only that it is: the biases themselves are part of the mask.
            arguments["alibi"] = arguments["attention_mask"] if self.config.alibi else None
        return stream_of(self.block(stream, **arguments)).to(x.dtype)

    def train(self, mode: bool = True) -> "WholeLayer":
        """Stays as it is in evaluation: the dropout of a layer's own training is not wanted."""
        return super().train(False)

    def _bias(self, x: Tensor, attention_mask: Tensor, is_causal: bool) -> Tensor:
        """What is added to scores, [batch, 1 or heads, query, key]."""
        positions = torch.arange(x.shape[1], device=x.device)
        distance = positions[:, None] - positions[None, :]
        is_seen = attention_mask.bool()[:, None, None, :]
        if is_causal:
            is_seen = is_seen & (distance >= 0)
        if self.window is not None:
            is_seen = is_seen & (distance.abs() < self.window)
        # Finite: a row that sees nothing, which is all padding, must not become NaN.
        lowest = torch.finfo(x.dtype).min
        if getattr(self.config, "alibi", False):
            return _alibi(self.config, distance).to(x.dtype).masked_fill(~is_seen, lowest)
        return torch.zeros_like(is_seen, dtype=x.dtype).masked_fill(~is_seen, lowest)


def whole_layer(tensors: LayerTensors) -> WholeLayer:
    """The layer for sequences, of tensors of form "sequence", whose memory it shares."""
    return WholeLayer(tensors)


def stream_of(output: object) -> Tensor:
    """The residual stream among what a layer returns: alone, or the first of several.

    To index blindly would take the first row of the batch from layers that return it alone.
    """
    stream = output[0] if isinstance(output, tuple) else output
    if not isinstance(stream, Tensor):
        raise ModelError(f"A layer returned {type(stream).__name__}, where a tensor should be.")
    return stream


def _window(config: "PretrainedConfig", layer: int) -> int | None:
    """How many tokens back the layer sees, itself included; None for all."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and kinds[layer] != "sliding_attention":
        return None
    return getattr(config, "sliding_window", None)


def _alibi(config: "PretrainedConfig", distance: Tensor) -> Tensor:
    """Falcon's position biases [1, heads, query, key], divided as its scores are.

    Slopes of n heads are powers of 2^(-8/n) (Press et al. 2021, arXiv:2108.12409). Only distances
    to the key matter, as a constant added to all scores of a query changes nothing.
    """
    n_heads = config.num_attention_heads
    slopes = _slopes(n_heads).to(distance.device)
    size = config.hidden_size // n_heads
    return (-slopes[:, None, None] * distance.abs())[None] / size**0.5


def _slopes(n_heads: int) -> Tensor:
    # Heads beyond a power of two have every other slope of twice as many.
    n_even = 1 << (n_heads.bit_length() - 1)
    even = [2.0 ** (-8 * (i + 1) / n_even) for i in range(n_even)]
    between = [2.0 ** (-4 * (2 * i + 1) / n_even) for i in range(n_heads - n_even)]
    # Rounded as transformers rounds them.
    return torch.tensor(even + between).bfloat16().float()
