"""Successive halving over layers (Jamieson and Talwalkar 2016, arXiv:1502.07943): few layers are
trained a little, fewer a little more, one to the end. Free of torch.

    first_round({"plug_side": ..., "gradient_fit": ...}, n_layers) -> 8 layers
    next_round(validation NLL of those, keep=3)                     -> 3 layers
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.studies.plugin.form import middle_layer

RANKED_BY = ("plug_side", "gradient_fit")
"""The methods that look at what is plugged in; others count only where neither is there."""


def mandatory(n_layers: int) -> list[int]:
    """The middle and the last layer: what would be taken unseen is among the candidates, so what
    is chosen is no worse, but for noise.
    """
    return sorted({middle_layer(n_layers), n_layers - 1})


def mean_ranks(
    scores: Mapping[str, Float[np.ndarray, " layers"]],
) -> Float[np.ndarray, " layers"]:
    """Mean over methods of each layer's rank, 1 the best; equals share theirs. What is not a
    number, as of a training that broke down, is worst.
    """
    if not scores:
        raise ConfigError("Ranks are of one method's scores at least; none was given.")
    missing = [name for name, one in scores.items() if np.isnan(one).all()]
    if missing:
        raise NumericsError(f"No score of {missing[0]} is a number, so it ranks no layer.")
    known = [np.where(np.isnan(one), -np.inf, one) for one in scores.values()]
    return np.mean([rankdata(-one) for one in known], axis=0)


def first_round(
    scores: Mapping[str, Float[np.ndarray, " layers"]], n_layers: int, keep: int = 8
) -> list[int]:
    """The layers of the best mean ranks and the mandatory ones among them, `keep` in all (or all
    that there are), in order; of equals the earlier. Methods of `RANKED_BY` count, or else all.
    """
    if any(len(one) != n_layers for one in scores.values()):
        raise ConfigError(f"Each method must score all of the {n_layers} layers.")
    always = mandatory(n_layers)
    if keep < len(always):
        raise ConfigError(
            f"keep={keep} is too few: layers {always} are always among those of the first round."
        )
    plugged = {name: one for name, one in scores.items() if name in RANKED_BY}
    order = np.argsort(mean_ranks(plugged or scores), kind="stable").tolist()
    others = [layer for layer in order if layer not in always]
    return sorted([*always, *others[: keep - len(always)]])


def next_round(validation_nll: Mapping[int, float], keep: int) -> list[int]:
    """The `keep` layers of the least NLL, in order; of equals the earlier. One whose NLL is not a
    number, as its training broke down, is not kept.
    """
    usable = {layer: nll for layer, nll in validation_nll.items() if np.isfinite(nll)}
    if keep < 1 or not usable:
        raise NumericsError(
            f"{keep} layers are to be kept of {len(usable)} with a finite validation NLL; one at "
            "least is needed."
        )
    return sorted(sorted(usable, key=lambda layer: (usable[layer], layer))[:keep])
