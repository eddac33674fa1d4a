"""What differs between architectures: where their parts live, and how their streams add up.

Paths are those of the transformers library, from the network without its head (`blocks`,
`embed`, `final_norm`) or from one block (`attn_out`, `mlp_out`). `attn_out` and `mlp_out` are
what is *added* to the residual stream, so they are read after dropout and after the extra
norms of gemma2, gemma3 and olmo2. With `x = resid_pre`, `a = attn_out`, `m = mlp_out`:

    sequential   resid_post = x + a + m    m is computed from x + a
    parallel     resid_post = x + a + m    m is computed from x, as a is
    post_norm    resid_post = mlp_norm(attn_norm(x + a) + m)

In a `post_norm` block (the BERT line, OPT-350m) the norms sit *on* the residual stream: the
streams are not a running sum, `resid_post` is what the next block reads (already normalised),
and no final norm follows. DeBERTa-v2-xlarge also sends block 0 through a convolution over the
tokens; its `resid_post` of layer 0 is read behind that, as this is what block 1 reads. ALBERT
runs the same block several times: a layer is one run.

An architecture that is not one of the library's is given to `LanguageModel` and not looked up.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from fluoroscope.core.errors import ModelError
from fluoroscope.core.registry import nearest
from fluoroscope.models.hook_points import Stream

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

Kind = Literal["decoder", "encoder", "encoder-decoder"]
Residual = Literal["sequential", "parallel", "post_norm"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """The facts of one architecture."""

    model_type: str
    """The `model_type` of its config.json."""

    blocks: str
    """The list of blocks."""

    embed: str
    """The token-embedding table."""

    attn_out: str
    """Within a block, the module whose output attention adds to the residual stream."""

    mlp_out: str
    """Within a block, the module whose output the MLP adds to the residual stream."""

    final_norm: str | None = None
    """The norm between the last block and the head; None for post-norm networks."""

    kind: Kind = "decoder"
    """A decoder predicts the next token, an encoder the masked ones, seeing both sides; an
    encoder-decoder reads all of a text and writes another."""

    residual: Callable[["PretrainedConfig"], Residual] = lambda _: "sequential"
    """How the streams add up, which in some families depends on the checkpoint."""

    attn_norm: str | None = None
    """Within a post-norm block, the norm behind attention."""

    mlp_norm: str | None = None
    """Within a post-norm block, the norm behind the MLP."""

    after_block_0: str | None = None
    """A module behind block 0, in checkpoints that have it, whose output block 1 reads."""

    position_offset: Callable[["PretrainedConfig"], int] = lambda _: 0
    """The position id of the first token."""

    position_table: str | None = None
    """The table of learned position embeddings, where it has one."""

    rotation: str | None = None
    """The module that makes the angles of a rotary network of position ids."""

    other_positions: Callable[["PretrainedConfig"], str | None] = lambda _: None
    """What tells positions apart in checkpoints that do not (only) use these two, in words."""

    order: Callable[["nn.Module", "PretrainedConfig"], list["nn.Module"]] | None = None
    """The blocks in the order they run, where `blocks` is not that."""

    is_mlp_flat: bool = False
    """Batch and position are one axis inside the MLP."""

    is_mlp_overwritten: bool = False
    """The block adds attention to the MLP's output in place."""

    has_own_attention: bool = False
    """Its attention is written into it, and cannot be replaced by name."""

    missing: Mapping[Stream, str] = field(default_factory=dict)
    """Streams that it does not have, and why."""

    prefix: str = "model"
    """The attribute of a network with a head that holds the network without it."""


def _albert_order(groups: "nn.Module", config: "PretrainedConfig") -> list["nn.Module"]:
    runs_per_group = config.num_hidden_layers / config.num_hidden_groups
    in_order = [groups[int(i / runs_per_group)] for i in range(config.num_hidden_layers)]  # pyright: ignore[reportIndexIssue]  # a ModuleList
    return [block for group in in_order for block in group.albert_layers]


def _deberta_positions(config: "PretrainedConfig") -> str | None:
    if config.relative_attention:
        return "attention by relative position"
    if not config.position_biased_input:
        return "nothing"
    # Only the second version has one.
    return "a convolution over its tokens" if getattr(config, "conv_kernel_size", 0) else None


_LLAMA = Family(
    model_type="llama",
    blocks="layers",
    embed="embed_tokens",
    attn_out="self_attn",
    mlp_out="mlp",
    final_norm="norm",
    rotation="rotary_emb",
)
_GEMMA = replace(
    _LLAMA,
    model_type="gemma2",
    attn_out="post_attention_layernorm",
    mlp_out="post_feedforward_layernorm",
)
_BERT = Family(
    model_type="bert",
    blocks="encoder.layer",
    embed="embeddings.word_embeddings",
    attn_out="attention.output.dropout",
    mlp_out="output.dropout",
    kind="encoder",
    residual=lambda _: "post_norm",
    attn_norm="attention.output.LayerNorm",
    mlp_norm="output.LayerNorm",
    position_table="embeddings.position_embeddings",
    prefix="bert",
)
_DEBERTA = replace(
    _BERT, model_type="deberta", other_positions=_deberta_positions, prefix="deberta"
)

_ALL = [
    Family(
        model_type="gpt2",
        blocks="h",
        embed="wte",
        attn_out="attn",
        mlp_out="mlp",
        final_norm="ln_f",
        position_table="wpe",
        prefix="transformer",
    ),
    Family(
        model_type="gpt_neox",
        blocks="layers",
        embed="embed_in",
        attn_out="post_attention_dropout",
        mlp_out="post_mlp_dropout",
        final_norm="final_layer_norm",
        residual=lambda config: "parallel" if config.use_parallel_residual else "sequential",
        rotation="rotary_emb",
        prefix="gpt_neox",
    ),
    _LLAMA,
    replace(_LLAMA, model_type="mistral"),
    replace(_LLAMA, model_type="qwen2"),
    replace(_LLAMA, model_type="qwen3"),
    _GEMMA,
    replace(_GEMMA, model_type="gemma3_text"),
    replace(_GEMMA, model_type="olmo2"),
    Family(
        model_type="falcon",
        blocks="h",
        embed="word_embeddings",
        attn_out="self_attention",
        mlp_out="mlp",
        final_norm="ln_f",
        residual=lambda config: (
            "parallel" if config.new_decoder_architecture or config.parallel_attn else "sequential"
        ),
        rotation="rotary_emb",
        other_positions=lambda config: "ALiBi" if config.alibi else None,
        is_mlp_overwritten=True,
        has_own_attention=True,
        prefix="transformer",
    ),
    replace(
        _LLAMA,
        model_type="phi",
        final_norm="final_layernorm",
        residual=lambda _: "parallel",
    ),
    replace(
        _LLAMA,
        model_type="phi3",
        attn_out="resid_attn_dropout",
        mlp_out="resid_mlp_dropout",
    ),
    Family(
        model_type="opt",
        blocks="decoder.layers",
        embed="decoder.embed_tokens",
        attn_out="self_attn",
        mlp_out="fc2",
        final_norm="decoder.final_layer_norm",
        residual=lambda config: "sequential" if config.do_layer_norm_before else "post_norm",
        attn_norm="self_attn_layer_norm",
        mlp_norm="final_layer_norm",
        position_table="decoder.embed_positions",
        is_mlp_flat=True,
    ),
    _BERT,
    replace(
        _BERT,
        model_type="roberta",
        position_offset=lambda config: config.pad_token_id + 1,
        prefix="roberta",
    ),
    replace(_BERT, model_type="electra", prefix="electra"),
    replace(
        _BERT,
        model_type="albert",
        blocks="encoder.albert_layer_groups",
        attn_out="attention.output_dropout",
        mlp_out="ffn_output",
        attn_norm="attention.LayerNorm",
        mlp_norm="full_layer_layer_norm",
        order=_albert_order,
        prefix="albert",
    ),
    _DEBERTA,
    replace(_DEBERTA, model_type="deberta-v2", after_block_0="encoder.conv"),
    replace(
        _LLAMA,
        model_type="modernbert",
        kind="encoder",
        embed="embeddings.tok_embeddings",
        attn_out="attn",
        final_norm="final_norm",
    ),
]

FAMILIES: Mapping[str, Family] = {family.model_type: family for family in _ALL}


def find_family(model_type: str, model_name: str) -> Family:
    """The family of a config's `model_type`, or a `ModelError` that names all families."""
    if model_type not in FAMILIES:
        raise ModelError(
            f"{model_name} is of the architecture {model_type!r}, which cannot be read yet."
            f"{nearest(model_type, list(FAMILIES))} There are: {', '.join(sorted(FAMILIES))}."
        )
    return FAMILIES[model_type]
