"""Tiny models of every family whose layers can be taken out, with what each may do otherwise."""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fluoroscope.models.families import find_family
from fluoroscope.models.tiny import tiny_model

VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("llama", {}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama without shared heads": ("llama", {"num_key_value_heads": 4}),
    "llama with wide heads": ("llama", {"head_dim": 12}),
    "mistral": ("mistral", {}),
    "qwen2": ("qwen2", {}),
    "qwen2 with windows": ("qwen2", {"use_sliding_window": True, "sliding_window": 5}),
    "qwen3": ("qwen3", {}),
    "gemma2": ("gemma2", {}),
    "phi3": ("phi3", {}),
    "gpt2": ("gpt2", {}),
    "gpt2 of scaled layers": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    "gpt_neox": ("gpt_neox", {}),
    "gpt_neox in sequence": ("gpt_neox", {"use_parallel_residual": False}),
    "falcon": ("falcon", {}),
    "falcon of many heads": ("falcon", {"multi_query": False, "num_kv_heads": 4, "bias": True}),
    "falcon in sequence": ("falcon", {"parallel_attn": False}),
    "falcon with biased positions": ("falcon", {"parallel_attn": False, "alibi": True}),
    "falcon of six biased heads": (
        "falcon",
        {"hidden_size": 24, "num_attention_heads": 6, "alibi": True},
    ),
    "new falcon": ("falcon", {"new_decoder_architecture": True}),
    "new falcon with one norm": (
        "falcon",
        {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1},
    ),
}
FAMILIES = tuple(dict.fromkeys(family for family, _ in VARIANTS.values()))


def saved(folder: Path, family: str = "llama", **changes: object) -> PreTrainedModel:
    """A tiny random model (float32), whose files are in `folder` from now on."""
    network = tiny_model(family, **changes).network
    network.save_pretrained(folder)
    return network


def in_and_out(
    network: PreTrainedModel, layer: int, vectors: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What a layer of the whole model reads and returns, where `vectors` are its embeddings."""
    family = find_family(network.config.model_type, "a test")
    body = getattr(network, family.prefix)
    seen: list[Tensor] = []

    def keep(_module: nn.Module, given: tuple[Tensor, ...], returned: object) -> None:
        first = returned if isinstance(returned, Tensor) else returned[0]
        seen.extend([given[0], first])

    hook = body.get_submodule(family.blocks)[layer].register_forward_hook(keep)
    try:
        with torch.no_grad():
            body(inputs_embeds=vectors, attention_mask=mask, use_cache=False)
    finally:
        hook.remove()
    return seen[0], seen[1]
