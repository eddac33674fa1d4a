"""Questions as a reasoner is asked them: batches of tensors, with what is known of their hops."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fluoroscope.data.questions.encoding import EncodedQuestions, QuestionBatch, Written


class Asked(NamedTuple):
    """Questions of one batch, on one device; b of them."""

    texts: QuestionBatch

    depths: Int[Tensor, " b"] | None = None
    """Hops to the answer, where all questions say so."""

    hops: tuple[Written, ...] = ()
    """What is to be written after each hop; once all hops are done, the answer."""

    deepest: int | None = None
    """Hops of the deepest question of the optimiser's step that these are a part of: all parts
    share out what is supervised over as many, so that they add up."""


class Questions:
    """A side of encoded questions, which says more than its texts where it can."""

    def __init__(self, encoded: EncodedQuestions) -> None:
        self._encoded = encoded
        self.says_depths = bool(len(encoded)) and bool((encoded.depths > 0).all())
        self.says_hops = self.says_depths and bool((np.diff(encoded.hop_starts) > 0).all())

    def __len__(self) -> int:
        return len(self._encoded)

    @property
    def lengths(self) -> Int[np.ndarray, " n"]:
        """Tokens of each text."""
        return self._encoded.lengths

    @property
    def target_lengths(self) -> Int[np.ndarray, " n"]:
        """Tokens of each answer, its end among them."""
        return self._encoded.target.lengths

    @property
    def is_target_cut(self) -> Bool[np.ndarray, " n"]:
        """Whether the answer was too long, so that what is taught and asked is its beginning."""
        return self._encoded.is_target_cut

    def deepest(self, rows: Int[np.ndarray, " b"]) -> int | None:
        """Hops of the deepest of these questions, where all say so."""
        return int(self._encoded.depths[rows].max()) if self.says_depths else None

    def ask(
        self,
        rows: Int[np.ndarray, " b"],
        device: torch.device | str,
        *,
        with_hops: bool = False,
        deepest: int | None = None,
    ) -> Asked:
        """`deepest` is that of all questions of an optimiser's step; by default of these."""
        encoded = self._encoded
        depths, hops = None, ()
        if deepest is None:
            deepest = self.deepest(rows)
        if self.says_depths:
            depths = torch.from_numpy(encoded.depths[rows]).to(device)
        if with_hops and self.says_hops and deepest is not None:
            hops = tuple(
                Written(*(tensor.to(device) for tensor in encoded.hop_batch(rows, hop)))
                for hop in range(1, deepest + 1)
            )
        return Asked(encoded.batch(rows).to(device), depths, hops, deepest)
