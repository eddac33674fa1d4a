"""PlugClassifier: an encoder, a pooling, perhaps a plug, and a head.

    h = encoder(tokens)    p = pool(h)    logits = head(plug(p))

The head is Linear, Dropout, GELU, Linear, as in the authors' code (dropout before the GELU).
Without a plug it is the plain classifier that plugs are compared with; with the same seed both
start with the same head. A plug that reads a sequence stands between encoder and pooling.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluoroscope.core.errors import ConfigError, MismatchError
from fluoroscope.data.labelled.encoding import Batch
from fluoroscope.models.encoders import Encoder
from fluoroscope.studies.plugin.form import Form
from fluoroscope.studies.plugin.plugs import Plug, new_linear
from fluoroscope.studies.plugin.pooling import check_pooling, pool


class PlugClassifier(nn.Module):
    """Logits of texts; made in evaluation mode on the CPU, in the encoder's precision."""

    def __init__(
        self,
        encoder: Encoder,
        form: Form | None,
        pooling: str,
        plug: Plug | None,
        n_classes: int,
        dropout: float,
        seed: int,
    ) -> None:
        super().__init__()
        if n_classes < 2:
            raise ConfigError(f"A classifier has at least 2 classes, got {n_classes}.")
        if form != (None if plug is None else plug.form):
            raise ConfigError("The form of a classifier is that of its plug; make both of one.")
        self.encoder = encoder
        self.pooling = check_pooling(pooling, encoder)
        self.plug = plug
        d_model = encoder.d_model
        self.head = nn.Sequential(
            new_linear(d_model, d_model, seed, "head 1"),
            nn.Dropout(dropout),
            nn.GELU(),
            new_linear(d_model, n_classes, seed, "head 2"),
        )
        self.eval()

    def forward(self, batch: Batch) -> Float[Tensor, "batch classes"]:
        """Logits, in the order of the batch's rows."""
        mask = batch.attention_mask
        hidden = self.encoder(batch.tokens, mask, batch.segments)
        if self.plug is not None and self.plug.form.reads == "sequence":
            return self.head(pool(self.pooling, self.plug(hidden, mask), mask))
        pooled = pool(self.pooling, hidden, mask)
        return self.head(pooled if self.plug is None else self.plug(pooled))

    def trained_tensors(self) -> dict[str, Tensor]:
        """Copies of all that learns, by name, where it lies; never of the frozen layer."""
        return {name: parameter.detach().clone() for name, parameter in self._learning().items()}

    def load_trained(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes what `trained_tensors` gave; other names or shapes are a `MismatchError`."""
        own = self._learning()
        differing = sorted(
            name
            for name in own.keys() | tensors.keys()
            if name not in own or name not in tensors or own[name].shape != tensors[name].shape
        )
        if differing:
            raise MismatchError(
                f"These {len(tensors)} tensors are of another classifier: {len(differing)} of its "
                f"names or shapes differ from the {len(own)} that learn here, the first is "
                f"{differing[0]}. Build it with the encoder, form and classes it was trained with."
            )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(tensors[name])

    def parameter_groups(self) -> dict[Literal["encoder", "new"], list[tuple[str, nn.Parameter]]]:
        """What learns, as what was pretrained (the encoder, an unfrozen layer) and what is new."""
        groups: dict[Literal["encoder", "new"], list[tuple[str, nn.Parameter]]]
        groups = {"encoder": [], "new": []}
        for name, parameter in self._learning().items():
            groups["encoder" if self._is_pretrained(name) else "new"].append((name, parameter))
        return groups

    def frozen_hash(self) -> str | None:
        """A hash of the tensors of the layer that do not learn; None where there are none."""
        return None if self.plug is None else self.plug.frozen_hash()

    def _learning(self) -> dict[str, nn.Parameter]:
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        }

    def _is_pretrained(self, name: str) -> bool:
        is_unfrozen = self.plug is not None and self.plug.form.tuning == "unfrozen"
        return name.startswith(("encoder.", "plug.middle.layer.") if is_unfrozen else "encoder.")
