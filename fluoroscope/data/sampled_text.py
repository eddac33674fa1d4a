"""Text drawn from the model itself, document by document.

Token t of document i depends on the seed, i, t and its own logits alone. Documents are drawn
in whole tiles whatever range is asked for, so that floating point rounds alike as well.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from fluoroscope.core.errors import CorpusError
from fluoroscope.core.seeding import stream
from fluoroscope.data.corpus_config import SampledTextConfig
from fluoroscope.data.documents import Document
from fluoroscope.data.tokenizing import special_token, start_tokens


def sampled_documents(
    network: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    config: SampledTextConfig,
    start: int,
    stop: int,
) -> Iterator[tuple[Document, list[int]]]:
    """Documents `start` to `stop` with their tokens, without the first and the last token."""
    first = start_tokens(tokenizer, "always").document
    assert first is not None
    ends = {first, special_token(tokenizer, "eos")}
    tile = config.tile
    for begin in range(start - start % tile, stop, tile):
        rows = _draw_tile(network, first, config, range(begin, begin + tile))
        for index, row in enumerate(rows.tolist(), start=begin):
            if not start <= index < stop:
                continue
            tokens = row[: next((at for at, token in enumerate(row) if token in ends), None)]
            yield Document(index, str(tokenizer.decode(tokens))), tokens


@torch.no_grad()
def _draw_tile(
    network: nn.Module, first: int, config: SampledTextConfig, documents: range
) -> Int[Tensor, "documents max_tokens"]:
    device = next(network.parameters()).device
    numbers = [stream(config.seed, "sampled text", i).random(config.max_tokens) for i in documents]
    luck = torch.from_numpy(np.stack(numbers))
    drawn = torch.empty(len(documents), config.max_tokens, dtype=torch.int64)
    tokens = torch.full((len(documents), 1), first, device=device)
    cache = None
    for at in range(config.max_tokens):
        output = network(input_ids=tokens, past_key_values=cache, use_cache=True)
        cache = getattr(output, "past_key_values", None)
        if cache is None:
            raise CorpusError(
                "source=model: needs a model that predicts next tokens; this one does not. Give "
                "a text corpus."
            )
        tokens = _choose(output.logits[:, -1], config.temperature, luck[:, at].to(device))
        drawn[:, at] = tokens[:, 0]
    return drawn


def _choose(
    logits: Float[Tensor, "documents vocab"], temperature: float, luck: Float[Tensor, " documents"]
) -> Int[Tensor, "documents 1"]:
    # The inverse of the distribution function, in float64: one number of luck for one token.
    reached = (logits.double() / temperature).softmax(-1).cumsum(-1)
    return torch.searchsorted(reached, luck[:, None] * reached[:, -1:], right=True).clamp(
        max=logits.shape[-1] - 1
    )
