"""How often latents are active on texts to forget and on texts to keep, and how much.

Of each latent of a hook point: in how many tokens and in how many texts it is active, and the sum
of its squares. The mean square is what Fisher's information is taken to be of a latent (DSG,
arXiv:2504.08192): the gradient of a Gaussian log-likelihood with respect to its decoder is the
latent times what is left unexplained. All are sums in float64, so parts can be merged.

Axes: n tokens, s = d_sae latents, texts.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from fluoroscope.activations.capture import capture
from fluoroscope.activations.tiles import length_tiles
from fluoroscope.core.errors import CorpusError, MismatchError, NumericsError
from fluoroscope.core.running_stats import Arrays
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.sinks import find_sinks
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.sparse_kernels import SparseLatents

SAEs = Mapping[HookPoint, SparseAutoencoder]


class LatentCounts:
    """Of the latents of one hook point, over tokens of whole texts."""

    def __init__(self, d_sae: int) -> None:
        self.d_sae = d_sae
        self.n_tokens = self.n_texts = 0
        self.active: Int[np.ndarray, " s"] = np.zeros(d_sae, dtype=np.int64)
        """Tokens in which each latent is active."""

        self.texts_active: Int[np.ndarray, " s"] = np.zeros(d_sae, dtype=np.int64)
        self.squares: Float[np.ndarray, " s"] = np.zeros(d_sae)

    def add(self, latents: SparseLatents, text: Int[np.ndarray, " n"]) -> None:
        """`text` says of which text each row is; a text is in one call alone."""
        if latents.d_sae != self.d_sae or latents.n_rows != len(text):
            raise MismatchError(
                f"Counts of {self.d_sae} latents got {latents.d_sae} of them, and {len(text)} "
                f"places of texts for {latents.n_rows} rows."
            )
        values = latents.values.detach().cpu().double().numpy()
        if not np.isfinite(values).all():
            raise NumericsError("A latent is not finite; find where it comes from.")
        is_active = values > 0
        latent = latents.indices.cpu().numpy()[is_active].astype(np.int64)
        row = latents.rows.cpu().numpy()[is_active]
        names, place = np.unique(text, return_inverse=True)
        pairs = np.unique(place[row] * self.d_sae + latent)
        self.active += np.bincount(latent, minlength=self.d_sae)
        self.texts_active += np.bincount(pairs % self.d_sae, minlength=self.d_sae)
        self.squares += np.bincount(latent, values[is_active] ** 2, self.d_sae)
        self.n_tokens += latents.n_rows
        self.n_texts += len(names)

    def merge(self, other: "LatentCounts") -> None:
        """Takes in what `other` has seen of other texts."""
        if other.d_sae != self.d_sae:
            raise MismatchError(
                f"Counts of {self.d_sae} latents and of {other.d_sae} are of two SAEs; merge "
                "those of one."
            )
        self.n_tokens += other.n_tokens
        self.n_texts += other.n_texts
        self.active = self.active + other.active
        self.texts_active = self.texts_active + other.texts_active
        self.squares = self.squares + other.squares

    @property
    def frequency(self) -> Float[np.ndarray, " s"]:
        """Share of tokens in which each latent is active; NaN before the first."""
        return self.active / (self.n_tokens or np.nan)

    @property
    def text_frequency(self) -> Float[np.ndarray, " s"]:
        """Share of texts."""
        return self.texts_active / (self.n_texts or np.nan)

    @property
    def mean_square(self) -> Float[np.ndarray, " s"]:
        """E[a^2] over tokens, zeros included."""
        return self.squares / (self.n_tokens or np.nan)

    def state(self) -> Arrays:
        """Arrays that `from_state` makes the same object of."""
        return {
            "n": np.array([self.n_tokens, self.n_texts]),
            "active": self.active,
            "texts_active": self.texts_active,
            "squares": self.squares,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> "LatentCounts":
        made = cls(len(state["active"]))
        made.n_tokens, made.n_texts = (int(number) for number in state["n"])
        made.active, made.texts_active = state["active"], state["texts_active"]
        made.squares = state["squares"]
        return made


class Encoded(NamedTuple):
    """The latents of some texts at one hook point."""

    point: HookPoint
    latents: SparseLatents
    """A row for each token that counts, text by text."""

    text: Int[np.ndarray, " n"]
    """Which of all texts each row is of."""


def encoded(
    model: LanguageModel,
    saes: SAEs,
    texts: Sequence[str],
    *,
    skips_sinks: bool = False,
    tile_tokens: int = 4096,
) -> Iterator[Encoded]:
    """Latents of all tokens but the first where the tokenizer puts one, nor, where asked for, of
    attention sinks; texts that are longer than the model reads are cut.
    """
    rows = [list(model.tokenizer(text)["input_ids"])[: model.context_length] for text in texts]
    for tile in length_tiles([len(row) for row in rows], tile_tokens):
        tokens, mask = padded(model, [rows[place] for place in tile])
        cache = capture(model, tokens, list(saes), mask)
        counts = counted(model, tokens, mask)
        for point, sae in saes.items():
            x = cache[point]
            kept = counts.to(x.device)
            if skips_sinks:
                kept = kept & ~find_sinks(x, mask)
            place = np.repeat(np.array(tile), kept.sum(dim=1).cpu().numpy())
            with torch.no_grad():
                yield Encoded(point, sae.sparse_encode(x[kept].to(sae.W_dec.dtype)), place)


def counted(
    model: LanguageModel, tokens: Int[Tensor, "texts pos"], mask: Int[Tensor, "texts pos"]
) -> Bool[Tensor, "texts pos"]:
    """What is text: neither padding nor the token that the tokenizer puts before it."""
    found = mask.bool().clone()
    if model.bos_token_id is not None:
        found[:, 0] &= tokens[:, 0] != model.bos_token_id
    return found


def measure(
    model: LanguageModel,
    saes: SAEs,
    texts: Sequence[str],
    *,
    skips_sinks: bool = False,
    tile_tokens: int = 4096,
) -> dict[HookPoint, LatentCounts]:
    """The counts of every hook point, in one pass over the texts."""
    found = {point: LatentCounts(sae.d_sae) for point, sae in saes.items()}
    passes = encoded(model, saes, texts, skips_sinks=skips_sinks, tile_tokens=tile_tokens)
    for point, latents, place in passes:
        found[point].add(latents, place)
    for point, counts in found.items():
        if counts.n_tokens == 0:
            raise CorpusError(f"The {len(texts)} texts have no token that counts at {point}.")
    return found


def strongest(
    model: LanguageModel, saes: SAEs, texts: Sequence[str], *, tile_tokens: int = 4096
) -> csr_array:
    """The largest value of each latent in each text: [texts, latents of all hook points]."""
    points, starts = list(saes), {}
    width = 0
    for point in points:
        starts[point] = width
        width += saes[point].d_sae
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for point, latents, place in encoded(model, saes, texts, tile_tokens=tile_tokens):
        row = place[latents.rows.cpu().numpy()]
        column = starts[point] + latents.indices.cpu().numpy().astype(np.int64)
        keys, values = row * width + column, latents.values.detach().cpu().double().numpy()
        order = np.lexsort((values, keys))
        keys, values = keys[order], values[order]
        # The last of each key is its largest.
        is_last = np.append(keys[1:] != keys[:-1], True)[: len(keys)]
        parts.append((keys[is_last] // width, keys[is_last] % width, values[is_last]))
    if not parts:
        return csr_array((len(texts), width))
    rows, columns, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    return csr_array((values, (rows, columns)), shape=(len(texts), width))


def padded(model: LanguageModel, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of tokens as one rectangle, and 1 where they are."""
    width = max(map(len, rows))
    tokens = torch.full((len(rows), width), model.pad_token_id)
    mask = torch.zeros_like(tokens)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = torch.tensor(list(row))
        mask[place, : len(row)] = 1
    return tokens, mask
