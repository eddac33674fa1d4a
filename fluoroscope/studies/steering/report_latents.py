"""What the report says of the picks: how sure they are, what shuffles give, and identity cards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fluoroscope.features.correlation_nulls import ALL
from fluoroscope.plots.chart import Axis, Chart, Line, Mark, Reference, Scatter
from fluoroscope.runs.interval_text import without_nan
from fluoroscope.runs.report import Report
from fluoroscope.runs.report_cards import Context, FeatureCard
from fluoroscope.runs.run import Run
from fluoroscope.steps.collect import COLLECT
from fluoroscope.studies.steering.report_findings import (
    Findings,
)

_OF_TABLE = (
    "n_active", "frequency", "frequency_success", "frequency_failure", "p_layer", "p_all",
    "is_significant",
)  # fmt: skip
_SMALL = {"q": ".2g", "p_layer": ".2g", "p_all": ".2g"}


def add_latents(report: Report, run: Run, found: Findings) -> None:
    report.section("What was picked")
    folder, recipe = run.step_folder(COLLECT), found.config.main
    own = found.picks.filter(pl.col("recipe") == found.main)
    if not own["latent"].is_not_null().any():
        report.text(
            f"*{found.main}* steers along {len(own)} directions that are no latents, so there is "
            "no card to show."
            if len(own)
            else f"*{found.main}* picked nothing."
        )
        return
    table = pl.read_parquet(folder / f"latents-{recipe.pool}.parquet")
    null = pl.read_parquet(folder / f"null-{recipe.pool}.parquet")
    n_tests = int(table["is_tested"].sum())
    n_significant = int(table["is_significant"].sum())
    largest = null.filter(pl.col("hook_point") == ALL)["largest"].to_numpy()
    report.text(
        f"Of the latents of all {len(found.config.points)} hook points {n_tests:,} are active in "
        f"{found.config.collect.min_active} training samples or more; {n_significant:,} of them go "
        f"along with the score (q below {found.config.collect.alpha:g}, Benjamini and Hochberg "
        f"over all). With scores shuffled {len(largest)} times the largest |r| of any latent is "
        f"{np.median(largest):.3f} in the median, and below {np.quantile(largest, 0.95):.3f} in "
        "95 % of the shuffles. To go along with the score is no cause; the test side says what "
        "steering with it does."
    )
    if found.config.main.samples is not None:
        report.text(f"It looked at the first {found.config.main.samples} training samples alone.")
    report.figure(
        "null",
        _null_chart(table, null, own),
        "The largest |r| of each hook point, over shuffles (median, and up to which 95 % of them "
        "go) and as it is; points are the picks.",
    )
    report.table(
        "picks",
        without_nan(picks_table(own, table, _stability(folder, recipe.pool, recipe.sign))),
        "Latents of the main method. `frequency` is the share of training samples in which one is "
        "active, also of successes and failures; `stability` is how often a resample of the groups "
        "has it first in its layer. `p_layer` and `p_all` hold for all latents of the layer and "
        "of all layers, by shuffles.",
        _SMALL,
    )
    if found.cards:
        _add_cards(report, found, table)


def picks_table(
    picks: pl.DataFrame, table: pl.DataFrame, stability: pl.DataFrame | None
) -> pl.DataFrame:
    """A row a latent of a plan, with what was collected of it."""
    key = ["hook_point", "latent"]
    chosen = picks.filter(pl.col("latent").is_not_null()).drop("recipe", "frequency")
    joined = chosen.join(table.select(*key, *_OF_TABLE), on=key, how="left", maintain_order="left")
    if stability is None:
        return joined
    shares = stability.select(*key, stability="share")
    joined = joined.join(shares, on=key, how="left", maintain_order="left")
    # What no resample puts first is not in the table of stability.
    return joined.with_columns(pl.col("stability").fill_null(0.0))


def _stability(folder: Path, pool: str, sign: str) -> pl.DataFrame | None:
    file = folder / f"stability-{pool}.parquet"
    if not file.exists():
        return None
    return pl.read_parquet(file).filter(pl.col("sign") == sign)


def _null_chart(table: pl.DataFrame, null: pl.DataFrame, picks: pl.DataFrame) -> Chart:
    points = table["hook_point"].unique(maintain_order=True).to_list()
    places = list(range(len(points)))
    tops, middle, high = [], [], []
    for point in points:
        own = table.filter((pl.col("hook_point") == point) & pl.col("is_tested"))
        tops.append(float(own["r"].abs().max() or np.nan))  # pyright: ignore[reportArgumentType]
        shuffled = null.filter(pl.col("hook_point") == point)["largest"].to_numpy()
        middle.append(float(np.median(shuffled)))
        high.append(float(np.quantile(shuffled, 0.95)))
    marks: list[Mark] = [
        Line("shuffled", places, middle, np.zeros(len(places)), high, style="dashed"),
        Line("observed", places, tops, markers=True),
    ]
    named = picks.filter(pl.col("latent").is_not_null() & pl.col("r").is_not_null())
    if len(named):
        labels = [
            f"latent {j} at {p}" for p, j in zip(named["hook_point"], named["latent"], strict=True)
        ]
        x = [points.index(point) for point in named["hook_point"]]
        marks.append(Scatter("picked", x, named["r"].abs(), labels))
    all_95 = float(np.quantile(null.filter(pl.col("hook_point") == ALL)["largest"], 0.95))
    lines = [Reference(all_95, "95 % over all hook points")]
    chart_x = "hook point, from the first" if len(points) > 1 else points[0]
    top = max(1.0, 1.05 * all_95)
    return Chart.single(*marks, x=chart_x, y=Axis("largest |r|", limits=(0, top)), references=lines)


def _add_cards(report: Report, found: Findings, table: pl.DataFrame) -> None:
    report.subsection("Identity cards")
    report.text(
        "Each latent with the training samples in which it is most active where a token is drawn "
        "(ringed; one sample a group), and the tokens whose logits its direction raises and lowers "
        "directly. A card describes; it proves nothing."
    )
    picks = found.picks.filter(pl.col("recipe") == found.main)
    report.cards([_card(card, picks, table) for card in found.cards])


def _card(
    card: Mapping[str, Any],
    picks: pl.DataFrame,
    table: pl.DataFrame,  # Any: JSON values.
) -> FeatureCard:
    at = (pl.col("hook_point") == card["hook_point"]) & (pl.col("latent") == card["latent"])
    pick, latent = picks.filter(at).row(0, named=True), table.filter(at).row(0, named=True)
    numbers = {
        "r": pick["r"],
        "coefficient": pick["coefficient"],
        "in successes": latent["frequency_success"],
        "in failures": latent["frequency_failure"],
    }
    contexts = [
        Context(one["pieces"], one["activations"], one["marked"]) for one in card["contexts"]
    ]
    scores = ", ".join(f"{one['score']:.2f}" for one in card["contexts"])
    return FeatureCard(
        f"Latent {card['latent']} at {card['hook_point']}",
        {name: value for name, value in numbers.items() if value is not None},
        contexts,
        [(str(token), float(effect)) for token, effect in card["promoted"]],
        [(str(token), float(effect)) for token, effect in card["suppressed"]],
        f"Scores of these samples: {scores}." if scores else "Active in no training sample.",
    )
