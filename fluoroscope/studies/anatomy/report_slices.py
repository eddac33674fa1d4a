"""Why the same latent looks different on another part of the corpus."""

import numpy as np
import polars as pl

from fluoroscope.core.intervals import share_interval
from fluoroscope.plots.anatomy.slices import densities_on_two_slices, latent_on_two_slices
from fluoroscope.runs.report import Report
from fluoroscope.studies.anatomy.report_findings import Findings, Look
from fluoroscope.studies.anatomy.slice_tests import Q_BELOW, discoveries, rate_difference
from fluoroscope.studies.anatomy.steps.portraits import load_portraits
from fluoroscope.studies.anatomy.steps.statistics import ALL, N_HALVINGS, half_name


def add_slices(report: Report, found: Findings) -> None:
    clean = [reading for reading in found.readings if reading.ablation is None]
    if len(clean) < 2:
        return
    first, second = clean[:2]
    report.section("Two slices of the corpus")
    table = slice_table(found, second.key)
    report.text(_verdict(found, table, first.slice, second.slice))
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
            "energy on the slices together, and those that were named.",
        )
    report.table(
        "slices",
        table,
        f"Latents whose rate differs (q < {Q_BELOW} over the latents of all layers together), "
        f"between the slices, and in the mean of {N_HALVINGS} times that the blocks of the "
        "first one were dealt at random into halves, where only chance differs.",
    )


def slice_table(found: Findings, second: str) -> pl.DataFrame:
    """A row a layer: latents that differ, of those tested, with the same by chance."""
    ones, others = found.clean.latents, found.looks[second].latents
    pairs = list(zip(ones, others, strict=True))
    between = discoveries([rate_difference(one, ALL, other, ALL) for one, other in pairs])
    chance = [
        discoveries([rate_difference(one, half_name(h, 0), one, half_name(h, 1)) for one in ones])
        for h in range(N_HALVINGS)
    ]
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
                "tested_by_chance": float(np.mean([one.n_tested[i] for one in chance])),
                "different_by_chance": float(np.mean([one.n_different[i] for one in chance])),
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def _verdict(found: Findings, table: pl.DataFrame, first: str, second: str) -> str:
    n, differ = int(table["tested"].sum()), int(table["different"].sum())
    by_chance = float(table["different_by_chance"].sum())
    n_documents = [one.summaries[0]["n_documents"] for one in clean_looks(found)]
    said = (
        f"The same SAEs on the {first} and the {second} sequences of the text, which hold "
        f"{n_documents[0]:,} and {n_documents[1]:,} documents. "
    )
    if n == 0:
        return said + "They make too few blocks to tell chance from more: no test is made."
    said += (
        "Units are blocks of consecutive sequences, none shorter than the longest document. The "
        f"share of a block in which a latent is active differs for **{differ:,} of {n:,}** "
        f"latents, and for {by_chance:,.1f} between two halves of the {first} slice, in the mean "
        f"of {N_HALVINGS} times that its blocks were dealt at random. "
    )
    if differ > 2 * by_chance and differ > 0.01 * n:
        return said + (
            "So the two slices hold other texts, and one index has two distributions: that is no "
            "matter of how they are counted."
        )
    return said + "So nothing shows that the slices differ more than blocks do by chance."


def clean_looks(found: Findings) -> list[Look]:
    """Of each slice, without an ablation."""
    return [found.looks[one.key] for one in found.readings if one.ablation is None]
