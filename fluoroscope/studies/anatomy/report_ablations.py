"""What becomes of it all without position information, or behind reconstructions (F15)."""

import numpy as np
import polars as pl

from fluoroscope.core.intervals import Interval, ratio_interval
from fluoroscope.plots.anatomy.ablations import (
    latent_coefficients_by_position,
    overlaid_position_densities,
    overlaid_position_means,
    position_shares,
)
from fluoroscope.plots.anatomy.losses import ce_under_ablations
from fluoroscope.runs.report import Report
from fluoroscope.studies.anatomy.by_position import reach
from fluoroscope.studies.anatomy.plans import Reading
from fluoroscope.studies.anatomy.report_findings import Findings, Look
from fluoroscope.studies.anatomy.settings import Ablation
from fluoroscope.studies.anatomy.steps.portraits import load_portraits

SEEN = 1e-3
"""Density in the clean pass from which on a latent is asked how much its position tells of it."""

_SAID: dict[Ablation, str] = {
    "positions_removed": "The SAEs are those of the clean model: of a model without positions they "
    "read what they were not made for. A causal mask and the first position still tell where a "
    "token stands.",
    "positions_shuffled": "Shuffling gives every sequence of a length the same wrong positions: it "
    "takes none away, and what follows a position follows it still, under another number.",
    "reconstructed": "With SAEs spliced in, every hook point's reconstruction stands in at once, "
    "and each layer reads what those before it left.",
}


def add_ablations(report: Report, found: Findings) -> None:
    variants = found.same_slice
    report.section("What positions tell" if len(variants) == 1 else "Ablations")
    ablations: list[Ablation] = [one.ablation for one in variants.values() if one.ablation]
    if ablations:
        names = "; ".join(name for name, one in variants.items() if one.ablation is not None)
        said = " ".join(_SAID[one] for one in ablations)
        report.text(f"The same sequences once more, with something done to them: {names}. {said}")
        _add_overlaid(report, found)
    _add_shares(report, found)
    _add_coefficients(report, found)
    if found.has_losses and ablations:
        ablated = {
            name: found.loss_curve(reading.key, found.own_losses)
            for name, reading in variants.items()
            if reading.ablation is not None
        }
        report.figure(
            "ablated_llm_losses",
            ce_under_ablations(found.loss_curve(found.first.key, found.own_losses), ablated),
            "F15. Cross-entropy of the next token under each ablation (points), and clean (grey).",
        )
    report.table(
        "ablations",
        ablation_table(found),
        "CE is in nats a token, of all sequences; its difference from the clean pass has a paired "
        "interval over sequences. `l0` and `explained_variance` are means over hook points; "
        "`position_share` is the mean over hook points of the median over latents that are active "
        f"on {SEEN:.1%} of the text tokens or more in the clean pass.",
    )


def _add_overlaid(report: Report, found: Findings) -> None:
    looks = {name: found.looks[reading.key] for name, reading in found.same_slice.items()}
    report.figure(
        "ablated_token_means",
        overlaid_position_means(found.names, {n: one.position("mean") for n, one in looks.items()}),
        "Mean activation at each position, clean and ablated.",
    )
    report.figure(
        "ablated_token_densities",
        overlaid_position_densities(
            found.names, {n: one.position("density") for n, one in looks.items()}
        ),
        "Share of active latents at each position, clean and ablated.",
    )


def shares(found: Findings, look: Look) -> list[np.ndarray]:
    """Of each hook point's latents; NaN of those that are seldom active in the clean pass, so that
    all readings are of the same latents, and where positions cannot be told from sequences.
    """
    parts = zip(look.latents, found.clean.moments(), strict=True)
    return [
        np.where(moments.density >= SEEN, one["position_share"], np.nan) for one, moments in parts
    ]


def without_splicing(found: Findings) -> dict[str, Reading]:
    return {n: r for n, r in found.same_slice.items() if r.ablation != "reconstructed"}


def _add_shares(report: Report, found: Findings) -> None:
    readings = without_splicing(found)
    drawn = {name: shares(found, found.looks[one.key]) for name, one in readings.items()}
    if not any(np.isfinite(one).any() for one in drawn["clean"]):
        report.text(
            "How much of a latent's variance lies between positions cannot be told: no latent is "
            "active often enough, or no position is there in two sequences."
        )
        return
    report.figure(
        "position_shares",
        position_shares(found.names, drawn, null=np.zeros(len(found.names))),
        "How much of a latent's variance lies between positions (epsilon squared, which is 0 on "
        "average where the position tells nothing): medians over latents, and the tenth to the "
        "ninetieth percentile. Texts that begin alike put the same tokens at the same positions, "
        "and that is in it too.",
    )


def _add_coefficients(report: Report, found: Findings) -> None:
    titles: list[str] = []
    variants = without_splicing(found)
    curves: dict[str, list[np.ndarray]] = {name: [] for name in variants}
    bands: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {n: ([], []) for n in variants}
    for layer, point in zip(found.names, found.points, strict=True):
        chosen, arrays = load_portraits(found.run, point)
        telling = [row for row, one in enumerate(chosen) if one["chosen_by"] == "position"][:2]
        for row in telling:
            titles.append(f"{layer}, latent {chosen[row]['latent']}")
            for name, reading in variants.items():
                n = arrays[f"{reading.key}/n"]
                mean = np.where(n > 0, arrays[f"{reading.key}/mean"][row], np.nan)
                own = reach(n, arrays[f"{reading.key}/error"][row])
                curves[name].append(mean)
                bands[name][0].append(mean - own)
                bands[name][1].append(mean + own)
    if not titles:
        report.text(
            "No latent is shown for what its position tells: none was chosen for it "
            "(`shown.n_latents`), or none is active often enough."
        )
        return
    report.figure(
        "steering_coefficients_by_position",
        latent_coefficients_by_position(titles, curves, bands=bands),
        "Mean activation (the coefficient that steering would take) at each position, of the "
        "latents that their position explains most; bands are 95 % intervals over sequences. "
        "These latents were chosen on the clean pass, for what this figure shows: the figure of "
        "shares is of all latents.",
    )


def ablation_table(found: Findings) -> pl.DataFrame:
    """A row a reading of the first slice, and the other slices below."""
    rows = []
    for reading in found.readings:
        look = found.looks[reading.key]
        own = shares(found, look)
        medians = [float(np.nanmedian(one)) for one in own if np.isfinite(one).any()]
        row: dict[str, object] = {"reading": found.described(reading)}
        if found.has_losses:
            row |= _losses(found, reading)
        l0 = [one[0] for one in look.summary("l0")]
        explained = [one[0] for one in look.summary("explained_variance")]
        row |= {
            "l0": float(np.mean(l0)),
            "explained_variance": float(np.mean(explained)),
            "position_share": float(np.mean(medians)) if medians else None,
        }
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col(pl.Null).cast(float))


def _losses(found: Findings, reading: Reading) -> dict[str, float | None]:
    sums, tokens = (found.own_losses[f"{reading.key}/{part}"] for part in ("sums", "tokens"))
    clean = found.own_losses[f"{found.first.key}/sums"]
    difference: Interval | tuple[None, None, None] = (None, None, None)
    # Other slices are other texts: their difference is not of pairs.
    if reading.ablation is not None:
        difference = ratio_interval(sums - clean, tokens.astype(float), found.config.seed)
    return {
        "ce": float(sums.sum() / max(tokens.sum(), 1)),
        "ce_difference": difference[0],
        "ce_difference_low": difference[1],
        "ce_difference_high": difference[2],
    }
