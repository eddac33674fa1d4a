"""What the organism computes where it decides, and what it would decide if a layer were another.

Everything before a decision stays as it is, so the keys and values there are computed once; an
edit of any layer then costs one token a prompt, and is exact.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import GPT2LMHeadModel
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from fluoroscope.organism.network import causal_mask, embedded, through
from fluoroscope.organism.prompts import Prompt
from fluoroscope.organism.readout import Readout

Visit = Callable[[int, slice, Tensor], None]
"""Gets a layer, which prompts, and what its block reads [n, pos, d_model]."""


@torch.no_grad()
def decision_streams(
    readout: Readout, prompts: Sequence[Prompt], visit: Visit | None = None
) -> Float[Tensor, "layers n d_model"]:
    """`resid_post` of every layer at the decision of each prompt."""
    config = readout.network.config
    found = torch.zeros(config.n_layer, len(prompts), config.n_embd)
    for part, tokens, decision in readout.batches(prompts):
        hidden = embedded(readout.network, tokens)
        mask = causal_mask(hidden)
        for layer, block in enumerate(readout.network.transformer.h):
            if visit is not None:
                visit(layer, part, hidden)
            hidden = through(block, hidden, mask)
            found[layer, part] = hidden[torch.arange(len(tokens)), decision]
    return found


class Decisions:
    """The decision positions of `prompts`, in all layers."""

    def __init__(self, readout: Readout, prompts: Sequence[Prompt]) -> None:
        self.prompts = list(prompts)
        self._network = readout.network
        self._wanted = _outcome_tokens(readout, prompts)
        last = torch.cat([decision for _, _, decision in readout.batches(prompts)])
        config, width = readout.network.config, int(last.amax()) + 1
        # An edit of the first layer's end is the earliest, so its own are never asked for.
        shape = (
            config.n_layer - 1,
            len(prompts),
            config.n_head,
            width,
            config.n_embd // config.n_head,
        )
        self._keys, self._values = torch.zeros(shape), torch.zeros(shape)
        self._is_before = torch.arange(width) < last[:, None]
        self.streams = decision_streams(readout, prompts, self._keep)

    def _keep(self, layer: int, part: slice, hidden: Tensor) -> None:
        if layer == 0:
            return
        _, keys, values = self._projected(_block(self._network, layer), hidden)
        self._keys[layer - 1, part, :, : hidden.shape[1]] = keys
        self._values[layer - 1, part, :, : hidden.shape[1]] = values

    def outcomes(
        self, layer: int, stream: Float[Tensor, "n d_model"] | None = None
    ) -> Float[Tensor, " n"]:
        """The probability of each prompt's `outcome` if the `resid_post` of `layer` were `stream`
        at the decision (by default, what it is); gradients flow to `stream`.
        """
        hidden = (self.streams[layer] if stream is None else stream)[:, None]
        for place in range(layer + 1, len(self.streams)):
            block = _block(self._network, place)
            attended = self._attended(block, hidden, place)
            hidden = hidden + block.attn.c_proj(attended)
            hidden = hidden + block.mlp(block.ln_2(hidden))
        final = self._network.transformer.ln_f(hidden[:, 0])
        shares = self._network.lm_head(final).double().softmax(dim=-1)
        return (shares * self._wanted).sum(dim=-1)

    def _projected(self, block: GPT2Block, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values: [n, heads, pos, d_head] each."""
        parts = block.attn.c_attn(block.ln_1(hidden)).chunk(3, dim=-1)
        n_heads = self._network.config.n_head
        query, key, value = (part.unflatten(-1, (n_heads, -1)).transpose(1, 2) for part in parts)
        return query, key, value

    def _attended(self, block: GPT2Block, hidden: Tensor, place: int) -> Tensor:
        query, key, value = self._projected(block, hidden)
        scale = query.shape[-1] ** -0.5
        before = (query @ self._keys[place - 1].transpose(-1, -2)) * scale
        before = before.masked_fill(~self._is_before[:, None, None], float("-inf"))
        own = (query * key).sum(dim=-1, keepdim=True) * scale
        shares = torch.cat([before, own], dim=-1).softmax(dim=-1)
        mixed = shares[..., :-1] @ self._values[place - 1] + shares[..., -1:] * value
        return mixed.transpose(1, 2).flatten(-2)


def _block(network: GPT2LMHeadModel, layer: int) -> GPT2Block:
    block = network.transformer.h[layer]
    assert isinstance(block, GPT2Block)
    return block


def _outcome_tokens(readout: Readout, prompts: Sequence[Prompt]) -> Bool[Tensor, "n vocab"]:
    found = torch.zeros(len(prompts), readout.network.config.vocab_size, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        found[row, readout.outcome_tokens(prompt)] = True
    return found
