"""What slots and steps were used for; numpy.

The plan names `slot_specialization` without a formula, and lengths of slots say nothing, as a norm
makes them all alike. So it is about what tokens gave: `p[i]`, the share of a text's tokens that
slot i was given. A network can give each text a slot of its own (specialised and used alike) or
give all texts the same slot (specialised, and not used): the two are read together.

Axes: b texts, s tokens, m slots.
"""

import numpy as np
from jaxtyping import Float, Int, Num

from fluoroscope.core.errors import CorpusError

Shares = Float[np.ndarray, "b m"]
Counts = Int[np.ndarray, " b"]


def slot_shares(routing: Float[np.ndarray, "b s m"]) -> Shares:
    """`p`: what share of each text's tokens each slot was given; `routing` is 0 at padding."""
    given = np.asarray(routing, dtype=np.float64).sum(axis=1)
    return given / given.sum(axis=1, keepdims=True)


def slot_specialization(shares: Shares) -> float:
    """`1 - mean over texts of H(p) / log m`: 1 where each text is in one slot, 0 where in all."""
    return 1.0 - float(np.mean(_relative_entropy(_some(shares))))


def slot_usage(shares: Shares) -> float:
    """`H(mean over texts of p) / log m`: 1 where slots get as much as each other over all texts."""
    return float(_relative_entropy(_some(shares).mean(axis=0)))


def slot_label_information(shares: Shares, labels: Int[np.ndarray, " b"]) -> float:
    """`I(argmax p; label) / H(label)`: how much of a label the slot that got most tells, 0 to 1.

    0 where all labels are one. Counted on few texts it is above 0 for slots that know nothing:
    compare it with that of shuffled labels.
    """
    slots, classes = _some(shares).argmax(axis=1), np.unique(labels, return_inverse=True)[1]
    joint = np.zeros((shares.shape[1], int(classes.max()) + 1))
    np.add.at(joint, (slots, classes), 1 / len(slots))
    of_label = _entropy(joint.sum(axis=0))
    if of_label == 0:
        return 0.0
    return float((_entropy(joint.sum(axis=1)) + of_label - _entropy(joint.ravel())) / of_label)


def avg_reasoning_steps(n_steps: Counts) -> float:
    """Mean over texts; the plan's is over batches of training."""
    return float(_some(n_steps).mean())


def early_termination_rate(n_steps: Counts, max_steps: int) -> float:
    """Share of texts that stopped before `max_steps`."""
    return float((_some(n_steps) < max_steps).mean())


def reasoning_adaptivity(n_steps: Counts) -> float:
    """Variance of the steps over texts by their mean; 0 where none takes a step."""
    mean = _some(n_steps).mean()
    return float(n_steps.var() / mean) if mean else 0.0


def _relative_entropy(p: Float[np.ndarray, "*b m"]) -> Float[np.ndarray, "*b"]:
    # That of a single slot is 0, whatever it is divided by.
    n_slots = p.shape[-1]
    return np.asarray(_entropy(p) / np.log(max(n_slots, 2)))


def _entropy(p: Float[np.ndarray, "*b m"]) -> Float[np.ndarray, "*b"]:
    logs = np.log(p, where=p > 0, out=np.zeros_like(p))
    return np.asarray(-(p * logs).sum(axis=-1))


def _some(rows: Num[np.ndarray, "b *m"]) -> Num[np.ndarray, "b *m"]:
    if len(rows) == 0:
        raise CorpusError("Means over texts need at least one text, got none.")
    return rows
