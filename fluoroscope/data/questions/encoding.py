"""Questions -> tokens that are read and tokens that are to be written, flat until a batch is made.

Both end with EOS, also where they were cut; how many were cut is counted, and none is left out for
its length. What is written is read back as `target_in`, which is the padding token and then the
answer without its last token; labels are -100 at padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from fluoroscope.core.errors import ConfigError
from fluoroscope.data.questions.question import Question
from fluoroscope.data.questions.tokenizer import TextTokenizer
from fluoroscope.data.token_rows import TokenRows, remembered

IGNORED: Final = -100
"""The label of what is not to be predicted, as losses of torch have it."""

NO_DEPTH: Final = -1
Cut = Literal["end", "start"]
"""Where a text that is too long is made shorter."""

_FORMAT = 1
_SIDES = ("source", "target", "hop")


class Written(NamedTuple):
    """Answers as a decoder is trained on them; axes: b questions, t tokens."""

    target_in: Int64[Tensor, "b t"]
    labels: Int64[Tensor, "b t"]


class QuestionBatch(NamedTuple):
    """Questions padded on the right; axes: b questions, s tokens read, t tokens written."""

    ids: Int64[Tensor, "b s"]
    mask: Bool[Tensor, "b s"]
    """True at tokens."""

    target_in: Int64[Tensor, "b t"]
    labels: Int64[Tensor, "b t"]

    def to(self, device: torch.device | str) -> "QuestionBatch":
        return QuestionBatch(*(tensor.to(device) for tensor in self))


@dataclass(frozen=True)
class EncodedQuestions:
    source: TokenRows
    target: TokenRows
    hops: TokenRows
    """Of all questions, one after another; those of question `i` are the rows `hop_starts[i]` to
    before `hop_starts[i + 1]`."""

    hop_starts: Int64[np.ndarray, " n_starts"]
    depths: Int64[np.ndarray, " n"]
    """-1 where none is known."""

    ids: tuple[str, ...]
    pad_id: int
    is_source_cut: Bool[np.ndarray, " n"]
    is_target_cut: Bool[np.ndarray, " n"]
    unknown_rate: float
    """Share of the tokens of sources that the tokenizer does not know."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """Tokens that are read of each question, for batches of like lengths."""
        return self.source.lengths

    @property
    def cut_rates(self) -> dict[str, float]:
        """Share of the sources, and of the targets, that were cut."""
        n = max(len(self), 1)
        return {
            "source": float(self.is_source_cut.sum()) / n,
            "target": float(self.is_target_cut.sum()) / n,
        }

    def batch(
        self,
        rows: Int[np.ndarray, " b"],
        *,
        pad_source_to: int | None = None,
        pad_target_to: int | None = None,
    ) -> QuestionBatch:
        """Padded to the longest of these questions and answers, or as asked."""
        ids = self.source.padded(rows, self.pad_id, pad_source_to)
        is_token = np.arange(ids.shape[1]) < self.source.lengths[rows][:, None]
        written = self._written(self.target, rows, pad_target_to)
        return QuestionBatch(torch.from_numpy(ids), torch.from_numpy(is_token), *written)

    def hop_batch(
        self, rows: Int[np.ndarray, " b"], hop: int, *, pad_target_to: int | None = None
    ) -> Written:
        """What is to be written after `hop` steps, counted from 1: once all are done, and where
        none are known, the answer.
        """
        if hop < 1:
            raise ConfigError(f"Hops are counted from 1, got {hop}.")
        n_hops = np.diff(self.hop_starts)[rows]
        if not n_hops.all() or not len(rows):
            return self._mixed(rows, hop, n_hops, pad_target_to)
        at = self.hop_starts[rows] + np.minimum(hop, n_hops) - 1
        return self._written(self.hops, at, pad_target_to)

    def _mixed(
        self,
        rows: Int[np.ndarray, " b"],
        hop: int,
        n_hops: Int64[np.ndarray, " b"],
        pad_target_to: int | None,
    ) -> Written:
        """Where some questions have no hops: these have their answer as the only one."""
        at = (self.hop_starts[rows] + np.minimum(hop, n_hops) - 1).tolist()
        found = TokenRows.of(
            self.hops.row(place) if n else self.target.row(row)
            for row, place, n in zip(rows.tolist(), at, n_hops.tolist(), strict=True)
        )
        return self._written(found, np.arange(len(rows)), pad_target_to)

    def _written(
        self, found: TokenRows, rows: Int[np.ndarray, " b"], pad_to: int | None
    ) -> Written:
        labels = found.padded(rows, IGNORED, pad_to)
        before = np.where(labels == IGNORED, self.pad_id, labels)[:, :-1]
        first = np.full((len(rows), 1), self.pad_id, np.int64)
        target_in = np.concatenate([first, before], axis=1)
        return Written(torch.from_numpy(target_in), torch.from_numpy(labels))


def encode_questions(
    questions: Sequence[Question],
    tokenizer: TextTokenizer,
    max_source: int,
    max_target: int,
    *,
    cut: Cut = "end",
    cache: Path | None = None,
) -> EncodedQuestions:
    """In the order of `questions`; lengths count EOS. `cache` is a folder."""
    for name, length in (("max_source", max_source), ("max_target", max_target)):
        if length < 2:
            raise ConfigError(f"{name} must be 2 at least, a token and EOS; got {length}.")
    texts = {
        "source": [one.source for one in questions],
        "target": [one.target for one in questions],
        "hop": [hop for one in questions for hop in one.hops],
    }
    longest = {"source": max_source, "target": max_target, "hop": max_target}
    tensors = remembered(
        cache,
        lambda: {
            "format": _FORMAT,
            "texts": texts,
            "tokenizer": tokenizer.hash,
            "longest": longest,
            "cut": cut,
            "eos": tokenizer.eos_id,
        },
        lambda: {
            name: tensor
            for side in _SIDES
            for name, tensor in _tokenized(
                side, texts[side], tokenizer, longest[side], cut if side == "source" else "end"
            ).items()
        },
    )
    rows = {
        side: TokenRows(tensors[f"{side}_tokens"].numpy(), tensors[f"{side}_starts"].numpy())
        for side in _SIDES
    }
    depths = [NO_DEPTH if one.depth is None else one.depth for one in questions]
    is_unknown = rows["source"].tokens == tokenizer.unk_id
    return EncodedQuestions(
        source=rows["source"],
        target=rows["target"],
        hops=rows["hop"],
        hop_starts=np.cumsum([0, *(len(one.hops) for one in questions)], dtype=np.int64),
        depths=np.array(depths, np.int64),
        ids=tuple(one.id for one in questions),
        pad_id=tokenizer.pad_id,
        is_source_cut=tensors["source_is_cut"].numpy(),
        is_target_cut=tensors["target_is_cut"].numpy(),
        unknown_rate=float(is_unknown.sum()) / max(len(is_unknown), 1),
    )


def _tokenized(
    side: str, texts: Sequence[str], tokenizer: TextTokenizer, longest: int, cut: Cut
) -> dict[str, Tensor]:
    kept = longest - 1
    found: list[list[int]] = []
    is_cut: list[bool] = []
    for ids in tokenizer.encode(texts):
        shorter = ids[:kept] if cut == "end" else ids[max(len(ids) - kept, 0) :]
        found.append([*shorter, tokenizer.eos_id])
        is_cut.append(len(ids) > kept)
    rows = TokenRows.of(found)
    return {
        f"{side}_tokens": torch.from_numpy(rows.tokens),
        f"{side}_starts": torch.from_numpy(rows.starts),
        f"{side}_is_cut": torch.tensor(is_cut, dtype=torch.bool),
    }
