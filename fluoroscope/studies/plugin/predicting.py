"""Logits of a whole side, as a classifier that does not learn has them."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import CorpusError
from fluoroscope.data.labelled.batches import side_batches
from fluoroscope.data.labelled.encoding import Encoded
from fluoroscope.models.training.acceleration import Acceleration
from fluoroscope.models.training.precision import Precision, decided
from fluoroscope.studies.plugin.classifier import PlugClassifier


def predict(
    classifier: PlugClassifier,
    encoded: Encoded,
    *,
    batch_size: int,
    device: str,
    precision: Precision,
    pad_to: int | None = None,
    together: Acceleration | None = None,
) -> Float[Tensor, "n classes"]:
    """float32 on the CPU, in the order of the rows of `encoded`.

    Texts of about one length are read together and padded to their longest, or all to `pad_to`
    tokens. With `together` each process reads its part, and all get everything.
    """
    if len(encoded) == 0:
        raise CorpusError("A side without examples cannot be predicted.")
    batches = side_batches(encoded.lengths, batch_size)
    classifier.to(device)
    rank, n_processes = (together.rank, together.n_processes) if together else (0, 1)
    found: Tensor | None = None
    kind = torch.device(device).type
    with (
        _not_learning(classifier),
        torch.autocast(kind, _half(precision), enabled=decided(precision) != "float32"),
    ):
        # With more processes than batches, one reads the last batch too and throws it away: how
        # many classes there are is known from logits alone.
        for at in range(rank, len(batches), n_processes) if rank < len(batches) else [-1]:
            batch = encoded.batch(batches[at], pad_id=classifier.encoder.pad_id, pad_to=pad_to)
            logits = classifier(batch.to(device)).float()
            if found is None:
                found = torch.zeros(len(encoded), logits.shape[1], device=device)
            if at >= 0:
                found[torch.as_tensor(np.asarray(batches[at]), device=device)] = logits
    assert found is not None, "a side with examples has batches"
    return (together.total(found) if together else found).cpu()


def _half(precision: Precision) -> torch.dtype:
    return torch.float16 if precision == "float16" else torch.bfloat16


@contextmanager
def _not_learning(classifier: PlugClassifier) -> Iterator[None]:
    """Without dropout and gradients; afterwards it learns or not, as before."""
    was_training = classifier.training
    classifier.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        classifier.train(was_training)
