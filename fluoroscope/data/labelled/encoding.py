"""Examples -> tokens, kept flat and padded only when a batch is made; remembered on disk.

A cache file is known by the texts in their order, the tokenizer's name and rules, and the length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Int8, Int32, Int64
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from fluoroscope.core.errors import ConfigError
from fluoroscope.data.labelled.example import Example
from fluoroscope.data.token_rows import places, remembered
from fluoroscope.data.tokenizing import special_token, tokenizer_hash

_FORMAT = 1
_AT_ONCE = 1024


class Batch(NamedTuple):
    """Rows padded on the right to one length; axes: b rows, s positions."""

    tokens: Int64[Tensor, "b s"]
    attention_mask: Int64[Tensor, "b s"]
    """1 at tokens, 0 at padding."""

    segments: Int64[Tensor, "b s"] | None
    """1 at a second text, where the encoder is told."""

    labels: Int64[Tensor, " b"]

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(
            self.tokens.to(device),
            self.attention_mask.to(device),
            None if self.segments is None else self.segments.to(device),
            self.labels.to(device),
        )


@dataclass(frozen=True)
class Encoded:
    """Tokens of all rows one after another; row `i` is `tokens[starts[i]:starts[i + 1]]`."""

    tokens: Int32[np.ndarray, " n_tokens"]
    starts: Int64[np.ndarray, " n_starts"]
    """One more than there are rows."""

    segments: Int8[np.ndarray, " n_tokens"] | None
    labels: Int64[np.ndarray, " n"]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """Tokens of each row, special ones included; at least 1."""
        return np.diff(self.starts)

    def batch(
        self, rows: Int[np.ndarray, " b"], *, pad_id: int, pad_to: int | None = None
    ) -> Batch:
        """Padded to the longest of these rows, or to `pad_to`."""
        at, is_token = places(self.starts, rows, pad_to)
        tokens = np.where(is_token, self.tokens[at], pad_id).astype(np.int64)
        segments = None
        if self.segments is not None:
            kinds = np.where(is_token, self.segments[at], 0).astype(np.int64)
            segments = torch.from_numpy(kinds)
        return Batch(
            torch.from_numpy(tokens),
            torch.from_numpy(is_token.astype(np.int64)),
            segments,
            torch.from_numpy(self.labels[rows]),
        )


def encode(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    cache: Path | None = None,
    tokenizer_id: str = "",
) -> Encoded:
    """Rows in the order of `examples`, cut to `max_length` tokens with the special ones; of a pair
    the longer text is cut first. `cache` is a folder.
    """
    _check_length(tokenizer, max_length, any(one.pair is not None for one in examples))
    tensors = _remembered(examples, tokenizer, max_length, cache, tokenizer_id)
    return Encoded(
        tokens=tensors["tokens"].numpy(),
        starts=tensors["starts"].numpy(),
        segments=tensors["segments"].numpy() if "segments" in tensors else None,
        labels=np.array([one.label for one in examples], np.int64),
        ids=tuple(one.id for one in examples),
    )


def _check_length(tokenizer: PreTrainedTokenizerBase, max_length: int, has_pairs: bool) -> None:
    pairs = (False, True) if has_pairs else (False,)
    n_special = max(tokenizer.num_special_tokens_to_add(pair=pair) for pair in pairs)
    if max_length <= n_special + has_pairs:
        raise ConfigError(
            f"max_length must be above {n_special + has_pairs}, as the tokenizer adds {n_special} "
            f"tokens of its own to {'a pair' if has_pairs else 'a text'}; got {max_length}."
        )


def _remembered(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    cache: Path | None,
    tokenizer_id: str,
) -> dict[str, Tensor]:
    return remembered(
        cache,
        lambda: {
            "format": _FORMAT,
            "texts": [[one.id, one.text, one.pair] for one in examples],
            "tokenizer": [tokenizer_id, tokenizer_hash(tokenizer)],
            "sides": [tokenizer.truncation_side, sorted(tokenizer.model_input_names)],
            "max_length": max_length,
        },
        lambda: _tokenized(examples, tokenizer, max_length),
    )


def _tokenized(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> dict[str, Tensor]:
    has_segments = "token_type_ids" in tokenizer.model_input_names
    tokens: list[np.ndarray] = []
    segments: list[np.ndarray] = []
    for ids, kinds in _rows(examples, tokenizer, max_length, has_segments):
        tokens.append(np.array(ids, np.int32))
        segments.append(np.array(kinds, np.int8))
    starts = np.cumsum([0, *map(len, tokens)], dtype=np.int64)
    found = {"tokens": _joined(tokens, np.int32), "starts": torch.from_numpy(starts)}
    return found | ({"segments": _joined(segments, np.int8)} if has_segments else {})


def _joined(parts: list[np.ndarray], kind: type[np.generic]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.empty(0, kind), *parts]))


def _rows(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    has_segments: bool,
) -> Iterator[tuple[list[int], list[int]]]:
    # A decoder may put nothing between two texts, which would then be read as one, and leave out
    # the token that it begins a single text with.
    n_single, n_pair = (tokenizer.num_special_tokens_to_add(pair=pair) for pair in (False, True))
    between = "" if n_pair > n_single else "\n"
    begin = list(tokenizer("")["input_ids"])[:1] if n_pair < n_single else []
    # A row of no tokens has no mean and no last token.
    filler = special_token(tokenizer, "eos", "bos", "pad")
    for start in range(0, len(examples), _AT_ONCE):
        some = examples[start : start + _AT_ONCE]
        pairs = [between + one.pair for one in some if one.pair is not None]
        if pairs and len(pairs) != len(some):
            raise ConfigError(
                f"{len(pairs)} of {len(some)} examples are pairs; encode pairs and single texts "
                "apart."
            )
        front = begin if pairs else []
        found = tokenizer(
            [one.text for one in some],
            pairs or None,
            truncation="longest_first",
            max_length=max_length - len(front),
            return_attention_mask=False,
            return_token_type_ids=has_segments,
        )
        for row, ids in enumerate(found["input_ids"]):
            kinds = found["token_type_ids"][row] if has_segments else []
            whole = [*front, *ids]
            yield (whole, [0] * len(front) + kinds) if whole else ([filler or 0], [0])
