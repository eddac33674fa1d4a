"""One pass of the model over a sequence -> what every layer's SAE makes of it.

A sequence is read by itself, so what comes out does not depend on which others are read, nor on
how many at once; all hook points are read in the one pass, and the model's own losses with them.

Axes: p positions, d model width.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluoroscope.core.errors import NumericsError
from fluoroscope.features.statistics import TokenMoments, token_moments
from fluoroscope.models.hook_points import HookPoint, Stream
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.position_ablation import ablated_positions
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.reconstruction import reconstruction_of
from fluoroscope.sae.sparse_kernels import SparseLatents
from fluoroscope.studies.anatomy.settings import Ablation

SAEs = Mapping[HookPoint, SparseAutoencoder]

NORM_STREAMS: tuple[Stream, ...] = ("resid_pre", "attn_out", "mlp_out", "resid_post")


@dataclass(frozen=True, eq=False)
class LayerReading:
    """What one SAE makes of one sequence."""

    latents: SparseLatents
    tokens: TokenMoments
    square_error: Float[Tensor, " p"]
    """Mean over dimensions of (x - x^)^2, float64."""

    sums: dict[str, Tensor]
    """Over text tokens, float64: `n`, and of the activation x (the part that the SAE reads) and of
    the error e the mean [d] and the sum of squared distances from it (`x_mean`, `x_squares`,
    `e_mean`, `e_squares`)."""


@dataclass(frozen=True, eq=False)
class SequenceReading:
    layers: dict[HookPoint, LayerReading]
    losses: Float[Tensor, " next"] | None
    """-log p of token i + 1 given those up to i, in nats; None of a model without a head for it."""

    norms: dict[HookPoint, Float[Tensor, " p"]]
    """Length of each stream that was asked for, at each position."""


class SequenceReader:
    """Reads with these SAEs, with or without something taken away."""

    def __init__(
        self,
        model: LanguageModel,
        saes: SAEs,
        ablation: Ablation | None = None,
        seed: int = 0,
        norms: tuple[Stream, ...] = (),
    ) -> None:
        model.check_positions_are_tokens("An anatomy of activations")
        self.model, self.saes = model, saes
        self._ablation, self._seed = ablation, seed
        self._norm_points = [
            HookPoint(layer, stream) for layer in range(model.n_layers) for stream in norms
        ]

    @torch.no_grad()
    def read(self, tokens: Int[Tensor, " p"], is_text: Bool[Tensor, " p"]) -> SequenceReading:
        """Raises `NumericsError` where an activation is not finite."""
        layers: dict[HookPoint, LayerReading] = {}
        norms: dict[HookPoint, Tensor] = {}

        def look(point: HookPoint, activation: Tensor) -> Tensor | None:
            if point in self._norm_points:
                norms[point] = activation[0].double().norm(dim=-1).cpu()
            if point not in self.saes:
                return None
            found, reconstruction = _read_layer(point, self.saes[point], activation[0], is_text)
            layers[point] = found
            if self._ablation != "reconstructed":
                return None
            return splice(activation, reconstruction, is_text)

        points = sorted({*self.saes, *self._norm_points})
        hooks = {point: partial(look, point) for point in points}
        with self._without_positions():
            losses = self._pass(hooks, tokens.unsqueeze(0))
        return SequenceReading(layers, losses, norms)

    @contextmanager
    def _without_positions(self) -> Iterator[None]:
        match self._ablation:
            case "positions_removed":
                with ablated_positions(self.model, "removed"):
                    yield
            case "positions_shuffled":
                with ablated_positions(self.model, "shuffled", seed=self._seed):
                    yield
            case _:
                yield

    def _pass(self, hooks: Mapping, tokens: Tensor) -> Tensor | None:
        if not self.model.predicts_next_tokens:
            self.model.run_until(hooks, tokens)
            return None
        if tokens.shape[1] < 2:
            # Nothing is predicted, and a row without losses is kept all the same.
            self.model.run_until(hooks, tokens)
            return torch.zeros(0, dtype=torch.float64)
        with self.model.hooked(hooks):
            return -self.model.token_scores(tokens)[0].double().cpu()


def splice(
    activation: Float[Tensor, "batch p d"],
    rows: Float[Tensor, "n d"],
    is_text: Bool[Tensor, " p"],
) -> Float[Tensor, "batch p d"]:
    """`rows` in the place of the text tokens of every row; others stay as they are."""
    written = activation.clone()
    written[:, is_text.to(activation.device)] = rows.to(activation.dtype)
    return written


def _read_layer(
    point: HookPoint, sae: SparseAutoencoder, activation: Tensor, is_text: Tensor
) -> tuple[LayerReading, Tensor]:
    x = activation.to(sae.W_dec.device).float()
    if not x.isfinite().all():
        raise NumericsError(
            f"The activations at {point} are not finite at position "
            f"{int((~x.isfinite()).any(dim=-1).nonzero()[0])}. Load the model in float32 or "
            "bfloat16 (model.dtype): float16 holds no number above 65504."
        )
    latents = sae.sparse_encode(x)
    reconstruction = reconstruction_of(sae, x, latents)
    error = x.double() - reconstruction.double()
    kept = is_text.to(x.device)
    sums = {"n": kept.sum().double()}
    for name, rows in (("x", sae.part_read(x[kept].double())), ("e", error[kept])):
        mean = rows.mean(dim=0) if len(rows) else rows.new_zeros(x.shape[1])
        sums[f"{name}_mean"] = mean
        sums[f"{name}_squares"] = (rows - mean).square().sum()
    found = LayerReading(
        latents=latents,
        tokens=token_moments(latents),
        square_error=error.square().mean(dim=-1).cpu(),
        sums={name: value.cpu() for name, value in sums.items()},
    )
    return found, reconstruction[kept]
