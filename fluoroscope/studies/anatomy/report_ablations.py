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
from fluoroscope.studies.anatomy.plans import Reading
from fluoroscope.studies.anatomy.report_findings import Findings, Look
from fluoroscope.studies.anatomy.steps.portraits import load_portraits

SEEN = 1e-3
"""Density from which on a latent is asked how much its position tells of it."""

_SPLICED = "reconstructed"


def add_ablations(report: Report, found: Findings) -> None:
    variants = found.same_slice
    if len(variants) == 1:
        return
    report.section("Without positions, and behind reconstructions")
    report.text(
        "The same sequences once more, with something taken away: "
        + "; ".join(name for name in variants if name != "clean")
        + ". The SAEs are those of the clean model, so that what they say of a model without "
        "positions is of activations that they were not made for. *SAEs spliced in* puts every "
        "layer's reconstruction in place at once, and each layer reads what those before it left."
    )
    looks = {name: found.looks[reading.key] for name, reading in variants.items()}
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
        "Share of active latents at each position.",
    )
    _add_shares(report, found)
    _add_coefficients(report, found)
    if found.has_losses:
        report.figure(
            "ablated_llm_losses",
            ce_under_ablations(
                found.loss_curve(found.first.key, found.own_losses),
                {
                    name: found.loss_curve(reading.key, found.own_losses)
                    for name, reading in variants.items()
                    if reading.ablation is not None
                },
            ),
            "F15. Cross-entropy of the next token under each ablation (points), and clean (grey).",
        )
    report.table(
        "ablations",
        ablation_table(found),
        "CE is in nats a token, of all sequences; its difference from the clean pass has a paired "
        "interval over sequences. `position_share` is the median over latents that are active on "
        f"{SEEN:.1%} of the text tokens or more.",
    )


def shares(look: Look) -> list[np.ndarray]:
    """Of each layer's latents; NaN of those that are seldom active."""
    return [
        np.where(moments.density >= SEEN, one["position_share"], np.nan)
        for one, moments in zip(look.latents, look.moments(), strict=True)
    ]


def without_splicing(found: Findings) -> dict[str, Reading]:
    return {n: r for n, r in found.same_slice.items() if r.ablation != _SPLICED}


def _add_shares(report: Report, found: Findings) -> None:
    report.figure(
        "position_shares",
        position_shares(
            found.names,
            {n: shares(found.looks[r.key]) for n, r in without_splicing(found).items()},
            null=np.zeros(len(found.names)),
        ),
        "How much of a latent's variance lies between positions (epsilon squared: 0 is what chance "
        "gives): medians over latents, and the tenth to the ninetieth percentile. What stays "
        "without positions is what the text itself puts where: an opening, a form, a length.",
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
                has = arrays[f"{reading.key}/n"] > 0
                mean = np.where(has, arrays[f"{reading.key}/mean"][row], np.nan)
                reach = 1.96 * arrays[f"{reading.key}/error"][row]
                curves[name].append(mean)
                bands[name][0].append(mean - reach)
                bands[name][1].append(mean + reach)
    if not titles:
        report.text("No latent is active often enough to ask what its position tells.")
        return
    report.figure(
        "steering_coefficients_by_position",
        latent_coefficients_by_position(titles, curves, bands=bands),
        "Mean activation (the coefficient that steering would take) at each position, of the "
        "latents of each layer that their position explains most, with and without positions; "
        "bands are 95 % intervals over sequences. These latents were chosen on the clean pass, for "
        "what this figure shows: the figure before this one is of all latents.",
    )


def ablation_table(found: Findings) -> pl.DataFrame:
    """A row a reading of the first slice, and the other slices below."""
    rows = []
    for reading in found.readings:
        look = found.looks[reading.key]
        medians = [np.nanmedian(one) if np.isfinite(one).any() else np.nan for one in shares(look)]
        row: dict[str, object] = {"reading": found.described(reading)}
        if found.has_losses:
            row |= _losses(found, reading)
        l0 = [one[0] for one in look.summary("l0")]
        explained = [one[0] for one in look.summary("explained_variance")]
        row |= {
            "l0": float(np.mean(l0)),
            "explained_variance": float(np.mean(explained)),
            "position_share": float(np.nanmean(medians)) if np.isfinite(medians).any() else None,
        }
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


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
