"""What latents look like: quantiles, means, deviations, densities (F1, F2, F8 to F12)."""

import numpy as np
import polars as pl

from fluoroscope.features.statistics import count_curves as curves_of
from fluoroscope.plots.anatomy.latents import (
    count_curves,
    density_histograms,
    latent_count_against_density,
    latent_mean_against_density,
    latent_mean_against_std,
    latent_mean_densities,
)
from fluoroscope.plots.anatomy.quantiles import latent_quantiles
from fluoroscope.runs.report import Report
from fluoroscope.studies.anatomy.report_findings import Findings

_BOS = "BOS: start and separator tokens, and whatever stands at the first position."


def add_latents(report: Report, found: Findings) -> None:
    report.section("Latents")
    report.text(
        "Statistics of each latent over the tokens in which it is active; zeros count in densities "
        f"alone. {_BOS} Latents that were never active have no point."
    )
    _add_quantiles(report, found)
    _add_clouds(report, found)
    _add_curves(report, found)
    report.table(
        "latents_by_layer",
        latent_table(found),
        "`skewed` are active latents whose mean is above their median, `reversed` those whose mean "
        "is below it; `dead` were active on no text token of these sequences.",
    )
    report.table(
        "unusual_latents",
        unusual_latents(found),
        "The first of the dead latents and of those whose mean is below their median, by layer.",
    )


def _add_quantiles(report: Report, found: Findings) -> None:
    for which, with_bos, figure in (("every", True, "F1"), ("text", False, "F2")):
        levels = [one.quantiles for one in found.clean.moments(which)]
        report.figure(
            f"latent_quantiles_{'with' if with_bos else 'without'}_bos",
            latent_quantiles(found.names, levels, with_bos=with_bos),
            f"{figure}. Ten quantiles of each latent's activations, "
            f"{'all tokens' if with_bos else 'without BOS'}.",
        )


def _add_clouds(report: Report, found: Findings) -> None:
    moments = found.clean.moments()
    mean, std = [one.mean for one in moments], [one.std for one in moments]
    density, count = [one.density for one in moments], [one.count for one in moments]
    names = found.names
    report.figure(
        "latent_mean_against_density",
        latent_mean_against_density(names, mean, density),
        "F8. Mean activation and density of each latent.",
    )
    report.figure(
        "latent_count_against_density",
        latent_count_against_density(names, count, density),
        "Count and density of each latent. With one number of tokens for all latents the two are "
        "proportional, so a point off the line would be an error of ours.",
    )
    report.figure(
        "density_histograms",
        density_histograms(names, density),
        "How many latents have which density.",
    )
    report.figure(
        "combined_feature_mean",
        latent_mean_densities(names, mean),
        "F9. Distribution of the latents' mean activations.",
    )
    report.figure(
        "combined_feature_mean_vs_std",
        latent_mean_against_std(names, mean, std),
        "F10. Mean and standard deviation of each latent's activations, all layers.",
    )


def _add_curves(report: Report, found: Findings) -> None:
    made = [curves_of(one) for one in found.clean.moments()]
    thresholds = [one[0] for one in made]
    for i, (figure, statistic) in enumerate((("F11", "median"), ("F12", "mean")), start=1):
        report.figure(
            f"count_curves_{statistic}",
            count_curves(found.names, thresholds, [one[i] for one in made], statistic=statistic),
            f"{figure}. Active latents whose {statistic} is at most the threshold.",
        )


def latent_table(found: Findings) -> pl.DataFrame:
    """A row a layer."""
    rows = []
    estimates = zip(found.names, found.clean.moments(), found.clean.summary("l0"), strict=True)
    for name, moments, l0 in estimates:
        active = moments.count > 0
        above = active & (moments.mean > moments.median)
        below = active & (moments.mean < moments.median)
        rows.append(
            {
                "layer": name,
                "d_sae": len(active),
                "dead": int((~active).sum()),
                "l0": l0[0],
                "l0_low": l0[1],
                "l0_high": l0[2],
                "median_density": float(np.median(moments.density[active])) if any(active) else 0.0,
                "largest_mean": float(moments.mean.max(initial=0.0)),
                "skewed": int(above.sum()),
                "reversed": int(below.sum()),
                "share_skewed": float(above.sum() / max(active.sum(), 1)),
            }
        )
    return pl.DataFrame(rows)


def unusual_latents(found: Findings, n: int = 10) -> pl.DataFrame:
    """Of each layer the first `n` dead latents, and `n` of those whose mean is below the median,
    the furthest first.
    """
    rows = []
    for name, moments in zip(found.names, found.clean.moments(), strict=True):
        rows += [
            {"layer": name, "latent": int(i), "why": "dead", "mean": 0.0, "median": 0.0}
            for i in np.flatnonzero(moments.count == 0)[:n]
        ]
        gap = np.where(moments.count > 0, moments.median - moments.mean, 0.0)
        order = np.argsort(-gap, kind="stable")[:n]
        rows += [
            {
                "layer": name,
                "latent": int(i),
                "why": "mean below median",
                "mean": float(moments.mean[i]),
                "median": float(moments.median[i]),
            }
            for i in order
            if gap[i] > 0
        ]
    schema = {
        "layer": pl.String,
        "latent": pl.Int64,
        "why": pl.String,
        "mean": pl.Float64,
        "median": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema)
