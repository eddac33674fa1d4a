"""The configurations of well-known models, so that planning needs neither a network nor files.

Each is the `model_type` and what differs from the defaults that transformers has for it.
"""

_LLAMA_3 = {"model_type": "llama", "vocab_size": 128256, "max_position_embeddings": 131072}
_GEMMA_2 = {"model_type": "gemma2", "vocab_size": 256000, "max_position_embeddings": 8192}
_QWEN = {"model_type": "qwen2", "vocab_size": 151936, "max_position_embeddings": 32768}
_PYTHIA = {"model_type": "gpt_neox", "vocab_size": 50304, "max_position_embeddings": 2048}
_ROBERTA = {
    "model_type": "roberta",
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
}
_DEBERTA_V3 = {
    "model_type": "deberta-v2",
    "vocab_size": 128100,
    "relative_attention": True,
    "position_buckets": 256,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
}


def _sizes(
    d_model: int, n_layers: int, n_heads: int, d_mlp: int, n_kv_heads: int | None = None
) -> dict[str, object]:
    sizes: dict[str, object] = {
        "hidden_size": d_model,
        "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads,
        "intermediate_size": d_mlp,
    }
    return sizes | ({} if n_kv_heads is None else {"num_key_value_heads": n_kv_heads})


def _gpt2(d_model: int, n_layers: int, n_heads: int) -> dict[str, object]:
    return {"model_type": "gpt2", "n_embd": d_model, "n_layer": n_layers, "n_head": n_heads}


_LLAMA_8B = _sizes(4096, 32, 32, 14336, 8)
_LLAMA_70B = _LLAMA_3 | _sizes(8192, 80, 64, 28672, 8)
_QWEN_7B = _QWEN | _sizes(3584, 28, 28, 18944, 4) | {"vocab_size": 152064}
_TIED = {"tie_word_embeddings": True}

KNOWN: dict[str, dict[str, object]] = {
    "gpt2": _gpt2(768, 12, 12),
    "gpt2-medium": _gpt2(1024, 24, 16),
    "gpt2-large": _gpt2(1280, 36, 20),
    "gpt2-xl": _gpt2(1600, 48, 25),
    "pythia-70m": _PYTHIA | _sizes(512, 6, 8, 2048),
    "pythia-160m": _PYTHIA | _sizes(768, 12, 12, 3072),
    "pythia-410m": _PYTHIA | _sizes(1024, 24, 16, 4096),
    "pythia-1.4b": _PYTHIA | _sizes(2048, 24, 16, 8192),
    "llama-2-7b": {"model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 4096}
    | _sizes(4096, 32, 32, 11008, 32),
    "llama-3-8b": _LLAMA_3 | _LLAMA_8B | {"max_position_embeddings": 8192},
    "llama-3.1-8b": _LLAMA_3 | _LLAMA_8B,
    "llama-3.1-70b": _LLAMA_70B,
    "llama-3.2-1b": _LLAMA_3 | _sizes(2048, 16, 32, 8192, 8) | _TIED,
    "llama-3.2-3b": _LLAMA_3 | _sizes(3072, 28, 24, 8192, 8) | _TIED,
    "llama-3.3-70b": _LLAMA_70B,
    "gemma-2-2b": _GEMMA_2 | _sizes(2304, 26, 8, 9216, 4) | {"head_dim": 256},
    "gemma-2-9b": _GEMMA_2 | _sizes(3584, 42, 16, 14336, 8) | {"head_dim": 256},
    "gemma-2-27b": _GEMMA_2 | _sizes(4608, 46, 32, 36864, 16) | {"head_dim": 128},
    "qwen2-7b": _QWEN_7B,
    "qwen2.5-0.5b": _QWEN | _sizes(896, 24, 14, 4864, 2) | _TIED,
    "qwen2.5-1.5b": _QWEN | _sizes(1536, 28, 12, 8960, 2) | _TIED,
    "qwen2.5-3b": _QWEN | _sizes(2048, 36, 16, 11008, 2) | _TIED,
    "qwen2.5-7b": _QWEN_7B,
    "mistral-7b-v0.1": {
        "model_type": "mistral",
        "vocab_size": 32000,
        "max_position_embeddings": 32768,
    }
    | _LLAMA_8B,
    "mistral-7b-v0.3": {
        "model_type": "mistral",
        "vocab_size": 32768,
        "max_position_embeddings": 32768,
    }
    | _LLAMA_8B,
    "bert-base-uncased": {"model_type": "bert"},
    "bert-large-uncased": {"model_type": "bert"} | _sizes(1024, 24, 16, 4096),
    "roberta-base": _ROBERTA,
    "roberta-large": _ROBERTA | _sizes(1024, 24, 16, 4096),
    "deberta-v3-base": _DEBERTA_V3 | _sizes(768, 12, 12, 3072),
    "modernbert-base": {"model_type": "modernbert"},
}

# Another owner's model of the same name may have any shape.
_OWNERS = {
    "",
    "answerdotai",
    "eleutherai",
    "facebookai",
    "google",
    "google-bert",
    "meta-llama",
    "microsoft",
    "mistralai",
    "openai-community",
    "qwen",
}
_SUFFIXES = ("-instruct", "-it", "-hf", "-base", "-deduped")


def known_config(name: str) -> dict[str, object] | None:
    """The configuration of `meta-llama/Llama-3.1-8B-Instruct`, `llama-3.1-8b` and the like."""
    owner, _, short = name.lower().rpartition("/")
    if owner not in _OWNERS:
        return None
    short = short.removeprefix("meta-")
    candidates = [short, *(short.removesuffix(suffix) for suffix in _SUFFIXES)]
    return next((KNOWN[candidate] for candidate in candidates if candidate in KNOWN), None)
