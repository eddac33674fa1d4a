"""What positions look like, and what losses do along them (F3 to F7, F13, F14)."""

import numpy as np

from fluoroscope.plots.anatomy.losses import ce_by_position, sae_losses_by_position
from fluoroscope.plots.anatomy.positions import (
    position_count_against_density,
    position_mean_against_density,
    position_mean_against_std,
    position_means,
    smoothed_position_means,
)
from fluoroscope.runs.report import Report
from fluoroscope.studies.anatomy.by_position import reach
from fluoroscope.studies.anatomy.report_findings import Findings
from fluoroscope.studies.anatomy.splicing import CLEAN, RECONSTRUCTED


def add_positions(report: Report, found: Findings) -> None:
    report.section("Token positions")
    look, names = found.clean, found.names
    context = found.config.corpus.context
    n = look.positions[0]["n_tokens"]
    report.text(
        f"Statistics over the active latents at each of the {context} positions, of "
        f"{int(n.max())} sequences; {_fewer(n)}. The first position is left out where a figure "
        "says without BOS."
    )
    mean, std, density, count = (
        look.position(name) for name in ("mean", "std", "density", "count")
    )
    above = found.config.shown.outlier_above
    report.figure(
        "token_mean_vs_std",
        position_mean_against_std(names, mean, std, outlier_above=above),
        f"F3. Mean and standard deviation at each position; those with a mean above {above:g} are "
        "named by their position.",
    )
    report.figure(
        "token_mean_with_bos",
        position_means(names, mean, with_bos=True),
        "F4. Mean activation at each position.",
    )
    report.figure(
        "token_mean_without_bos",
        position_means(names, mean, with_bos=False),
        "F5. The same without the first position.",
    )
    report.figure(
        "smoothed_token_means",
        smoothed_position_means(names, mean),
        "F6. Moving mean over ten positions, all layers.",
    )
    report.figure(
        "token_mean_vs_density",
        position_mean_against_density(names, mean, density),
        "F7. Mean activation and share of active latents at each position.",
    )
    report.figure(
        "token_count_vs_density",
        position_count_against_density(names, count, density),
        "Active entries and share of active latents at each position.",
    )


def _fewer(n: np.ndarray) -> str:
    last = int(np.flatnonzero(n)[-1]) if n.any() else 0
    if n.min() == n.max():
        return "every sequence has them all"
    return (
        f"sequences are of different length, so that later ones rest on fewer (half of them reach "
        f"position {int((n >= n.max() / 2).sum()) - 1}, the longest position {last})"
    )


def add_losses_by_position(report: Report, found: Findings) -> None:
    look, weight = found.clean, found.config.losses.l1_weight
    parts = {"L1": "l1", "L2": "l2", "combined": "combined"}
    values = {said: look.position(name) for said, name in parts.items()}
    bands = {
        said: (
            [v - e for v, e in zip(values[said], _reaches(found, name), strict=True)],
            [v + e for v, e in zip(values[said], _reaches(found, name), strict=True)],
        )
        for said, name in parts.items()
    }
    report.figure(
        "sae_losses",
        sae_losses_by_position(found.names, values, bands=bands),
        f"F13. The SAE's losses at each position: L2 is the mean squared error, L1 is {weight:g} "
        "times the sum of the latents, combined their sum. Start tokens and separators are in it, "
        "which SAEs are not made for. Bands are 95 % intervals over sequences.",
    )
    if not found.has_losses:
        return
    spliced = [found.loss_curve(f"{point}/{RECONSTRUCTED}") for point in found.points]
    n = found.losses[str(found.points[0])]["n_sequences"]
    report.figure(
        "llm_losses",
        ce_by_position(found.names, found.loss_curve(CLEAN), spliced),
        "F14. Cross-entropy of the next token with one hook point's reconstruction in place "
        f"(points), and of the clean model (grey), over {n} sequences.",
    )


def _reaches(found: Findings, name: str) -> list[np.ndarray]:
    return [reach(one["n_tokens"], one[f"{name}_error"]) for one in found.clean.positions]
