"""Which features SAEs share (F16, F17), beside what chance would give."""

import numpy as np
import polars as pl

from fluoroscope.plots.anatomy.matching import (
    assignment_histogram,
    layer_pair_matrix,
    match_distributions,
)
from fluoroscope.runs.report import Report
from fluoroscope.studies.anatomy.plans import layer_names
from fluoroscope.studies.anatomy.report_findings import Findings
from fluoroscope.studies.anatomy.sae_sets import sae_sets
from fluoroscope.studies.anatomy.steps.match import (
    WAYS,
    load_layers,
    load_pair,
    shared_points,
)

_SHOWN = (
    *("decoder_shared_a_to_b", "decoder_shared_b_to_a", "encoder_shared_a_to_b"),
    *("encoder_shared_b_to_a", "decoder_one_to_one", "encoder_one_to_one"),
    *("paired_a_to_b", "paired_b_to_a", "paired_one_to_one", "decoder_shared_active_a_to_b"),
    "decoder_same_index_a_to_b",
)
_NULLS = ("random_a_to_b", "decoder_rotated_a_to_b", "encoder_rotated_a_to_b", "chance_a_to_b")
_OWN = ("decoder_own_a", "decoder_own_b", "encoder_own_a", "encoder_own_b")


def add_matching(report: Report, found: Findings) -> None:
    first, *others = found.config.set_names
    threshold = found.config.match.threshold
    report.section("What SAEs share")
    report.text(
        f"A latent is **shared** where its highest cosine with a latent of another SAE is above "
        f"{threshold:g}; **one to one** (the Shared Feature Ratio) where its partner in the "
        "assignment of the highest sum is; **paired** where decoder and encoder name the same "
        "latent. A is the set that is looked at "
        f"(`{first}`). Beside them stand what random directions and a rotated copy of the other "
        "SAE reach, and the share of latents that have another one of *their own* SAE as near, "
        "which makes sharing look easier than it is. Intervals are over latents of these two "
        "SAEs; they do not say how two other seeds would do. SAEs that began from the same seed "
        "and size began from the same random rows, and what they share may be left of that: "
        "`decoder_same_index_a_to_b` is the share of the shared latents that have the same index "
        "in both."
    )
    if not others:
        report.text(
            "There is no other set: name one (`match.others.NAME=FOLDER`), or train several here "
            "(`train.sae.seed=[0,1]`)."
        )
    for other in others:
        _add_pair(report, found, other)
    if others:
        table = matching_table(found)
        report.table("matching", table.select(_columns(table)), "Shares, and what chance gives.")
        report.table("matching_in_full", table, "Every number, with 95 % intervals.")
    if found.config.match.every_layer:
        _add_layers(report, found)


def _add_pair(report: Report, found: Findings, other: str) -> None:
    points = shared_points(found.run, found.config, other)
    # One is drawn: four panels of each would be a book. All are in the table.
    point = points[len(points) // 2]
    layer = found.names[found.points.index(point)]
    row, cosines = load_pair(found.run, found.config, other, point)
    said = {way: _said(way, other) for way in WAYS}
    threshold = found.config.match.threshold
    report.figure(
        f"matches_{other}",
        match_distributions(
            {said[way]: cosines[way] for way in WAYS},
            {said[way]: cosines[f"random_{way[-6:]}"] for way in WAYS},
            {said[way]: float(cosines[f"expected_{way[-6:]}"][0]) for way in WAYS},
            threshold,
            f"{layer}: nearest latents of {other}",
        ),
        f"F16. {layer}{', the middle one' if len(points) > 2 else ''}: cosines with the nearest "
        "latents, and (grey) of random directions; the line is their expected highest.",
    )
    report.figure(
        f"assignment_{other}",
        assignment_histogram(
            {kind: cosines[f"{kind}_one_to_one"] for kind in ("decoder", "encoder")},
            threshold,
            {k: float(cosines["expected_a_to_b"][0]) for k in ("decoder", "encoder")},
            f"{layer}: pairs with {other}, one to one",
        ),
        "F16. The same one to one; the threshold is dashed. "
        + ("The assignment is exact." if row["decoder_one_to_one_is_exact"] else _approximate(row)),
    )


def _said(way: str, other: str) -> str:
    kind, _, direction = way.partition("_")
    return f"{kind}, A to {other}" if direction == "a_to_b" else f"{kind}, {other} to A"


def _approximate(row: dict[str, float]) -> str:
    gap = row["decoder_one_to_one_upper_bound"] - row["decoder_one_to_one_total"]
    return (
        f"The assignment is from the {row['decoder_one_to_one_candidates']:.0f} nearest latents of "
        f"each side; the best has a sum of cosines at most {gap:.3g} higher than "
        f"{row['decoder_one_to_one_total']:.5g}."
    )


def matching_table(found: Findings) -> pl.DataFrame:
    """A row for each other set and hook point."""
    rows = [
        {
            "other": other,
            "hook_point": str(point),
            **load_pair(found.run, found.config, other, point)[0],
        }
        for other in found.config.set_names[1:]
        for point in shared_points(found.run, found.config, other)
    ]
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col(pl.Null).cast(float))


def _columns(table: pl.DataFrame) -> list[str]:
    wanted = ("other", "hook_point", *_SHOWN, *_NULLS, *_OWN)
    return [name for name in wanted if name in table.columns]


def _add_layers(report: Report, found: Findings) -> None:
    first, *others = found.config.set_names
    sets = sae_sets(found.run, found.config)
    names = {one: layer_names(list(choices)) for one, choices in sets.items()}
    if len(found.points) > 1:
        own = {
            one: load_layers(found.run, found.config, one, one)["a_to_b"]
            for one in (first, *others)
            if names[one] == names[first]
        }
        report.figure(
            "layer_pairs",
            layer_pair_matrix(
                names[first],
                names[first],
                own,
                "Shared latents of the layers of one set",
                axes=("layer", "layer"),
            ),
            "F17. Share of the latents of a layer (row) that another layer (column) of the same "
            f"set has as well; the diagonal is 1 by itself. {_same_start(found, first)}",
        )
    for other in others:
        ratios = load_layers(found.run, found.config, first, other)
        report.figure(
            f"layer_pairs_{other}",
            layer_pair_matrix(
                names[first],
                names[other],
                {f"A to {other}": ratios["a_to_b"], f"{other} to A": ratios["b_to_a"]},
                f"Shared latents of {first} and {other}",
                axes=(other, first),
            ),
            "F17. Every layer with every layer; random directions share "
            f"{ratios['chance'][0]:.2g}.",
        )


def _same_start(found: Findings, one: str) -> str:
    """What of the sharing between neighbours may be left of a common start."""
    same = load_layers(found.run, found.config, one, one)["same_index"]
    neighbours = [float(v) for v in np.diag(same, 1) if np.isfinite(v)]
    if not neighbours:
        return ""
    low, high = min(neighbours), max(neighbours)
    return (
        f"Of what neighbouring layers of {one} share, {low:.0%} to {high:.0%} has the same index "
        "in both: where SAEs began from the same random rows, that much may be left of the start."
    )
