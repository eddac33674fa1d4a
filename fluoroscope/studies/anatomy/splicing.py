"""What the model loses when something stands in for the activations at one hook point.

One clean pass of a sequence keeps what every block gives; then, hook point by hook point, the
blocks behind it run again on the SAE's reconstruction, on the mean activation and on zeros. Start
and separator tokens, which SAEs are not made for, stay as they are.

Losses are -log p of token i + 1 given those up to i, in nats and float64.

Axes: p positions, d model width.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.skipped_blocks import BlockOutputs
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.reconstruction import reconstruction_of
from fluoroscope.studies.anatomy.reading import splice

CLEAN, RECONSTRUCTED, MEAN, ZERO = "clean", "reconstructed", "mean", "zero"

_LOGITS_BYTES = 256 << 20

Losses = Float[Tensor, " next"]


class Splicer:
    """Puts SAEs' reconstructions in place; with `means`, mean activations and zeros as well."""

    def __init__(
        self,
        model: LanguageModel,
        saes: Mapping[HookPoint, SparseAutoencoder],
        means: Mapping[HookPoint, Float[Tensor, " d"]] | None = None,
    ) -> None:
        self.model, self.saes, self.means = model, saes, means
        self.ways = (RECONSTRUCTED,) if means is None else (RECONSTRUCTED, MEAN, ZERO)

    @torch.no_grad()
    def losses(
        self, tokens: Int[Tensor, " p"], is_text: Bool[Tensor, " p"]
    ) -> tuple[Losses, dict[HookPoint, dict[str, Losses]]]:
        """Of the clean pass, and with each of `ways` at each hook point alone."""
        outputs = BlockOutputs(self.model)
        row = tokens.unsqueeze(0)
        with outputs.recording():
            clean = -self.model.token_scores(row)[0].double().cpu()
        return clean, {point: self._behind(outputs, point, row, is_text) for point in self.saes}

    def _behind(
        self, outputs: BlockOutputs, point: HookPoint, row: Tensor, is_text: Tensor
    ) -> dict[str, Tensor]:
        kept = is_text.to(self.model.device)
        # As many ways at once as their logits fit.
        fits = len(self.ways) * 4 * row.shape[1] * self.model.vocab_size <= _LOGITS_BYTES
        groups = [self.ways] if fits else [(way,) for way in self.ways]
        found: dict[str, Tensor] = {}
        for ways in groups:

            def stand_in(activation: Tensor, ways: tuple[str, ...] = ways) -> Tensor:
                own = activation[:1]
                rows = [self._rows(point, way, own[0][kept].float()) for way in ways]
                return torch.cat([splice(own, one, is_text) for one in rows])

            with outputs.skipping(point.layer, len(ways)), self.model.hooked({point: stand_in}):
                scores = self.model.token_scores(row.expand(len(ways), -1))
            found |= dict(zip(ways, -scores.double().cpu(), strict=True))
        return found

    def _rows(self, point: HookPoint, way: str, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        if way == RECONSTRUCTED:
            sae = self.saes[point]
            x = rows.to(sae.W_dec.device)
            return reconstruction_of(sae, x, sae.sparse_encode(x)).to(rows)
        if way == MEAN and self.means is not None:
            return self.means[point].to(rows).expand(len(rows), -1)
        return torch.zeros_like(rows)
