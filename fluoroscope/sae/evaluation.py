"""How good an SAE is: what it leaves unexplained, how sparse it is, what the model still knows.

    fvu            sum |x - x^|^2 / sum |x - mean x|^2          (fraction of variance unexplained,
                   of what the SAE reads: see `SparseAutoencoder.part_read`)
    l0             mean number of active latents of a token
    dead_fraction  share of latents active on no evaluated token
    density        per latent, the share of tokens on which it is active
    ce_recovered   (CE_ablated - CE_sae) / (CE_ablated - CE_clean), where the hook point's output
                   is replaced by the reconstruction, or ablated by its mean or by zero

Sums are kept per document, so that intervals come from resampling documents: tokens of one
document are not independent.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluoroscope.core.intervals import Interval, ratio_interval
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.reconstruction import reconstruction_of


class Reconstruction(NamedTuple):
    fvu: Interval
    l0: Interval
    dead_fraction: float
    density: Float[Tensor, " s"]
    mean_square: Float[Tensor, " s"]
    """Mean of f^2 over all tokens: how much of the reconstruction a latent carries."""

    n_tokens: int
    n_documents: int


class Recovery(NamedTuple):
    """Cross-entropies in nats per token, and what share of the loss an SAE keeps."""

    ce_clean: float
    ce_sae: float
    ce_mean_ablated: float
    ce_zero_ablated: float
    recovered_of_mean: Interval
    recovered_of_zero: Interval


class Window(NamedTuple):
    """A batch of token windows to evaluate on."""

    tokens: Int[Tensor, "batch pos"]
    document: Int[Tensor, "batch pos"]
    """Document of each token."""

    encoded: Bool[Tensor, "batch pos"]
    """Positions that the SAE was made for; others (BOS) are left as they are."""

    attention_mask: Int[Tensor, "batch pos"] | None = None
    """0 on padding; None where there is none."""


@torch.no_grad()
def evaluate_reconstruction(
    sae: SparseAutoencoder,
    batches: Iterable[tuple[Float[Tensor, "_ d_model"], Int[Tensor, " _"]]],
    mean: Float[Tensor, " d_model"],
    seed: int = 0,
) -> Reconstruction:
    """`batches` are rows and the document of each; `mean` is the rows' mean activation."""
    error, variance, active, tokens = (_PerDocument() for _ in range(4))
    counts = torch.zeros(sae.d_sae, dtype=torch.int64)
    energy = torch.zeros(sae.d_sae, dtype=torch.float64)
    for rows, document in batches:
        x = rows.to(sae.W_dec.device).float()
        latents = sae.sparse_encode(x)
        residual = reconstruction_of(sae, x, latents) - x
        error.add(document, residual.double().square().sum(dim=-1))
        distance = sae.part_read(x - mean.to(x.device)).double()
        variance.add(document, distance.square().sum(dim=-1))
        active.add(document, latents.offsets.diff())
        tokens.add(document, torch.ones(len(x)))
        counts += latents.count().cpu()
        squares = latents.values.double().square().cpu()
        energy.index_add_(0, latents.indices.long().cpu(), squares)
    n_tokens = int(tokens.total())
    return Reconstruction(
        fvu=_ratio(error, variance, seed),
        l0=_ratio(active, tokens, seed),
        dead_fraction=float((counts == 0).double().mean()),
        density=(counts / max(1, n_tokens)).float(),
        mean_square=(energy / max(1, n_tokens)).float(),
        n_tokens=n_tokens,
        n_documents=int((tokens.sums > 0).sum()),
    )


class _Losses(NamedTuple):
    clean: "_PerDocument"
    sae: "_PerDocument"
    mean: "_PerDocument"
    zero: "_PerDocument"
    tokens: "_PerDocument"


@torch.no_grad()
def evaluate_recovery(
    model: LanguageModel,
    point: HookPoint,
    sae: SparseAutoencoder,
    windows: Iterable[Window],
    mean: Float[Tensor, " d_model"],
    seed: int = 0,
) -> Recovery:
    """Cross-entropy of the model's own task when the SAE stands in for the hook point."""
    losses = _Losses(*(_PerDocument() for _ in range(5)))
    for window in windows:
        _add_losses(losses, model, point, sae, window, mean)
    n_tokens = losses.tokens.total() or float("nan")
    return Recovery(
        ce_clean=losses.clean.total() / n_tokens,
        ce_sae=losses.sae.total() / n_tokens,
        ce_mean_ablated=losses.mean.total() / n_tokens,
        ce_zero_ablated=losses.zero.total() / n_tokens,
        recovered_of_mean=_ratio(losses.mean - losses.sae, losses.mean - losses.clean, seed),
        recovered_of_zero=_ratio(losses.zero - losses.sae, losses.zero - losses.clean, seed),
    )


def _add_losses(
    losses: _Losses,
    model: LanguageModel,
    point: HookPoint,
    sae: SparseAutoencoder,
    window: Window,
    mean: Tensor,
) -> None:
    encoded = window.encoded.to(model.device)

    def replaced(activation: Tensor, rows: Tensor) -> Tensor:
        written = activation.clone()
        written[encoded] = rows.to(activation.dtype)
        return written

    def reconstructed(activation: Tensor) -> Tensor:
        rows = activation[encoded].float()
        return replaced(activation, reconstruction_of(sae, rows, sae.sparse_encode(rows)))

    def mean_ablated(activation: Tensor) -> Tensor:
        return replaced(activation, mean.to(activation.device).expand(int(encoded.sum()), -1))

    def zero_ablated(activation: Tensor) -> Tensor:
        return activation.masked_fill(encoded.unsqueeze(-1), 0.0)

    tokens = window.tokens.to(model.device)
    # A token's score belongs to the document of the token that is predicted, and the first
    # token of a document follows from nothing in it.
    document = window.document[:, 1:]
    scored = window.encoded[:, 1:]
    hooks = (None, reconstructed, mean_ablated, zero_ablated)
    for total, hook in zip(losses, hooks, strict=False):
        with model.hooked({point: hook} if hook else {}):
            scores = -model.token_scores(tokens, window.attention_mask)
        total.add(document[scored], scores.cpu()[scored].double())
    losses.tokens.add(document[scored], torch.ones(int(scored.sum())))


class Match(NamedTuple):
    """How well an SAE found a dictionary that is known."""

    cosine: Float[Tensor, " f"]
    """For each true direction, the largest cosine with a decoder row."""

    latent: Int[Tensor, " f"]
    """Which decoder row that is."""


@torch.no_grad()
def match_dictionary(
    W_dec: Float[Tensor, "s d_model"], directions: Float[Tensor, "f d_model"]
) -> Match:
    """The decoder row nearest to each true direction."""
    unit = W_dec / W_dec.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    true = directions / directions.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    best = (true @ unit.T).max(dim=-1)
    return Match(best.values, best.indices)


class _PerDocument:
    """Sums by document, in float64."""

    def __init__(self) -> None:
        self.sums = np.zeros(0)

    def add(self, document: Int[Tensor, " n"], values: Tensor) -> None:
        index = document.cpu().numpy().astype(np.int64)
        added = np.bincount(index, values.cpu().double().numpy())
        if len(added) > len(self.sums):
            self.sums = np.pad(self.sums, (0, len(added) - len(self.sums)))
        self.sums[: len(added)] += added

    def total(self) -> float:
        return float(self.sums.sum())

    def __sub__(self, other: "_PerDocument") -> "_PerDocument":
        difference = _PerDocument()
        difference.sums = self.sums - other.sums
        return difference


def _ratio(top: _PerDocument, bottom: _PerDocument, seed: int) -> Interval:
    """With a 95 % percentile-bootstrap interval over documents."""
    present = np.maximum(np.abs(top.sums), np.abs(bottom.sums)) > 0
    return ratio_interval(top.sums[present], bottom.sums[present], seed)
