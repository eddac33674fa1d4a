"""Why the same latent looks different on another part of the corpus."""

import numpy as np
import polars as pl

from fluoroscope.core.intervals import share_interval
from fluoroscope.plots.anatomy.slices import densities_on_two_slices, latent_on_two_slices
from fluoroscope.runs.report import Report
from fluoroscope.studies.anatomy.report_findings import Findings
from fluoroscope.studies.anatomy.slice_tests import Q_BELOW, discoveries, rate_difference
from fluoroscope.studies.anatomy.steps.portraits import load_portraits
from fluoroscope.studies.anatomy.steps.statistics import ALL, EVEN, ODD


def add_slices(report: Report, found: Findings) -> None:
    clean = [reading for reading in found.readings if reading.ablation is None]
    if len(clean) < 2:
        return
    first, second = clean[:2]
    report.section("Two slices of the corpus")
    table = slice_table(found, second.key)
    report.text(_verdict(table, first.slice, second.slice))
    density = [[one.density for one in found.looks[r.key].moments()] for r in (first, second)]
    n = found.clean.summaries[0]["n_sequences"]
    names = (f"{first.slice} {n}", f"{second.slice} {n}")
    report.figure(
        "densities_on_two_slices",
        densities_on_two_slices(found.names, *density, slice_names=names),
        "Density of each latent on the two slices.",
    )
    titles: list[str] = []
    values: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for layer, point in zip(found.names, found.points, strict=True):
        chosen, arrays = load_portraits(found.run, point)
        for row, one in enumerate(chosen):
            if one["chosen_by"] == "position":
                continue
            titles.append(f"{layer}, latent {one['latent']}")
            for name, reading in zip(names, (first, second), strict=True):
                values[name].append(arrays[f"{reading.key}/values/{row}"])
    if titles:
        report.figure(
            "latents_on_two_slices",
            latent_on_two_slices(titles, values),
            "Activations of the same latents on both slices: of each layer those that carry most "
            "energy, and those that were named.",
        )
    report.table(
        "slices",
        table,
        f"Latents whose rate differs (q < {Q_BELOW} over the latents of all layers together), "
        "between the slices, and between every other sequence of the first one and the rest of "
        "it, where only chance differs.",
    )


def slice_table(found: Findings, second: str) -> pl.DataFrame:
    """A row a layer: latents that differ, of those tested, with the same by chance."""
    ones, others = found.clean.latents, found.looks[second].latents
    pairs = list(zip(ones, others, strict=True))
    between = discoveries([rate_difference(one, ALL, other, ALL) for one, other in pairs])
    chance = discoveries([rate_difference(one, EVEN, one, ODD) for one in ones])
    rows = []
    for i, layer in enumerate(found.names):
        n, differ = between.n_tested[i], between.n_different[i]
        share = share_interval(np.arange(n) < differ) if n else (None, None, None)
        rows.append(
            {
                "layer": layer,
                "tested": n,
                "different": differ,
                "share": share[0],
                "share_low": share[1],
                "share_high": share[2],
                "tested_by_chance": chance.n_tested[i],
                "different_by_chance": chance.n_different[i],
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def _verdict(table: pl.DataFrame, first: str, second: str) -> str:
    n, differ = int(table["tested"].sum()), int(table["different"].sum())
    by_chance = int(table["different_by_chance"].sum())
    n_chance = int(table["tested_by_chance"].sum())
    return (
        f"The same SAEs on the {first} and the {second} sequences of the text. The share of a "
        f"sequence in which a latent is active differs for **{differ:,} of {n:,}** latents, and "
        f"for {by_chance:,} of {n_chance:,} between two halves of the {first} slice that were "
        "dealt out one by one. "
        + (
            "So one index has two distributions because the texts differ, not because of how they "
            "are counted."
            if differ > 2 * by_chance and differ > 0.01 * n
            else "So nothing shows that the slices differ more than sequences do by chance."
        )
    )
