"""The ways to choose a layer, and the table of layers and scores that they choose from.

In every method more is better, once the sign of its column is taken; of equals the earlier layer
is taken. A method whose scores are not there is an error: no layer is ever taken unseen.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.core.registry import nearest
from fluoroscope.core.storage import write_csv
from fluoroscope.studies.plugin.form import middle_layer
from fluoroscope.studies.plugin.selection.gradient_fit import GradientFit
from fluoroscope.studies.plugin.selection.ilm import IlmScores
from fluoroscope.studies.plugin.selection.ilm_config import IlmConfig
from fluoroscope.studies.plugin.selection.plug_side import PlugScores
from fluoroscope.studies.plugin.selection.transferability import TextScores


class Ranked(NamedTuple):
    """Which column of the table a method ranks layers by."""

    column: str
    sign: int = 1


METHODS: Mapping[str, Ranked] = {
    "ilm": Ranked("final"),
    "ilm_flat": Ranked("mixed"),
    "ilm_manual": Ranked("manual_final"),
    "logme": Ranked("logme"),
    "hscore": Ranked("hscore"),
    "loo": Ranked("loo_nll", -1),
    "variability": Ranked("variability"),
    "plug_side": Ranked("plug_logme"),
    "gradient_fit": Ranked("gradient_nll", -1),
}
"""Those that score every layer. `ilm_flat` is the seed's mixture without its price of depth."""

UNSCORED = ("last", "middle", "halving")
"""The first two need no scores; successive halving is decided by trainings."""

COLUMNS = (
    *("probe", "probe_se", "fisher", "silhouette", "mixed", "robust", "depth_factor", "final"),
    "manual_final",
    *("logme", "hscore", "loo_nll", "loo_nll_se", "loo_accuracy", "variability"),
    *("plug_logme", "plug_logme_se", "plug_loo", "plug_loo_se"),
    *("gradient_nll", "gradient_nll_se", "gradient_accuracy"),
)


@dataclass(frozen=True)
class LayerScores:
    """A row a layer: `layer`, the `COLUMNS` (null where not measured), and `rank`."""

    table: pl.DataFrame

    @property
    def n_layers(self) -> int:
        return self.table.height

    @property
    def methods(self) -> tuple[str, ...]:
        """Those whose scores are there."""
        return tuple(name for name, how in METHODS.items() if self._has(how.column))

    def by_method(self) -> dict[str, Float[np.ndarray, " layers"]]:
        """Signed, so that more is better; NaN where a layer was not scored."""
        return {name: self._signed(METHODS[name]) for name in self.methods}

    @property
    def sha256(self) -> str:
        """Of the table as CSV."""
        return hashlib.sha256(self.table.write_csv().encode()).hexdigest()

    def write(self, path: Path) -> None:
        """As CSV; the same scores are the same bytes."""
        write_csv(path, self.table)

    @classmethod
    def read(cls, path: Path) -> "LayerScores":
        kinds = {"layer": pl.Int64, **dict.fromkeys(COLUMNS, pl.Float64), "rank": pl.Int64}
        return cls(pl.read_csv(path, schema=kinds))

    def _has(self, column: str) -> bool:
        return self.table[column].null_count() < self.n_layers

    def _signed(self, how: Ranked) -> np.ndarray:
        return how.sign * self.table[how.column].fill_null(np.nan).to_numpy()


def score_table(
    n_layers: int,
    *,
    ilm: IlmScores | None = None,
    ilm_manual: IlmScores | None = None,
    text: TextScores | None = None,
    plug: PlugScores | None = None,
    gradient: GradientFit | None = None,
    method: str | None = None,
) -> LayerScores:
    """All that was measured; `rank` (1 the best) is by `method`, and null without one that scores
    layers.
    """
    found: dict[str, np.ndarray] = {}
    if ilm is not None:
        found |= {name: getattr(ilm, name) for name in COLUMNS[:8]}
    if ilm_manual is not None:
        found["manual_final"] = ilm_manual.final
    if text is not None:
        found |= text._asdict()
    if plug is not None:
        found |= {f"plug_{name}": one for name, one in plug._asdict().items()}
    if gradient is not None:
        found |= {f"gradient_{name}": one for name, one in gradient._asdict().items()}
    wrong = [name for name, one in found.items() if len(one) != n_layers]
    if wrong:
        raise ConfigError(f"{wrong[0]} has {len(found[wrong[0]])} layers, not {n_layers}.")
    columns = [
        pl.Series(name, found.get(name, np.full(n_layers, np.nan)), pl.Float64).fill_nan(None)
        for name in COLUMNS
    ]
    table = pl.DataFrame([pl.Series("layer", np.arange(n_layers), pl.Int64), *columns])
    ranks: list[int | None] = [None] * n_layers
    if method is not None and method in METHODS:
        for place, layer in enumerate(_order(LayerScores(table), method), start=1):
            ranks[layer] = place
    return LayerScores(table.with_columns(pl.Series("rank", ranks, pl.Int64)))


def choose_layer(scores: LayerScores, method: str) -> int:
    """The best layer by `method`; raises `ConfigError` where its scores are not there."""
    match method:
        case "last":
            return scores.n_layers - 1
        case "middle":
            return middle_layer(scores.n_layers)
        case "halving":
            raise ConfigError("Successive halving is decided by trainings, not by the scores.")
    return _order(scores, method)[0]


def selection_record(
    scores: LayerScores,
    method: str,
    best_layer: int,
    config: IlmConfig,
    seed: int,
    *,
    task: str,
    dataset: str,
    slm_type: str,
    llm_type: str,
) -> dict[str, object]:
    """What `selection.json` holds: the seed's keys but for its time stamp, then how the layer was
    chosen. `effects` are scores by `method`, or ILM's where it has none; null where not scored.
    """
    known = scores.by_method()
    effects = known.get(method, known.get("ilm", np.full(scores.n_layers, np.nan)))
    return {
        "task": task,
        "dataset": dataset,
        "slm_type": slm_type,
        "llm_type": llm_type,
        "n_samples": config.n_samples,
        "n_pcs": config.n_pcs,
        "top_pc": config.top_pc,
        "seed": seed,
        "effects": [float(one) if np.isfinite(one) else None for one in effects],
        "best_llm_layer": best_layer,
        "method": method,
        "n_layers": scores.n_layers,
        "scores_sha256": scores.sha256,
    }


def _order(scores: LayerScores, method: str) -> list[int]:
    """The layers that were scored, best first."""
    if method not in METHODS:
        names = [*METHODS, *UNSCORED]
        raise ConfigError(
            f"Layers are chosen by one of {', '.join(names)}, got {method!r}."
            f"{nearest(method, names)}"
        )
    known = scores.by_method()
    if method not in known:
        raise ConfigError(
            f"Layers were not scored by {method}; there are scores of {', '.join(known) or 'none'}."
        )
    values = known[method]
    order = [int(layer) for layer in np.argsort(-values, kind="stable") if values[layer] > -np.inf]
    if not order:
        raise NumericsError(f"No layer has a finite score by {method}; none is taken unseen.")
    return order
