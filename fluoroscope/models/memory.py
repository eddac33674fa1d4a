"""How many rows of keys and values fit into the memory that is free."""

import psutil
import torch

from fluoroscope.models.language_model import LanguageModel

_SHARE = 0.25
"""Of the free memory; the rest is for activations, logits and everybody else."""


def free_bytes(device: torch.device) -> int:
    """Memory that can be had on a device at this moment."""
    if device.type == "cuda":
        # What torch holds on to between two generations is free as well.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return psutil.virtual_memory().available


def row_bytes(model: LanguageModel, n_columns: int) -> int:
    """Keys and values of one row."""
    config = model.network.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    d_head = getattr(config, "head_dim", None) or model.d_model // config.num_attention_heads
    size = torch.finfo(model.dtype).bits // 8
    return 2 * model.n_layers * heads * d_head * n_columns * size


def affordable_rows(model: LanguageModel, n_columns: int, wanted: int) -> int:
    """`wanted`, or as many rows as fit, but one at least."""
    fitting = int(_SHARE * free_bytes(model.device)) // row_bytes(model, n_columns)
    return max(1, min(wanted, fitting))
