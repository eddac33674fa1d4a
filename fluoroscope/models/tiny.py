"""Tiny random models of every family: for tests, documentation and demonstrations.

`tiny_model("llama")` takes milliseconds and no network. Its weights are large enough for every
part to matter, and depend on the seed and their own names alone. Its tokenizer knows the 256
bytes, so that any text is in its vocabulary.
"""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from fluoroscope.core.seeding import torch_stream
from fluoroscope.models.families import Family, find_family
from fluoroscope.models.language_model import LanguageModel

SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
MASK_TOKEN = "<mask>"

_SIZES = {
    "vocab_size": 260,
    "hidden_size": 16,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

# What a family calls differently, or needs besides; None drops a size it does not have.
_OWN: dict[str, dict[str, object]] = {
    "gpt2": {"n_inner": 40},
    "gemma2": {"query_pre_attn_scalar": 4, "sliding_window": 8},
    "gemma3_text": {"query_pre_attn_scalar": 4, "sliding_window": 8, "sliding_window_pattern": 2},
    "mistral": {"sliding_window": 8},
    "falcon": {"ffn_hidden_size": 40, "num_kv_heads": 2, "head_dim": None},
    "opt": {"ffn_dim": 40, "word_embed_proj_dim": 16},
    "electra": {"embedding_size": 8},
    "albert": {"embedding_size": 8},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "modernbert": {
        "local_attention": 8,
        "global_attn_every_n_layers": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    },
}


def tiny_model(family: str, seed: int = 0, **changes: object) -> LanguageModel:
    """A random model of one family, with `changes` to its configuration (float32, CPU)."""
    facts = find_family(family, "tiny_model")
    config = tiny_config(facts, **changes)
    auto = AutoModelForCausalLM if facts.kind == "decoder" else AutoModelForMaskedLM
    # Building a network draws from torch's global generator, which is not ours to move.
    with torch.random.fork_rng(devices=[]):
        network = auto.from_config(config)
    _randomise(network, seed)
    name = f"tiny-{family}-{seed}"
    return LanguageModel.from_network(network, tiny_tokenizer(facts), name=name)


def tiny_config(family: Family, **changes: object) -> PretrainedConfig:
    """A configuration of three narrow layers."""
    settings = {**_SIZES, **_OWN.get(family.model_type, {}), **changes}
    given = {name: value for name, value in settings.items() if value is not None}
    return AutoConfig.for_model(family.model_type, **given)


def tiny_tokenizer(family: Family) -> PreTrainedTokenizerBase:
    """One token a byte after the four special tokens, and `<bos>` in front of every text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*SPECIAL_TOKENS.values(), MASK_TOKEN, *alphabet]
    backend = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        padding_side="left" if family.kind == "decoder" else "right",
        mask_token=MASK_TOKEN,
        **SPECIAL_TOKENS,
    )


def _randomise(network: PreTrainedModel, seed: int) -> None:
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=torch_stream(seed, "weights", name))
            is_matrix = parameter.ndim > 1
            scale = parameter.shape[-1] ** -0.5 if is_matrix else 0.2
            # Vectors are norms, which sit at 1, or biases, which sit at 0: keep where they are.
            parameter.copy_(scale * noise if is_matrix else parameter + scale * noise)
