"""What was found in the organism, set beside what was planted in it (design, section 9).

Everything here is known only because the organism was made; no step before looks at it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float

from fluoroscope.core.intervals import (
    Interval,
    clustered_share_interval,
    share_interval,
)
from fluoroscope.organism.gambling import COMPONENT_RISK
from fluoroscope.organism.trials import MIN_EFFECT, Score, Trials
from fluoroscope.organism.truth import Candidate, latents
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.studies.gambling.behaviour.paired import component_effects

VARIABLE = "risk"
MAX_SET = 5
HALF = 0.5
"""Share of the variable's own effect that a declared set must carry to count as its recall."""

_MIN_COMPONENTS = 3
"""Parts of the prompt that vary, below which their effects have no correlation."""

COMPARED = ("is_bankrupt", "is_immediate_stop", "n_rounds", "i_ba")
HEADLINE = "is_bankrupt"


class Fact(NamedTuple):
    """One number of `tables/ground_truth.csv`."""

    quantity: str
    value: float
    low: float
    high: float
    goal: str
    passed: bool | None
    n: int
    note: str


def component_facts(measured: pl.DataFrame, stated: pl.DataFrame) -> list[Fact]:
    """Correlations over components of what the model does with what was planted.

    `measured` and `stated` are metrics of games of the model, and of the stated player on the
    same luck. The interval is by leaving out one repetition of the model's games at a time. There
    are none where fewer than three parts vary, as two points are always on a line.
    """
    found: list[Fact] = []
    for metric in COMPARED:
        own = _by_component(measured, metric)
        if len(own) < _MIN_COMPONENTS:
            return []
        for name, wanted in (
            ("the stated player's on the same luck", _by_component(stated, metric)),
            ("the planted risk", {c: COMPONENT_RISK[c] for c in own}),
        ):
            letters = sorted(own)
            true = np.array([wanted[c] for c in letters])
            value, low, high = _correlation(measured, metric, letters, true)
            sign = -1.0 if metric == "is_immediate_stop" and name == "the planted risk" else 1.0
            ends = sorted([sign * low, sign * high])
            is_headline = metric == HEADLINE and name != "the planted risk"
            found.append(
                Fact(
                    f"correlation of component effects on {metric} with {name}",
                    sign * value,
                    ends[0],
                    ends[1],
                    ">= 0.9" if is_headline else "(none)",
                    bool(sign * value >= 0.9) if is_headline else None,
                    len(letters),
                    f"{measured['repetition'].n_unique()} repetitions; jackknife over them",
                )
            )
    return found


def _by_component(metrics: pl.DataFrame, metric: str) -> dict[str, float]:
    table = component_effects(metrics, [metric])
    return dict(zip(table["component"], table["effect"], strict=True))


def _correlation(
    metrics: pl.DataFrame, metric: str, letters: Sequence[str], true: Float[np.ndarray, " k"]
) -> Interval:
    """Of effects and `true`, with an interval by the jackknife on Fisher's scale."""

    def z(games: pl.DataFrame) -> float:
        own = _by_component(games, metric)
        effects = np.array([own[c] for c in letters])
        if np.ptp(effects) == 0 or np.ptp(true) == 0:
            return float("nan")
        r = float(np.corrcoef(effects, true)[0, 1])
        return float(np.arctanh(np.clip(r, -0.999999, 0.999999)))

    whole = z(metrics)
    repetitions = metrics["repetition"].unique().sort().to_list()
    n = len(repetitions)
    if n < 10:
        return Interval(float(np.tanh(whole)), float("nan"), float("nan"))
    left = np.array([z(metrics.filter(pl.col("repetition") != r)) for r in repetitions])
    error = float(np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum()))
    reach = 2.2 * error if n < 12 else 2.0 * error
    return Interval(*(float(np.tanh(v)) for v in (whole, whole - reach, whole + reach)))


def scored(candidates: Sequence[tuple[str, Candidate]], trials: Trials) -> pl.DataFrame:
    """kind, name, layer, latents and the columns of `Score`, a row a candidate."""
    rows = [
        {
            "kind": kind,
            "name": candidate.name,
            "layer": candidate.layer,
            **trials.score(candidate)._asdict(),
        }
        for kind, candidate in candidates
    ]
    schema = ["kind", "name", "layer", *Score._fields]
    return pl.DataFrame(rows, infer_schema_length=None).select(schema) if rows else pl.DataFrame()


def candidates_of(
    declared: pl.DataFrame, saes: dict[str, SparseAutoencoder], trials: Trials
) -> list[tuple[str, Candidate]]:
    """Each declared latent, the declared set of each layer, and the ceiling: the planted
    direction, and a supervised probe of each layer.
    """
    found: list[tuple[str, Candidate]] = []
    # Where nothing was screened there is neither a latent nor an effect to sort by.
    for point, sae in saes.items() if len(declared) else ():
        mine = declared.filter(pl.col("hook_point") == point).sort(
            pl.col("effect").abs(), "latent", descending=[True, False]
        )
        layer = int(point.partition(".")[0])
        chosen = mine["latent"].to_list()
        for latent in chosen:
            name = f"{point} latent {latent}"
            found.append(("declared", latents(name, VARIABLE, layer, sae, [latent])))
        if chosen:
            few = chosen[:MAX_SET]
            name = f"{point} latents {' '.join(map(str, few))}"
            found.append(("declared set", latents(name, VARIABLE, layer, sae, few)))
    found.append(("planted", trials.truth.planted(VARIABLE)))
    prompts = trials.learn.draw(VARIABLE, "probe", 4 * trials.n)
    found += [("probe", probe) for probe in trials.truth.probes(VARIABLE, prompts)]
    return found


def latent_facts(scores: pl.DataFrame, controls: pl.DataFrame) -> list[Fact]:
    """Match, cause, precision and recall of what was declared, and false alarms among controls."""
    declared = scores.filter(pl.col("kind") == "declared")
    sets = scores.filter(pl.col("kind") == "declared set")
    n = len(declared)
    facts = []
    for name, column in (("match", "matches"), ("are a cause", "is_cause")):
        facts.append(_share(f"declared latents that {name}", declared, pl.col(column)))
    both = pl.col("matches") & pl.col("is_cause")
    facts.append(_share("precision: declared latents that match and cause", declared, both))
    carrying = sets.filter(pl.col("matches") & (pl.col("effect") >= HALF)) if len(sets) else sets
    best = sets.sort("effect", descending=True).head(1)
    note = (
        f"best set: {best['name'][0]}, effect {best['effect'][0]:.2f}, match {best['match'][0]:.2f}"
        if len(best)
        else "nothing was declared"
    )
    nan = float("nan")
    recall = 1.0 if len(carrying) else 0.0
    facts.append(
        Fact("recall: risk has a declared set that matches and carries half of its effect",
             recall, nan, nan, "(none)", None, 1, note)
    )  # fmt: skip
    for kind in ("planted", "probe"):
        mine = scores.filter(pl.col("kind") == kind).sort("effect", descending=True)
        if len(mine):
            row = mine.row(0, named=True)
            facts.append(
                Fact(f"ceiling: effect of the best {kind} direction", row["effect"],
                     row["effect_low"], row["effect_high"], "(none)", None, 1,
                     f"match {row['match']:.2f}, layer {row['layer']}")
            )  # fmt: skip
    if len(controls):
        # Controls of one latent are judged against each other.
        of = controls["of"].to_numpy()
        others = clustered_share_interval(controls["passes_others"].to_numpy(), of)
        share = clustered_share_interval(controls["is_declared"].to_numpy(), of)
        facts.append(
            Fact("share of controls that pass all rules but the rank among controls", *others,
                 "(none)", None, len(controls), "what opposite signs, size and dose leave alone")
        )  # fmt: skip
        facts.append(
            Fact("share of declared latents among controls", *share, "<= 0.05",
                 bool(share.value <= 0.05), len(controls),
                 "random latents, as often active, and random directions")
        )  # fmt: skip
    facts.append(
        Fact("latents declared causal", float(n), nan, nan, "(none)", None, n,
             f"a cause has at least {MIN_EFFECT:.0%} of risk's own effect")
    )  # fmt: skip
    return facts


def _share(quantity: str, rows: pl.DataFrame, what: pl.Expr) -> Fact:
    if not len(rows):
        nan = float("nan")
        return Fact(quantity, nan, nan, nan, "(none)", None, 0, "nothing was declared")
    is_so = rows.select(what.alias("so"))["so"].to_numpy()
    return Fact(quantity, *share_interval(is_so), "(none)", None, len(rows), "")
