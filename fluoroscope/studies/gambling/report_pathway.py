"""The report's section on the pathway: probes, lens, what goes together, what moves what."""

import itertools
from typing import Literal

import numpy as np
import polars as pl

from fluoroscope.models.hook_points import HookPoint
from fluoroscope.plots.chart import Axis, Chart, Line, Mark, Reference, Scatter
from fluoroscope.plots.style import CATEGORICAL, MUTED
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.studies.gambling.config import GamblingConfig
from fluoroscope.studies.gambling.steps.pathway import (
    CORRELATIONS_FILE,
    EDGES_FILE,
    LENS_FILE,
    NODES_FILE,
    PATHS_FILE,
    PROBES_FILE,
    SHUFFLED_FILE,
    read_pathway,
)

_SHOWN = 30
_ENDS = ("auroc", "auroc_low", "auroc_high")
_STYLES: tuple[tuple[str, Literal["solid", "dashed", "dotted"]], ...] = (
    ("strongest third", "solid"),
    ("middle third", "dashed"),
    ("weakest third", "dotted"),
)
_P = {"p": ".2g", "q": ".2g"}


def add_pathway(report: Report, run: Run, config: GamblingConfig) -> None:
    report.section("How the decision forms from layer to layer")
    probes, lens = read_pathway(run, PROBES_FILE), read_pathway(run, LENS_FILE)
    edges, nodes = read_pathway(run, EDGES_FILE), read_pathway(run, NODES_FILE)
    followed = lens if len(lens) else probes
    n_games = max(followed["games"].to_list(), default=0)
    only_last = " Only their last decisions were recorded." if _is_last(config) else ""
    report.text(
        f"{n_games} whole games, none of which latents were chosen on; every condition in turn."
        f"{only_last}"
        if n_games
        else "No decision of a held-out game could be read, so there is no pathway to show."
    )
    if len(probes):
        _add_probes(report, probes, lens)
    if len(lens):
        _add_lens(report, lens)
    if len(nodes):
        _add_edges(report, edges, nodes, config)
        _add_paths(report, read_pathway(run, PATHS_FILE))
    correlated = read_pathway(run, CORRELATIONS_FILE)
    if len(correlated):
        _add_correlations(report, correlated, read_pathway(run, SHUFFLED_FILE), edges)


def _is_last(config: GamblingConfig) -> bool:
    return config.record.decisions == "last"


def _add_probes(report: Report, probes: pl.DataFrame, lens: pl.DataFrame) -> None:
    report.subsection("What a probe reads")
    first = probes.row(0, named=True)
    best = lens.filter(pl.col("coming") == "all")
    ceiling = best["auroc"][-1] if len(best) else None
    report.text(
        "A logistic regression on the activations at the last token of the prompt tells whether "
        "the coming decision is to stop; it is judged on games that it was not fitted on. "
        f"**covariates** is the same on what is known without looking inside (balance, round, "
        f"last outcome, prompt): what counts is the `gain` over it. **shuffled** has labels that "
        f"were exchanged between games within {first['exchanged_within']}. Always saying the more "
        f"frequent decision is right in {first['majority']:.1%}."
        + (
            f" Decisions are drawn at random: their own probability has an AUROC of {ceiling:.3f}, "
            "the most that any probe can hope for."
            if ceiling is not None
            else ""
        )
    )
    report.figure("pathway-probes", _probe_chart(probes), "Bands: 95 %, over games.")
    report.table("pathway-probe-table", probes, "AUROC and accuracy of the probes.")


def _probe_chart(probes: pl.DataFrame) -> Chart:
    layers = probes.filter(pl.col("layer").is_not_null()).sort("layer", maintain_order=True)
    known = probes.row(0, named=True)
    x = layers["layer"].to_numpy()
    value, low, high = (layers[name].to_numpy() for name in _ENDS)
    flat, below, above = (np.full(len(x), _number(known[name])) for name in _ENDS)
    marks = [
        Line("activations", x, value, low, high, markers=True),
        Line("covariates", x, flat, below, above, style="dashed"),
        Line("shuffled, mean", x, layers["shuffled_auroc"].to_numpy(), color=MUTED),
        Line(
            "shuffled, 95th percentile",
            x,
            layers["shuffled_auroc_95"].to_numpy(),
            style="dotted",
            color=MUTED,
        ),
    ]
    return Chart.single(*marks, x="layer", y="AUROC of stopping", references=[Reference(0.5)])


def _add_lens(report: Report, lens: pl.DataFrame) -> None:
    report.subsection("What would be said at each layer")
    report.text(
        "The residual stream of each layer, behind the prompt with its cue, through the final norm "
        "and the head (logit lens), by the decision that came. **share** is P(stop) among stop "
        "and bet; **legible** is what both have together: where it is small, the lens reads "
        "nothing. The last layer is the model's own distribution."
    )
    panels: dict[str, list[Mark]] = {}
    for title, name in (
        ("P(stop)", "p_stop"),
        ("share", "stop_share"),
        ("legible", "legible"),
    ):
        panels[title] = [
            _lens_line(lens.filter(pl.col("coming") == coming), coming, name)
            for coming in ("stop", "bet")
            if len(lens.filter(pl.col("coming") == coming))
        ]
    chart = Chart.grid(panels, x="layer", y=Axis("probability", limits=(0, 1)))
    report.figure("pathway-lens", chart, "By the coming decision; bands: 95 %, over games.")
    report.table("pathway-lens-table", lens)


def _lens_line(part: pl.DataFrame, coming: str, name: str) -> Line:
    mean, low, high = (part[f"{name}{end}"].to_numpy() for end in ("", "_low", "_high"))
    return Line(f"before {coming}", part["layer"].to_numpy(), mean, low, high, markers=True)


def _add_edges(
    report: Report, edges: pl.DataFrame, nodes: pl.DataFrame, config: GamblingConfig
) -> None:
    report.subsection("What moves what")
    pathway = config.pathway
    n_exceeds = int(edges["exceeds_controls"].sum())
    report.text(
        f"Each latent was set to its mean of decisions to bet, then to that of decisions to stop, "
        f"in {nodes['states'][0]} decisions of as many games, and later latents were read at the "
        f"same position: exact, nothing is sampled. An **effect** is the change of the target in "
        f"its standard deviations. Of {len(edges):,} edges {int((edges['q'] < 0.05).sum()):,} "
        f"have q < 0.05 and {n_exceeds:,} exceed the 95th percentile of {pathway.controls} random "
        f"latents along which as much was added; **{int(edges['is_causal'].sum()):,} do both** "
        "and are called causal. An effect is by all ways from one to the other."
    )
    shown = _strongest(edges, nodes, pathway.edges)
    if len(shown):
        report.figure(
            "pathway-path",
            _path_chart(shown, nodes),
            f"The {len(shown)} causal edges that carry most to the decision: the effect on the "
            "target times what the target does to the share of stopping. Height: what setting "
            "the latent itself does to it. Style of a line: how much the edge carries.",
        )
    report.table(
        "pathway-latents",
        nodes.sort(pl.col("stop_effect").abs(), descending=True, maintain_order=True).head(_SHOWN),
        "The latents and what each does to the decision.",
        _P,
    )
    caption = "The causal edges that carry most to the decision."
    report.table("pathway-edges", shown, caption, _P)


def _strongest(edges: pl.DataFrame, nodes: pl.DataFrame, n: int) -> pl.DataFrame:
    """The causal edges with the largest `carried`: the change of the share of stopping that goes
    with what the edge does to its target.
    """
    swing = (pl.col("stop_mean") - pl.col("bet_mean")) / pl.col("sd")
    to_stop = nodes.select(
        pl.col("hook_point").alias("target_hook_point"),
        pl.col("latent").alias("target_latent"),
        (pl.col("stop_effect") / swing).alias("to_stop"),
    )
    on = ["target_hook_point", "target_latent"]
    causal = edges.filter("is_causal").join(to_stop, on=on, how="left", maintain_order="left")
    carried = causal.with_columns((pl.col("effect") * pl.col("to_stop")).alias("carried"))
    by_size = pl.col("carried").abs()
    return carried.drop("to_stop").sort(by_size, descending=True, maintain_order=True).head(n)


def _path_chart(edges: pl.DataFrame, nodes: pl.DataFrame) -> Chart:
    """Latents as points by layer and effect on the decision, edges as lines between them."""
    place = {
        (row["hook_point"], row["latent"]): (_x(row["hook_point"]), row["stop_effect"])
        for row in nodes.iter_rows(named=True)
    }
    marks: list[Mark] = []
    for (name, style), part in zip(_STYLES, _thirds(edges), strict=True):
        if len(part):
            marks.append(Line(name, *_segments(part, place), style=style, color=MUTED))
    used = {
        (row[f"{end}_hook_point"], row[f"{end}_latent"])
        for row in edges.iter_rows(named=True)
        for end in ("source", "target")
    }
    is_used = [(row["hook_point"], row["latent"]) in used for row in nodes.iter_rows(named=True)]
    drawn = nodes.filter(pl.Series(is_used, dtype=pl.Boolean))
    for name, color, chosen in (
        ("pushes to stop", CATEGORICAL[0], pl.col("is_causal") & (pl.col("stop_effect") > 0)),
        ("pushes to bet", CATEGORICAL[1], pl.col("is_causal") & (pl.col("stop_effect") < 0)),
        ("neither", CATEGORICAL[7], ~pl.col("is_causal")),
    ):
        part = drawn.filter(chosen)
        if len(part):
            marks.append(_points(name, color, part))
    return Chart.single(*marks, x="layer", y="change of the share of stopping")


def _thirds(edges: pl.DataFrame) -> list[pl.DataFrame]:
    """Of rows in order; what is left over goes to the first."""
    ends = [0, *(len(edges) - (2 - i) * (len(edges) // 3) for i in range(3))]
    return [edges[start:stop] for start, stop in itertools.pairwise(ends)]


def _segments(
    edges: pl.DataFrame, place: dict[tuple[str, int], tuple[float, float]]
) -> tuple[list[float], list[float]]:
    """The ends of all edges, with a gap between one edge and the next."""
    x: list[float] = []
    y: list[float] = []
    for row in edges.iter_rows(named=True):
        ends = [
            place[row[f"{end}_hook_point"], row[f"{end}_latent"]] for end in ("source", "target")
        ]
        x += [ends[0][0], ends[1][0], np.nan]
        y += [ends[0][1], ends[1][1], np.nan]
    return x, y


def _points(name: str, color: str, part: pl.DataFrame) -> Scatter:
    labels = [
        f"{row['hook_point']} latent {row['latent']}: {row['stop_effect']:+.3f}"
        for row in part.iter_rows(named=True)
    ]
    x = [_x(point) for point in part["hook_point"]]
    return Scatter(name, x, part["stop_effect"].to_numpy(), labels=labels, color=color)


def _x(hook_point: str) -> float:
    return float(HookPoint(hook_point).layer)


def _add_paths(report: Report, paths: pl.DataFrame) -> None:
    if not len(paths):
        report.text("No two causal edges follow one another.")
        return
    report.text(
        "Chains of two causal edges and the decision. Slopes are per standard deviation; "
        "**through** is what the chain by itself would do to the share of stopping for one "
        "standard deviation of its source, **stop_whole** what setting the source really does."
    )
    report.table("pathway-paths", paths, "The strongest chains.")


def _add_correlations(
    report: Report, correlated: pl.DataFrame, shuffled: pl.DataFrame, edges: pl.DataFrame
) -> None:
    report.subsection("What goes together")
    found = correlated.filter("is_correlated")
    causal = edges.filter("is_causal").select(
        earlier_hook_point="source_hook_point", earlier_latent="source_latent",
        later_hook_point="target_hook_point", later_latent="target_latent",
    )  # fmt: skip
    passing = shuffled["n_correlated"].to_numpy()
    both = len(found.join(causal, on=causal.columns, how="semi"))
    report.text(
        "Correlations are no causes: the text before may drive both. Over "
        f"{correlated['decisions'][0]} decisions, one a game, {len(found):,} of "
        f"{len(correlated):,} pairs of latents of different layers have q < 0.05, |r| > 0.4 and "
        "more than the 95th percentile of their shuffles. With rows exchanged between games "
        f"{np.mean(passing):.1f} pairs pass the first two on average, at most {passing.max()}. "
        f"Setting the earlier one moves the later, by the rules above, in {both:,} of them."
    )
    strongest = found.sort(pl.col("r").abs(), descending=True, maintain_order=True).head(_SHOWN)
    report.table("pathway-correlations", strongest, "The strongest correlations.", _P)


def _number(value: float | None) -> float:
    return np.nan if value is None else value
