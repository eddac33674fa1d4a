"""What the report says of the choice of a layer: scores, choices, and what the layers make of the
texts.
"""

import numpy as np
import polars as pl
from jaxtyping import Float
from scipy.stats import rankdata

from fluoroscope.core.storage import read_json
from fluoroscope.plots.chart import Axis, Chart, Heatmap, Line, Mark, Reference, Scatter
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.studies.plugin.form import middle_layer
from fluoroscope.studies.plugin.report_findings import Findings, SetFindings
from fluoroscope.studies.plugin.report_trainings import file_name
from fluoroscope.studies.plugin.selection.features import LayerFeatures
from fluoroscope.studies.plugin.selection.methods import METHODS, LayerScores
from fluoroscope.studies.plugin.steps.choose import choices_of
from fluoroscope.studies.plugin.steps.read import load_features
from fluoroscope.studies.plugin.steps.select import COMPONENTS, SELECT, load_scores
from fluoroscope.studies.plugin.steps.texts import set_key

_MOST_POINTS = 400

MEASURES = {
    "ilm": "probe, Fisher's ratio and silhouette of the texts' states, less a price of depth",
    "ilm_flat": "the same mixture without a price of depth",
    "ilm_manual": "ILM as its manual says: of the components that go along with the label",
    "logme": "evidence of a linear model of the labels (LogME)",
    "hscore": "regularised H-score",
    "loo": "ridge regression, each text left out in turn",
    "variability": "spread within classes beside that between them",
    "plug_side": "what the layer's own branch adds to the encoder's vectors",
    "gradient_fit": "loss of maps and head that are trained with a frozen encoder",
    "halving": "short trainings, the best of which go on",
    "last": "no scores",
    "middle": "no scores",
}


def add_choice(report: Report, run: Run, found: Findings) -> None:
    report.section("The choice of a layer")
    report.text(
        "Scores are never from the test side. All but two are from the training side alone: "
        "`gradient_fit` is judged on rows of the validation side, and `halving` by losses on it, "
        "which also pick the epoch of every training. Those of the texts (ILM, LogME, H-score, "
        "ridge, variability) say what a layer, after all layers before it, makes of a text that "
        "the large model reads; **the plug uses the layer's weights on one vector of another "
        "model**, which is something else, so nothing makes the one foretell the other. "
        "`plug_side` and `gradient_fit` measure the weights themselves."
    )
    report.table(
        "choices",
        choices_table(run, found),
        "Which layer each method takes; `n_as_good` layers have its score, and of equals the first "
        "is taken: where that is all of them, the method says nothing.",
        {"accuracy": ".3f"},
    )
    for one in found.sets:
        scores, file = load_scores(run, one.name), file_name(one.name)
        report.subsection(f"Scores of {one.name}")
        report.text(_of_depth(run, found, one, scores))
        report.figure(
            f"ranks.{file}",
            _rank_map(scores, choices_of(run, one.name)),
            f"{one.name}: how many layers each layer outdoes, by each method; beside a method's "
            "name the layer that it takes.",
        )
        report.figure(
            f"ilm.{file}",
            _ilm_chart(scores),
            f"{one.name}: the probe's accuracy on a held-out fifth, within one standard error, "
            "the mixture, and the mixture less its price of depth.",
        )
        _add_components(report, run, one)
        table = scores.table
        kept = [name for name in table.columns if table[name].null_count() < len(table)]
        report.table(
            f"layer_scores.{file}",
            table.select(kept),
            f"{one.name}: every score that was measured; `rank` is by "
            f"{found.config.selection.method}.",
        )


def add_read(report: Report, run: Run, found: Findings) -> None:
    """What the large model makes of the texts: sizes by layer, and views of some layers."""
    report.section("What the layers read and make")
    features = {one.name: load_features(run, one.name) for one in found.sets}
    lines = [
        Line(name, np.arange(one.n_layers), one.input_rms, markers=True)
        for name, one in features.items()
    ]
    report.figure(
        "input_rms",
        Chart.single(*lines, x="layer", y=Axis("root mean square of its input", log=True)),
        "What each layer reads at home (median over tokens, first tokens and attention sinks left "
        "out). Plugged in, it reads whatever the map makes; a layer that is used to large vectors "
        "adds more to small ones, so that depth and gain go together. `variant=rms` matches them.",
    )
    for one in found.sets:
        report.figure(
            f"pca.{file_name(one.name)}",
            pca_chart(features[one.name], one.about["classes"], one.layer),
            f"{one.name}: states of texts of the training side on their first two principal "
            f"components, rows of unit length as ILM takes them, {_MOST_POINTS} texts at most.",
        )


def choices_table(run: Run, found: Findings) -> pl.DataFrame:
    """A row a data set and method, with the accuracy where that layer was trained."""
    rows = []
    for one in found.sets:
        trained = {arm.layer: arm for arm in one.arms if arm.name == one.main.name}
        known = load_scores(run, one.name).by_method()
        as_good = {name: int((own == np.nanmax(own)).sum()) for name, own in known.items()}
        for method, layer in choices_of(run, one.name).items():
            arm = trained.get(layer)
            rows.append(
                {
                    "data_set": one.name,
                    "method": method,
                    "layer": layer,
                    "n_as_good": as_good.get(method),
                    "is_main": method == found.config.selection.method,
                    "accuracy": None if arm is None else one.judged[arm.key].right.mean(),
                    "measures": MEASURES.get(method, ""),
                }
            )
    return pl.DataFrame(rows, schema_overrides={"accuracy": pl.Float64, "n_as_good": pl.Int64})


def pca_chart(features: LayerFeatures, classes: list[str], chosen: int | None) -> Chart:
    """A panel a layer: the first, a quarter, the middle, the chosen one, the last."""
    last = features.n_layers - 1
    layers = {0, round(last / 4), middle_layer(features.n_layers), last}
    layers |= set() if chosen is None else {chosen}
    shown = np.linspace(0, len(features.labels) - 1, min(len(features.labels), _MOST_POINTS))
    rows = np.unique(shown.astype(np.int64))
    panels: dict[str, list[Mark]] = {}
    for layer in sorted(layers):
        points, shares = two_components(features.layer(layer)[rows])
        name = f"layer {layer}{', chosen' if layer == chosen else ''} ({shares.sum():.0%})"
        marks: list[Mark] = []
        for number, label in enumerate(classes):
            own = points[features.labels[rows] == number]
            marks.append(Scatter(label, own[:, 0], own[:, 1]))
        panels[name] = marks
    return Chart.grid(
        panels, x="first component", y="second component", share_x=False, share_y=False
    )


def two_components(
    states: Float[np.ndarray, "n d_model"],
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " 2"]]:
    """Rows of unit length on their first two components, and the components' shares of the
    variance; the largest coordinate along each is positive.
    """
    unit = states / np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-12)
    centred = unit - unit.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    points = (left * values)[:, :2]
    largest = points[np.abs(points).argmax(axis=0), np.arange(points.shape[1])]
    points = points * np.where(largest < 0, -1.0, 1.0)
    total = max(float((values**2).sum()), 1e-300)
    return points, values[:2] ** 2 / total


def outdone(values: Float[np.ndarray, " layers"]) -> Float[np.ndarray, " layers"]:
    """How many layers have a lower score; of equals half. NaN where a layer has none."""
    found, is_there = np.full(len(values), np.nan), np.isfinite(values)
    found[is_there] = rankdata(values[is_there]) - 1
    return found


def _of_depth(run: Run, found: Findings, one: SetFindings, scores: LayerScores) -> str:
    choices, bias = choices_of(run, one.name), found.config.selection.ilm.depth_bias
    said = ""
    if {"ilm", "ilm_flat"} <= choices.keys():
        with_price, without = choices["ilm"], choices["ilm_flat"]
        same = "the same layer" if without == with_price else f"layer {without}"
        said = (
            f"ILM takes layer {with_price} at a depth bias of {bias:g}; at 0 it would take {same}. "
        )
    probe, errors = (scores.table[name].to_numpy() for name in ("probe", "probe_se"))
    if np.isfinite(probe.astype(float)).any():
        best = int(np.nanargmax(probe))
        near = int((probe >= probe[best] - 2 * max(errors[best], np.nanmedian(errors))).sum())
        said += (
            f"By the probe alone {near} of {scores.n_layers} layers are within two standard errors "
            "of the best."
        )
    return said


def _rank_map(scores: LayerScores, choices: dict[str, int]) -> Chart:
    known = scores.by_method()
    names = [name for name in METHODS if name in known]
    values = np.stack([outdone(known[name]) for name in names])
    layers = [str(layer) for layer in range(scores.n_layers)]
    labels = [f"{name} ({choices[name]})" if name in choices else name for name in names]
    heat = Heatmap(values, layers, labels, "layers outdone", limits=(0, scores.n_layers - 1))
    return Chart.single(heat, x="layer")


def _ilm_chart(scores: LayerScores) -> Chart:
    table, layers = scores.table, np.arange(scores.n_layers)
    probe, error = (table[n].fill_null(np.nan).to_numpy() for n in ("probe", "probe_se"))
    lines = [Line("probe", layers, probe, probe - error, probe + error)]
    for name in ("mixed", "final"):
        values = table[name].fill_null(np.nan).to_numpy()
        lines.append(Line(name, layers, values, style="dashed" if name == "mixed" else "solid"))
    top = float(np.nanmax(table["final"].fill_null(np.nan).to_numpy()))
    best = int(np.nanargmax(table["final"].fill_null(np.nan).to_numpy()))
    taken = [Reference(best, "taken by ilm", axis="x")] if np.isfinite(top) else []
    return Chart.single(*lines, x="layer", y="score", references=taken)


def _add_components(report: Report, run: Run, one: SetFindings) -> None:
    folder = run.step_folder(SELECT) / "shards" / set_key(one.name)
    values = np.array(read_json(folder / COMPONENTS), dtype=float)
    if values.ndim != 2 or not np.isfinite(values).any():
        return
    heat = Heatmap(
        values.T,
        [str(layer) for layer in range(len(values))],
        [f"component {number + 1}" for number in range(values.shape[1])],
        "|r| with the label",
        limits=(0, 1),
    )
    report.figure(
        f"components.{file_name(one.name)}",
        Chart.single(heat, x="layer"),
        f"{one.name}: how far each principal component of a layer's states goes along with the "
        "label (of several classes, with the class that it fits best).",
    )
