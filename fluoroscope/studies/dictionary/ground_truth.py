"""The part of a dictionary's report that only the organism's can have: how true its latents are."""

from typing import Literal

import polars as pl

from fluoroscope.organism.prompts import VARIABLES
from fluoroscope.organism.trials import MAX_OTHER_EFFECT, MIN_EFFECT
from fluoroscope.plots.chart import Axis, Chart, Line, Scatter
from fluoroscope.runs.report import Report

_ENDS = ("effect_low", "effect_high")
_FORMATS: dict[str, str] = dict.fromkeys(
    (
        *("match", "match_low", "match_high", "alignment"),
        *("effect", *_ENDS, "other_effect", "interchange"),
    ),
    ".3f",
)


def add_ground_truth(report: Report, truth: pl.DataFrame, ceiling: pl.DataFrame) -> None:
    """`truth` and `ceiling` as `truth_table` and `ceiling_table` give them."""
    report.section("Ground truth")
    report.text(
        "This model is the organism: four variables were planted in it, so that what its latents "
        "mean can be judged. **match** is how well a reading tells its variable on held-out "
        "prompts (F1; partial Spearman for risk); saying yes to everything has an F1 of two thirds "
        "or more, and random directions tell a lot, as the table of the ceiling shows. **effect** "
        "is the share of the variable's own effect on the decision that exchanging the latents "
        "brings about, on pairs of prompts that differ in the variable alone; a *cause* has at "
        f"least {MIN_EFFECT:.0%}, and at most {MAX_OTHER_EFFECT:.0%} of any other variable's. "
        "Latents were chosen with the variables known, on other texts and people than they are "
        "judged by; *random* is the 19th of 20 random sets or directions, which 95 % of chance "
        "stays below."
    )
    report.figure(
        "truth_by_layer",
        _effects(truth, ceiling),
        "The best set of at most 5 latents of each SAE, random latents, a supervised probe, and "
        "what was planted; bands are 95 % intervals over pairs.",
    )
    report.table("ground_truth", truth, "The best latents and sets, and random ones.", _FORMATS)
    report.table("ceiling", ceiling, "What any method can be compared with.", _FORMATS)


def _effects(truth: pl.DataFrame, ceiling: pl.DataFrame) -> Chart:
    panels: dict[str, list[Line | Scatter]] = {}
    for variable in VARIABLES:
        known = ceiling.filter(pl.col("variable") == variable)
        probes = known.filter(pl.col("direction") == "probe").sort("layer")
        planted = known.filter(pl.col("direction") == "planted")
        panels[variable] = [
            *_best_sets(truth.filter(pl.col("variable") == variable)),
            Line("probe", probes["layer"].to_list(), probes["effect"].to_list(), style="dotted"),
            Scatter("planted", planted["layer"].to_list(), planted["effect"].to_list()),
        ]
    return Chart.grid(panels, x="layer", y=Axis("share of the effect"), columns=2)


def _best_sets(truth: pl.DataFrame) -> list[Line | Scatter]:
    """A line a dictionary: at each layer its best set, and the random one."""
    return [
        *_set_lines(truth.filter(pl.col("chosen_by") == "cause"), "best latents", "solid"),
        *_set_lines(truth.filter(pl.col("chosen_by") == "random"), "random latents", "dashed"),
    ]


def _set_lines(
    truth: pl.DataFrame, what: str, style: Literal["solid", "dashed"]
) -> list[Line | Scatter]:
    # What was varied stands in the key behind the hook point.
    varied = pl.col("key").str.splitn("-", 2).struct.field("field_1").fill_null("")
    named = truth.with_columns(
        name=pl.concat_str([pl.col("architecture"), varied], separator=" ").str.strip_chars()
    )
    # The single latent and the set were chosen alike: the set is shown, whichever is better.
    sets = named.sort("n_latents").group_by("name", "layer").last().sort("layer")
    found: list[Line | Scatter] = []
    for name in sorted(set(sets["name"])):
        mine = sets.filter(pl.col("name") == name)
        x, y, low, high = (mine[c].to_numpy() for c in ("layer", "effect", *_ENDS))
        found.append(Line(f"{name}, {what}", x, y, low, high, style))
    return found
