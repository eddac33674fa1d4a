"""What a classifier's logits are worth on one side: counted once, over all of it.

Means over batches are something else: the macro-F1 of 32 rows is not that of the data set, and
the last, smaller batch counts too much.
"""

from typing import Final

import torch
from jaxtyping import Float, Int
from sklearn.metrics import matthews_corrcoef, precision_recall_fscore_support
from torch import Tensor

from fluoroscope.core.errors import CorpusError, NumericsError

SCORES: Final = ("loss", "accuracy", "macro_f1", "macro_precision", "macro_recall", "mcc")


def scores_of(logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> dict[str, float]:
    """`SCORES` by name; `loss` in nats an example, without label smoothing.

    Macro means are over classes that are present or predicted: one that is neither has no say, one
    that is only predicted, or never, counts 0 where its ratio is 0 / 0. The coefficient of Matthews
    is 0 where all predictions, or all labels, are one class. Of equal logits the first class is
    predicted.
    """
    if len(labels) == 0:
        raise CorpusError("Scores need at least one example, got a side without any.")
    logits, labels = logits.detach().cpu().double(), labels.cpu().long()
    if not bool(logits.isfinite().all()):
        n_bad = int((~logits.isfinite()).any(dim=1).sum())
        raise NumericsError(
            f"Logits must be numbers; those of {n_bad} of {len(logits)} examples are not. Give a "
            "smaller learning rate, or train in float32."
        )
    loss = float(torch.nn.functional.cross_entropy(logits, labels))
    predicted, wanted = logits.argmax(dim=1).numpy(), labels.numpy()
    precision, recall, f1, _ = precision_recall_fscore_support(
        wanted,
        predicted,
        average="macro",
        zero_division=0.0,  # pyright: ignore[reportArgumentType]  # its stub knows no numbers
    )
    is_constant = len(set(wanted)) == 1 or len(set(predicted)) == 1
    return {
        "loss": loss,
        "accuracy": float((predicted == wanted).mean()),
        "macro_f1": float(f1),
        "macro_precision": float(precision),
        "macro_recall": float(recall),
        "mcc": 0.0 if is_constant else float(matthews_corrcoef(wanted, predicted)),
    }
