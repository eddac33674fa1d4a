"""Where the parts of a decoder layer lie, family by family, as one pass over one token needs them.

In a sequence of one token the softmax over its one key is 1, whatever the query is. What is left
of attention is linear: `out(repeat(value(norm(x))))`. Queries, keys, their norms, rotary angles,
windows and caps have no effect, so the token form of a layer leaves their tensors out; where
queries, keys and values are one tensor, a `Cut` says which of its rows are values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from fluoroscope.core.errors import ModelError
from fluoroscope.core.registry import nearest

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Arrangement = Literal["sequential", "parallel", "shared"]
Form = Literal["token", "sequence"]


class Cut(NamedTuple):
    """Places `start` to `stop` of every `stride` along an axis of a tensor."""

    stride: int
    start: int
    stop: int
    axis: int = 0


class Part(NamedTuple):
    """What a tensor of a form is in the checkpoint: a tensor, or a cut of one."""

    source: str
    """Its name there, without the layer's prefix."""

    source_shape: tuple[int, ...]
    cut: Cut | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        if self.cut is None:
            return self.source_shape
        stride, start, stop, axis = self.cut
        shape = list(self.source_shape)
        shape[axis] = shape[axis] // stride * (stop - start)
        return tuple(shape)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names of modules, from the layer; and what is done in which order.

    With `a = post_attention(out(value(norm_1(x))))` and the MLP `m`:

        sequential   x + a + m(norm_2(x + a))
        parallel     x + a + m(norm_2(x))
        shared       x + a + m(norm_1(x))
    """

    block: str
    """The class of a layer, in the family's module of transformers."""

    rotary: str | None
    """The class of what makes rotary angles, for a whole model."""

    value: str
    """The projection to values, after the cut."""

    out: str
    up: str
    down: str
    norm_1: str
    norm_2: str
    gate: str | None = None
    """None where the MLP has no gate; the same name as `up` where both are one tensor."""

    fused: str | None = None
    """The one tensor of queries, keys and values."""

    cut: Cut | None = None
    post_attention: str | None = None
    post_mlp: str | None = None
    arrangement: Arrangement = "sequential"
    norm: Literal["rms", "layer"] = "rms"
    gain_offset: float = 0.0
    """What is added to the weights of norms."""

    is_transposed: bool = False
    """Whether matrices are stored as [in, out]."""

    dead: tuple[str, ...] = ()
    """Modules that have no effect on one token."""


_ATTENTION = "self_attn"
_LLAMA = Layout(
    block="LlamaDecoderLayer",
    rotary="LlamaRotaryEmbedding",
    value=f"{_ATTENTION}.v_proj",
    out=f"{_ATTENTION}.o_proj",
    gate="mlp.gate_proj",
    up="mlp.up_proj",
    down="mlp.down_proj",
    norm_1="input_layernorm",
    norm_2="post_attention_layernorm",
    dead=tuple(f"{_ATTENTION}.{name}" for name in ("q_proj", "k_proj", "q_norm", "k_norm")),
)


def _like_llama(name: str) -> Layout:
    return replace(_LLAMA, block=f"{name}DecoderLayer", rotary=f"{name}RotaryEmbedding")


_FIXED: Mapping[str, Layout] = {
    "llama": _LLAMA,
    "mistral": _like_llama("Mistral"),
    "qwen2": _like_llama("Qwen2"),
    "qwen3": _like_llama("Qwen3"),
    "gemma2": replace(
        _like_llama("Gemma2"),
        norm_2="pre_feedforward_layernorm",
        post_attention="post_attention_layernorm",
        post_mlp="post_feedforward_layernorm",
        gain_offset=1.0,
    ),
}
SINGLE_LAYER_FAMILIES = (*_FIXED, "phi3", "gpt2", "gpt_neox", "falcon")


def layout_of(config: "PretrainedConfig") -> Layout:
    """The layout of a configuration's layers; a `ModelError` names the families that have one."""
    match config.model_type:
        case "phi3":
            return _phi3(config)
        case "gpt2":
            return _gpt2(config)
        case "gpt_neox":
            return _gpt_neox(config)
        case "falcon":
            return _falcon(config)
        case family:
            check_family(family, "The model")
            return _FIXED[family]


def check_family(family: str, name: str) -> None:
    """Raises `ModelError` unless single layers of this family can be read."""
    if family not in SINGLE_LAYER_FAMILIES:
        raise ModelError(
            f"{name} is of the architecture {family!r}, whose layers cannot be taken out."
            f"{nearest(family, list(SINGLE_LAYER_FAMILIES))} There are: "
            f"{', '.join(sorted(SINGLE_LAYER_FAMILIES))}."
        )


def parts_of(
    layout: Layout, shapes: Mapping[str, tuple[int, ...]], form: Form
) -> Mapping[str, Part]:
    """The tensors of a form, of a layer whose tensors have `shapes`."""
    if form == "sequence":
        return {name: Part(name, shape) for name, shape in shapes.items()}
    parts: dict[str, Part] = {}
    for name, shape in shapes.items():
        module, _, kind = name.rpartition(".")
        if module == layout.fused and layout.cut is not None:
            # A bias has one axis, that of the outputs.
            cut = layout.cut._replace(axis=min(layout.cut.axis, len(shape) - 1))
            parts[f"{layout.value}.{kind}"] = Part(name, shape, cut)
        elif module not in layout.dead:
            parts[name] = Part(name, shape)
    return parts


def _phi3(config: "PretrainedConfig") -> Layout:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    n_queries, n_values = (
        number * head_dim for number in (config.num_attention_heads, config.num_key_value_heads)
    )
    n_rows = n_queries + 2 * n_values
    return replace(
        _like_llama("Phi3"),
        fused=f"{_ATTENTION}.qkv_proj",
        value=f"{_ATTENTION}.qkv_proj.value",
        cut=Cut(n_rows, n_rows - n_values, n_rows),
        gate="mlp.gate_up_proj",
        up="mlp.gate_up_proj",
    )


def _gpt2(config: "PretrainedConfig") -> Layout:
    width = config.hidden_size
    return Layout(
        block="GPT2Block",
        rotary=None,
        fused="attn.c_attn",
        value="attn.c_attn.value",
        cut=Cut(3 * width, 2 * width, 3 * width, axis=1),
        out="attn.c_proj",
        up="mlp.c_fc",
        down="mlp.c_proj",
        norm_1="ln_1",
        norm_2="ln_2",
        norm="layer",
        is_transposed=True,
        # Cross-attention is skipped where no encoder is given.
        dead=("ln_cross_attn", *(f"crossattention.{name}" for name in _CROSS)),
    )


_CROSS = ("c_attn", "q_attn", "c_proj")


def _gpt_neox(config: "PretrainedConfig") -> Layout:
    size = config.hidden_size // config.num_attention_heads
    return Layout(
        block="GPTNeoXLayer",
        rotary="GPTNeoXRotaryEmbedding",
        fused="attention.query_key_value",
        value="attention.query_key_value.value",
        # Query, key and value of head 0, then those of head 1.
        cut=Cut(3 * size, 2 * size, 3 * size),
        out="attention.dense",
        up="mlp.dense_h_to_4h",
        down="mlp.dense_4h_to_h",
        norm_1="input_layernorm",
        norm_2="post_attention_layernorm",
        arrangement="parallel" if config.use_parallel_residual else "sequential",
        norm="layer",
    )


def _falcon(config: "PretrainedConfig") -> Layout:
    n_heads = config.num_attention_heads
    size = config.hidden_size // n_heads
    has_two_norms = config.new_decoder_architecture and config.num_ln_in_parallel_attn in (None, 2)
    if config.new_decoder_architecture:
        n_rows = n_heads // config.num_kv_heads + 2
    else:
        n_rows = n_heads + 2 if config.multi_query else 3
    if has_two_norms:
        arrangement, norms = "parallel", ("ln_attn", "ln_mlp")
    elif config.new_decoder_architecture or config.parallel_attn:
        arrangement, norms = "shared", ("input_layernorm", "input_layernorm")
    else:
        arrangement, norms = "sequential", ("input_layernorm", "post_attention_layernorm")
    return Layout(
        block="FalconDecoderLayer",
        rotary="FalconRotaryEmbedding",
        fused="self_attention.query_key_value",
        value="self_attention.query_key_value.value",
        cut=Cut(n_rows * size, (n_rows - 1) * size, n_rows * size),
        out="self_attention.dense",
        up="mlp.dense_h_to_4h",
        down="mlp.dense_4h_to_h",
        norm_1=norms[0],
        norm_2=norms[1],
        arrangement=arrangement,
        norm="layer",
    )
