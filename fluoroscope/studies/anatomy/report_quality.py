"""How good the SAEs are, layer by layer and text by text (F19)."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from fluoroscope.plots.anatomy.layers import Estimates
from fluoroscope.plots.anatomy.quality import cross_heatmaps, layer_quality
from fluoroscope.runs.report import Report
from fluoroscope.studies.anatomy.plans import MAIN_TEXT
from fluoroscope.studies.anatomy.report_findings import Findings
from fluoroscope.studies.anatomy.steps.cross import load_cross, mean_of

_CE = {
    "CE difference (nats)": "difference",
    "recovered of mean ablation": "recovered_of_mean",
    "recovered of zero ablation": "recovered_of_zero",
}


def add_quality(report: Report, found: Findings) -> None:
    report.section("What the SAEs keep")
    measures = {"explained variance": found.clean.summary("explained_variance")}
    if found.has_losses:
        measures |= {said: found.loss_estimates(name) for said, name in _CE.items()}
    drawn = {
        said: Estimates(*(np.array([row[i] for row in rows], float) for i in range(3)))
        for said, rows in measures.items()
    }
    words = (
        "**explained_variance** is 1 - Var(x - x^) / Var(x) over text tokens of "
        f"{found.clean.summaries[0]['n_sequences']} sequences. "
    )
    if found.has_losses:
        n = found.losses[str(found.points[0])]["n_sequences"]
        words += (
            "The **CE difference** is what a token costs more, in nats, with one hook point's "
            f"reconstruction in place, over {n} sequences; **recovered** is (CE ablated - CE "
            "reconstructed) / (CE ablated - CE clean), against the mean activation in place and, "
            "an easier reference, against zeros. Start tokens, separators and the first position "
            "stay as they are in all of them. "
        )
    report.text(
        words + "Intervals are 95 % bootstrap intervals over sequences, and are left out below 10; "
        "where documents run over many sequences they are too narrow."
    )
    report.figure("layer_quality", layer_quality(found.names, drawn), "With 95 % intervals.")
    report.table("quality_by_layer", quality_table(found), "As numbers; CE in nats a token.")


def quality_table(found: Findings) -> pl.DataFrame:
    rows = []
    for i, (layer, point) in enumerate(zip(found.names, found.points, strict=True)):
        explained = found.clean.summary("explained_variance")[i]
        row = {"layer": layer, **_interval("explained_variance", explained)}
        row |= _interval("mean_square_error", found.clean.summary("mean_square_error")[i])
        if found.has_losses:
            own = found.losses[str(point)]
            row |= {f"ce_{way}": own[way][0] for way in ("clean", "reconstructed", "mean", "zero")}
            row |= _interval("ce_difference", own["difference"])
            row |= _interval("recovered_of_mean", own["recovered_of_mean"])
            row |= _interval("recovered_of_zero", own["recovered_of_zero"])
            row["n_tokens"] = own["n_tokens"]
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col(pl.Null).cast(float))


def _interval(name: str, of: Sequence[float | None]) -> dict[str, float | None]:
    return {name: of[0], f"{name}_low": of[1], f"{name}_high": of[2]}


def add_cross(report: Report, found: Findings) -> None:
    """SAEs of every set on every text."""
    table = cross_table(found)
    sets, corpora = found.config.set_names, list(found.config.corpora())
    report.section("SAEs and texts")
    report.text(
        f"Each set of SAEs on the first sequences of each text, {found.config.cross.n_sequences} "
        "where there are so many: "
        f"`{MAIN_TEXT}` is the text of this run. Heat maps are means over the hook points that "
        "all sets have."
    )
    named = [corpus or MAIN_TEXT for corpus in corpora]
    points = [set(own["hook_point"]) for _, own in table.group_by("saes")]
    common = sorted(set.intersection(*points))

    def matrix(column: str) -> np.ndarray:
        values = np.full((len(sets), len(named)), np.nan)
        if column in table.columns:
            for i, one in enumerate(sets):
                for j, corpus in enumerate(named):
                    mine = table.filter(
                        (pl.col("saes") == one)
                        & (pl.col("text") == corpus)
                        & pl.col("hook_point").is_in(common)
                    )
                    values[i, j] = mean_of(mine[column].to_list())
        return values

    maps = [matrix(c) for c in ("explained_variance", "mean_square_error", "ce_difference")]
    report.figure("cross_heatmaps", cross_heatmaps(sets, named, *maps), "F19.")
    report.table("cross", table, "Of each layer, with 95 % intervals over sequences.")


def cross_table(found: Findings) -> pl.DataFrame:
    rows = []
    for (name, corpus), points in load_cross(found.run, found.config).items():
        for point, own in points.items():
            row = {"saes": name, "text": corpus, "hook_point": point}
            for said, key in (
                ("explained_variance", "explained_variance"),
                ("mean_square_error", "mean_square_error"),
                ("ce_difference", "difference"),
            ):
                if key in own:
                    row |= _interval(said, own[key])
            counts = {name: own[name] for name in ("n_sequences", "n_text_tokens")}
            rows.append({**row, **counts})
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col(pl.Null).cast(float))
