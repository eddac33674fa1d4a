"""States of slots as rows for training SAEs, computed when they are asked for.

Every slot of every text is a row, of each hook point the same; which slot it was is not kept. Of
a text that has stopped the rows of later steps repeat its last: train on steps that most take, or
on a model with a fixed number of steps.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from fluoroscope.activations.capture import capture
from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.studies.connection.language_model import SlotLanguageModel


class SlotSource:
    """An `ActivationSource`, for an `ActivationStream`; a chunk is `chunk_texts` texts."""

    # Hooks belong to the network, so a thread's passes would meet those of an evaluation.
    can_read_ahead = False

    def __init__(
        self, model: SlotLanguageModel, texts: Sequence[str], chunk_texts: int = 64
    ) -> None:
        if not texts or chunk_texts < 1:
            raise ConfigError(
                f"States are of 1 text or more, and chunks too; got {len(texts)} texts in chunks "
                f"of {chunk_texts}."
            )
        self.d_model = model.d_model
        self._model = model
        self._chunks = [
            texts[start : start + chunk_texts] for start in range(0, len(texts), chunk_texts)
        ]
        self.chunk_rows = np.array([len(chunk) * model.n_slots for chunk in self._chunks])

    def load_chunk(
        self, chunk: int, points: Sequence[HookPoint]
    ) -> dict[HookPoint, Float[Tensor, "rows d_model"]]:
        tokens, mask = self._model.tokenize(self._chunks[chunk], padding_side="right")
        cache = capture(self._model, tokens, points, mask)
        rows = {point: states.flatten(0, 1) for point, states in cache.items()}
        for point, values in rows.items():
            if not bool(values.isfinite().all()):
                raise NumericsError(
                    f"The states at {point} of texts of chunk {chunk} hold a NaN or an infinity; "
                    "the weights are broken, or an edit is too large."
                )
        return rows
