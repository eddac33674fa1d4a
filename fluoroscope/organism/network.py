"""The organism's network: GPT-2's architecture, cut where its variables are planted."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from fluoroscope.core.seeding import derive_seed, stream
from fluoroscope.organism.prompts import VARIABLES

D_MODEL, N_LAYERS, N_HEADS, CONTEXT = 128, 6, 4, 256
PLANTED_LAYER = 3
"""Its `resid_post` carries the variables."""


def new_network(tokenizer: PreTrainedTokenizerFast, seed: int) -> GPT2LMHeadModel:
    vocabulary = tokenizer.get_vocab()
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=CONTEXT,
        n_embd=D_MODEL,
        n_layer=N_LAYERS,
        n_head=N_HEADS,
        # The same function as GPT-2's own, in one kernel.
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=vocabulary["<bos>"],
        eos_token_id=vocabulary["<eos>"],
        pad_token_id=vocabulary["<pad>"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "organism", "weights"))
        network = GPT2LMHeadModel(config)
    # On a CPU in bfloat16 the fused kernel's backward pass is slower than plain products.
    network.set_attn_implementation("eager")
    return network


def planted_directions(seed: int) -> Float[Tensor, "v d_model"]:
    """Orthonormal, one a variable in the order of `VARIABLES`; fixed before any training."""
    random = stream(seed, "organism", "directions").standard_normal((D_MODEL, len(VARIABLES)))
    return torch.linalg.qr(torch.from_numpy(random))[0].T.float().contiguous()


def embedded(
    network: GPT2LMHeadModel,
    tokens: Int[Tensor, "n pos"],
    positions: Int[Tensor, "n pos"] | None = None,
) -> Float[Tensor, "n pos d_model"]:
    """What the first block reads; rows are padded on the right."""
    if positions is None:
        positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
    return network.transformer.wte(tokens) + network.transformer.wpe(positions)


def lower(network: GPT2LMHeadModel, tokens: Int[Tensor, "n pos"]) -> Float[Tensor, "n pos d_model"]:
    """The `resid_post` of the planted layer."""
    hidden = embedded(network, tokens)
    mask = causal_mask(hidden)
    for block in network.transformer.h[: PLANTED_LAYER + 1]:
        hidden = through(block, hidden, mask)
    return hidden


def upper(
    network: GPT2LMHeadModel, hidden: Float[Tensor, "n pos d_model"]
) -> Float[Tensor, "n pos d_model"]:
    """From there to the final norm; `network.lm_head` makes logits of it."""
    mask = causal_mask(hidden)
    for block in network.transformer.h[PLANTED_LAYER + 1 :]:
        hidden = through(block, hidden, mask)
    return network.transformer.ln_f(hidden)


def causal_mask(hidden: Tensor) -> Tensor:
    n = hidden.shape[1]
    lowest = torch.finfo(torch.float32).min
    return torch.full((n, n), lowest, device=hidden.device).triu(1)[None, None]


def through(block: nn.Module, hidden: Tensor, mask: Tensor) -> Tensor:
    # A block returns a tensor or a tuple that starts with one, by version of the library.
    output = block(hidden, attention_mask=mask)
    return output[0] if isinstance(output, tuple) else output
