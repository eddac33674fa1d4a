"""What the report says of trackers on scenes whose tracks are known."""

import polars as pl

from fluoroscope.plots.chart import Axis, Bars, Chart, Mark
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.studies.hallucination.report_detection import without_nan
from fluoroscope.studies.hallucination.steps.validate_tracker import (
    CLAIMS,
    PAIRS,
    TABLE,
    VALIDATE,
)
from fluoroscope.studies.hallucination.tracking.synthetic import WORLDS, World

_NAMES = {"mht": "MHT", "jpda": "JPDA", "seed_cost": "seed cost"}
_QUANTITIES = {"gospa": "GOSPA", "n_switches": "identity switches"}


def add_trackers(report: Report, run: Run) -> None:
    found = pl.read_parquet(run.step_folder(VALIDATE) / TABLE)
    pairs = pl.read_parquet(run.step_folder(VALIDATE) / PAIRS)
    report.section("Trackers on known tracks")
    report.text(
        "Scenes of planted features that turn a little from layer to layer, are missed, split and "
        "stand among clutter. GOSPA adds up what is missed, false and switched (less is better). "
        "`optimum` sees all layers at once and is what the others could reach at best; `nearest` "
        "assigns a whole layer at a time (GNN), `greedy` link by link, `mht` keeps several "
        "hypotheses; `seed_cost` is the original's, by weighted costs of directions and strengths."
    )
    report.text(_worlds())
    report.text(
        "\n\n".join(
            claim_sentence(pairs, one, other, quantity)
            for one, other in CLAIMS
            for quantity in _QUANTITIES
        )
    )
    claims = claim_table(pairs)
    report.table("tracker_claims", without_nan(claims), "Each on the same scenes, paired.")
    for quantity, words in _QUANTITIES.items():
        name = f"tracker_{quantity.removeprefix('n_')}"
        caption = (
            f"{words[0].upper()}{words[1:]}, means over scenes with 95 % intervals; less is better."
        )
        report.figure(name, _chart(found, quantity), caption)
    report.table("trackers", without_nan(_own(found)), "95 % intervals over scenes.")
    report.table(
        "tracker_pairs",
        without_nan(pairs),
        "How much less GOSPA, and how many identity switches fewer, a tracker has than another, on "
        "the same scenes. Where an interval holds 0, the two are not told apart.",
    )


def claim_table(pairs: pl.DataFrame) -> pl.DataFrame:
    """A row a claim and difficulty; a claim holds where the whole interval is above 0."""
    claimed = pl.DataFrame(CLAIMS, schema=["tracker", "than"], orient="row")
    rows = [
        {
            "claim": f"{_name(row['tracker'])} beats {_name(row['than'])}",
            "world": row["world"],
            "in": words,
            "less": row[f"less_{quantity}"],
            "low": row[f"less_{quantity}_low"],
            "high": row[f"less_{quantity}_high"],
            "n_scenes": row["n_scenes"],
            "says": _verdict(row[f"less_{quantity}_low"], row[f"less_{quantity}_high"]),
        }
        for row in claimed.join(pairs, on=["tracker", "than"], maintain_order="left_right").rows(
            named=True
        )
        for quantity, words in _QUANTITIES.items()
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def claim_sentence(pairs: pl.DataFrame, one: str, other: str, quantity: str) -> str:
    """Where a claim holds, where the contrary does, and where neither is shown."""
    rows = pairs.filter((pl.col("tracker") == one) & (pl.col("than") == other))
    places: dict[str, list[str]] = {}
    for row in rows.rows(named=True):
        said = _verdict(row[f"less_{quantity}_low"], row[f"less_{quantity}_high"])
        places.setdefault(said, []).append(row["world"])
    words = [f"{said} in {', '.join(worlds)}" for said, worlds in sorted(places.items())]
    return f"**{_name(one)} beats {_name(other)} in {_QUANTITIES[quantity]}**: {'; '.join(words)}."


def _verdict(low: float, high: float) -> str:
    if low > 0:
        return "holds"
    return "the contrary holds" if high < 0 else "not shown"


def _name(tracker: str) -> str:
    return _NAMES.get(tracker, tracker)


def _own(found: pl.DataFrame) -> pl.DataFrame:
    """Without what is said in pairs."""
    return found.select(
        name for name in found.columns if name != "than" and not name.startswith("less_")
    )


def _chart(found: pl.DataFrame, quantity: str) -> Chart:
    """A panel a difficulty, each with a scale of its own."""
    panels: dict[str, list[Mark]] = {}
    for (world,), part in found.group_by("world", maintain_order=True):
        ends = (part[quantity], part[f"{quantity}_low"], part[f"{quantity}_high"])
        panels[str(world)] = [Bars(_QUANTITIES[quantity], part["tracker"].to_list(), *ends)]
    return Chart.grid(panels, y=Axis(_QUANTITIES[quantity]), columns=4, share_y=False)


def _worlds() -> str:
    return "\n".join(f"- {_world(name, world)}" for name, world in WORLDS.items())


def _world(name: str, world: World) -> str:
    return (
        f"**{name}**: {world.n_features:g} features in a layer and {world.clutter:g} detections of "
        f"nothing, {1 - world.detection:.0%} missed, mean cosine {world.cosine:g} from layer to "
        f"layer, in {world.d} dimensions"
    )
