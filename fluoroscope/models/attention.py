"""Softcapped attention (gemma2) in the precision of the model.

transformers takes this softmax in float32 whatever the model's dtype. In float64 that loses
half of the digits, and a query that is all padding becomes NaN and spreads to every token of
its row. This is the same sum in the model's own precision, or float32 where that is less, and
gives the same bits as theirs in float32, bfloat16 and float16.
"""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

_NAME = "fluoroscope_softcap"


def use_exact_softcap(network: PreTrainedModel) -> None:
    """Has a softcapped network use this module's attention in place of the library's plain one."""
    is_capped = getattr(network.config, "attn_logit_softcapping", None) is not None
    if is_capped and network.config._attn_implementation == "eager":
        AttentionInterface.register(_NAME, _attend)
        AttentionMaskInterface.register(_NAME, eager_mask)
        network.set_attn_implementation(_NAME)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    softcap: float | None = None,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, Tensor]:
    rows_per_key = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(rows_per_key, dim=1) for part in (key, value))
    scores = query @ key.transpose(2, 3) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        scores = scores + attention_mask
    precision = torch.promote_types(query.dtype, torch.float32)
    weights = scores.softmax(dim=-1, dtype=precision).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights
