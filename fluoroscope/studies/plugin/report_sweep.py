"""What the report says where every layer was trained: accuracy by layer, and what the scores that
need no training foretold of it.
"""

import numpy as np
import polars as pl

from fluoroscope.plots.chart import Axis, Chart, Line, Mark, Panel, Reference
from fluoroscope.runs.events import read_events
from fluoroscope.runs.interval_text import between
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.studies.plugin.form import BASE
from fluoroscope.studies.plugin.report_findings import Findings, SetFindings
from fluoroscope.studies.plugin.selection.sweep_agreement import sweep_agreement
from fluoroscope.studies.plugin.steps.choose import choices_of
from fluoroscope.studies.plugin.steps.halve import FIRST, SECOND
from fluoroscope.studies.plugin.steps.read import READ
from fluoroscope.studies.plugin.steps.select import load_scores
from fluoroscope.studies.plugin.steps.train import TRAIN

_SAYS = "Layers are scored: "


def add_sweep(report: Report, run: Run, found: Findings) -> None:
    swept = [one for one in found.sets if len(_layers(one)) == found.config.n_layers > 1]
    if not swept:
        return
    report.section("Every layer trained")
    report.figure(
        "layers",
        _by_layer(found, swept),
        "Test accuracy by layer with 95 % intervals (groups of examples and seeds drawn again); "
        "dotted: the encoder alone and controls. Where all is right, the interval is wide: each "
        "group of examples counts once.",
    )
    if found.config.chooses:
        frame = pl.concat([_agreement(run, found, one) for one in swept])
        report.text(
            "**Regret** is the accuracy of the best layer less that of the layer that a method "
            "takes. The best of many noisy layers looks better than it is, and so does any regret; "
            f"{_crossed(found.config.seeds)} "
            "**Tau** (Kendall's) is between a method's scores and the accuracies of all layers. "
            "`gap_recovered` is the share of the gap between the last and the best layer, and "
            "empty where that gap is below two standard errors. Intervals draw groups of examples "
            "and seeds again and take the best layer as given; of that layer itself the regret is "
            "0 by construction and has none. *random* is a layer drawn evenly, in expectation."
        )
        report.text("\n".join(f"- {_in_words(frame, one)}" for one in swept))
        report.table(
            "agreement",
            frame,
            "What each method foretold.",
            dict.fromkeys(("accuracy", "regret", "regret_low", "regret_high"), ".4f"),
        )
    seconds = _seconds(run)
    if seconds:
        report.text(f"**What it cost in this run**: {seconds}.")


def _crossed(n_seeds: int) -> str:
    """What `regret_crossed` is of, and what it leaves."""
    halved = "test examples" if n_seeds == 1 else "the trainings and of the test examples"
    said = (
        f"`regret_crossed` takes the best layer on one half of {halved} and compares on the other: "
        "about 0 or below says that no layer is known to be better. "
    )
    return said + (
        "There is one training of each layer, in both halves: one that was lucky stays so."
        if n_seeds == 1
        else "Half of the trainings find the best layer less often, so that it is a low guess."
    )


def _layers(one: SetFindings) -> dict[int, str]:
    """Layer -> key of the main arm with it."""
    main = one.main
    keys = {
        arm.layer: arm.key for arm in one.arms if arm.name == main.name and arm.layer is not None
    }
    return {layer: keys[layer] for layer in sorted(keys)}


def _agreement(run: Run, found: Findings, one: SetFindings) -> pl.DataFrame:
    right = np.stack([one.judged[key].right for key in _layers(one).values()])
    scores = load_scores(run, one.name).by_method()
    others = {name: layer for name, layer in choices_of(run, one.name).items()
              if name not in {*scores, "last", "middle"}}  # fmt: skip
    frame = sweep_agreement(
        right.mean(axis=2),
        scores,
        found.config.seed,
        choices=others,
        is_right=right,
        groups=one.side.groups,
    )
    return frame.select(pl.lit(one.name).alias("data_set"), pl.all())


def _in_words(frame: pl.DataFrame, one: SetFindings) -> str:
    own = frame.filter(pl.col("data_set") == one.name)
    known = own.filter(pl.col("tau").is_not_null()).sort("tau", descending=True)
    said = f"{one.name}: best layer {_best(own):.3f}"
    random = own.filter(pl.col("method") == "random").row(0, named=True)
    said += f", mean of all layers {random['accuracy']:.3f}"
    if not len(known):
        return said + "; no method's scores can be held against the accuracies."
    sure = known.filter(pl.col("tau_low") > 0)["method"].to_list()
    best = known.row(0, named=True)
    tau = between(best["tau"], best["tau_low"], best["tau_high"])
    said += f". Of {len(known)} methods *{best['method']}* agrees best, tau {tau}"
    return said + (
        f"; above 0 beyond its interval: {', '.join(sure)} (each looked at by itself)."
        if sure
        else "; no method's tau is above 0 beyond its interval."
    )


def _best(own: pl.DataFrame) -> float:
    row = own.row(0, named=True)
    return row["accuracy"] + row["regret"]


def _by_layer(found: Findings, swept: list[SetFindings]) -> Chart:
    panels: list[Panel] = []
    for one in swept:
        keys = _layers(one)
        ends = [found.scores(one.judged[key], one.side)["accuracy"] for key in keys.values()]
        layers = np.array(list(keys))
        value, low, high = (np.array(part, dtype=float) for part in zip(*ends, strict=True))
        marks: list[Mark] = [Line(one.main.name, layers, value, low, high, markers=True)]
        for arm in one.arms:
            if arm.name in (BASE, "linear", "mlp"):
                level = float(one.judged[arm.key].right.mean())
                ends_of = layers[[0, -1]]
                marks.append(Line(arm.name, ends_of, [level, level], style="dotted"))
        taken = [] if one.layer is None else [Reference(one.layer, "chosen", axis="x")]
        panels.append(Panel(marks, one.name, taken))
    return Chart(panels, Axis("layer"), Axis("test accuracy"), columns=2, share_y=False)


def _seconds(run: Run) -> str:
    """In words, from the run's own log: of steps, of parts of the scoring, of a training."""
    finished = read_events(run.folder, "shard finished")
    by_step: dict[str, list[float]] = {}
    for event in finished:
        by_step.setdefault(event["step"], []).append(float(event["seconds"]))
    said = []
    if READ in by_step:
        said.append(f"reading the texts {sum(by_step[READ]):.0f} s (for every method of the texts)")
    said += [f"{part} {seconds:.1f} s" for part, seconds in _parts_of_scoring(run).items()]
    halving = sum(sum(by_step.get(step, [])) for step in (FIRST, SECOND))
    if halving:
        said.append(f"halving {halving:.0f} s more")
    if TRAIN in by_step:
        each = by_step[TRAIN]
        said.append(
            f"one training {sum(each) / len(each):.0f} s, all {len(each)} {sum(each):.0f} s"
        )
    return "; ".join(said)


def _parts_of_scoring(run: Run) -> dict[str, float]:
    """From when each part says that it begins to when the next does."""
    totals: dict[str, float] = {}
    current: dict[str, tuple[str, float]] = {}
    for event in read_events(run.folder, "message", "shard finished"):
        if event.get("step") != "select":
            continue
        shard = str(event.get("shard"))
        is_part = event["event"] == "message" and str(event["text"]).startswith(_SAYS)
        if shard in current and (is_part or event["event"] == "shard finished"):
            name, start = current.pop(shard)
            totals[name] = totals.get(name, 0.0) + event["time"] - start
        if is_part:
            current[shard] = str(event["text"]).removeprefix(_SAYS).rstrip("."), event["time"]
    return totals
