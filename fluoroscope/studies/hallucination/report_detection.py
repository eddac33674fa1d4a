"""What the report says of detectors: the verdict, all methods, their errors, and kinds of answers.

Axes: n answers.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Bool

from fluoroscope.core.intervals import MIN_UNITS, Interval, clustered_share_interval
from fluoroscope.core.plain_values import with_nan
from fluoroscope.core.storage import read_json
from fluoroscope.plots.chart import Axis, Bars, Chart, Line, Mark, Panel, Reference
from fluoroscope.runs.report import Gate, Report
from fluoroscope.runs.run import Run
from fluoroscope.studies.hallucination.charts import THRESHOLD, confusion_chart
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.detection.scores import Scored, auroc, confusion, scored
from fluoroscope.studies.hallucination.method_charts import precision_of_methods, roc_of_methods
from fluoroscope.studies.hallucination.methods import BASELINE, COMBINED, TRACKING
from fluoroscope.studies.hallucination.methods import methods as methods_of
from fluoroscope.studies.hallucination.steps.detect import read_notes, read_scores
from fluoroscope.studies.hallucination.steps.evaluate import (
    ABSTENTION,
    AGAINST,
    CALIBRATION,
    COVERAGE,
    DETECTORS_FILE,
    EVALUATE,
    HEADLINE,
    METHODS,
    NOISE,
    RELIABILITY,
    SAME_ANSWER,
)
from fluoroscope.studies.hallucination.steps.features import readable_answers

TOLD = ("auroc", SAME_ANSWER)
FIGURES = ("auprc", "accuracy", "precision", "recall", "f1", "brier", "pair_accuracy")
OF_KINDS = ("uncertainty", BASELINE, TRACKING, COMBINED)
KIND_RESAMPLES = 500
N_KINDS = 10
"""Kinds in the figure, the largest; the table has all of them."""

_METHODS = (
    "From what an answer looks like, over what the model's probabilities say, to what is read "
    "inside it. What is **alone** is one number as it is, without training. **style** counts "
    "characters, words and hedges; **uncertainty** are probabilities and entropies of the answer's "
    "tokens; **agreement of samples** are EigenScore, semantic entropy and similarity of further "
    "answers, and **self-check** says how far these say what the answer says; **baseline** is "
    "these four together. **probe** reads the residual stream at the answer's last token, *best "
    "layer* the one that is chosen inside the folds, and *of updates* what each layer adds; "
    "**latents** are the largest activations of SAE latents, without tracking; "
    "**reconstruction** is what the SAEs leave unexplained, and how many latents are active. "
    "Brackets name another detector than the usual one."
)


def evaluated(run: Run, file: str) -> pl.DataFrame:
    return pl.read_parquet(run.shard_folder(EVALUATE, "all") / file)


def add_verdict(report: Report, run: Run) -> None:
    folder = run.shard_folder(EVALUATE, "all")
    said, noise = read_json(folder / HEADLINE), with_nan(read_json(folder / NOISE))
    methods = evaluated(run, METHODS)
    best = methods.sort("auroc", descending=True, maintain_order=True)["method"][0]
    report.section("Does tracking tell anything?")
    report.text(
        f"**{said['sentence']}** {' '.join(said['caveats'])}\n\n"
        "For that p the columns of tracking were exchanged between groups "
        f"{said['n_exchanges']} times. The highest AUROC of all "
        f"methods is that of *{best}*. Every score is of an answer that its detector was not "
        "trained on, nor on any other of its group; intervals are over groups."
    )
    found = methods.filter(pl.col("method") == COMBINED)
    value, low, high = noise["auroc"]
    share = float(readable_answers(run)["label"].mean())  # pyright: ignore[reportArgumentType]
    of_all = 2 * share / (1 + share)
    gates = [
        Gate("AUROC of noise", value, f"interval {low:.3f} to {high:.3f} holds 0.5", True),
        Gate(
            "AUROC", found["auroc"][0], "above 0.90, as the seed expects", found["auroc"][0] > 0.9
        ),
        Gate(
            "F1",
            found["f1"][0],
            f"above 0.85, as the seed expects (to call everything made up has {of_all:.2f})",
            found["f1"][0] > 0.85,
        ),
    ]
    report.gates(gates, caption="Noise must be at chance; the seed's figures of the whole.")


def add_methods(report: Report, run: Run, config: HallucinationConfig) -> None:
    methods = evaluated(run, METHODS)
    report.section("Methods")
    report.text(_METHODS)
    for number, name in enumerate(methods_of(config)):
        if name not in methods["method"]:
            report.text(f"*{name}*: {' '.join(read_notes(run, number, name))}")
    others = set(config.detection.also) - {config.detection.detector}
    usual = methods.filter(~pl.col("detector").is_in(others))
    bars = Bars(
        "AUROC", usual["method"].to_list(), usual["auroc"], usual["auroc_low"], usual["auroc_high"]
    )
    chart = Chart(
        [Panel([bars], references=[Reference(0.5, "chance")])], y=Axis("AUROC", limits=(0, 1))
    )
    report.figure("auroc", chart, "By the usual detector, with 95 % intervals over groups.")
    columns = [f"{figure}{end}" for figure in TOLD for end in ("", "_low", "_high")]
    report.table(
        "methods",
        without_nan(methods.select("method", "kind", *columns, *FIGURES)),
        "Of answers that are made up. `auroc_same_answer` compares answers of one text only, which "
        "to know an answer again does nothing for. A `raw` number has no threshold.",
    )
    report.table(
        "against",
        without_nan(evaluated(run, AGAINST)),
        "Baseline + tracking minus each method, paired over the same groups; p after Holm.",
    )
    report.table(
        "detectors",
        without_nan(evaluated(run, DETECTORS_FILE)),
        "AUROC by every detector that was run, and of both minus the baseline, with 95 % intervals "
        "over groups. The first is the one of the headline; the others are no further tests of it.",
    )


def add_errors(report: Report, run: Run, config: HallucinationConfig) -> None:
    scores = read_scores(run, config)
    found = {name: scores[name] for name in (BASELINE, TRACKING, COMBINED)}
    report.section("Which errors are made")
    report.text(
        "An answer is flagged where its score is high. The curves go through all thresholds: of "
        "the first, the area is the AUROC above; of the second, the mean height is the AUPRC. "
        f"Points are where a method works if it flags from a score of {THRESHOLD:g} on. That is "
        "no choice for a purpose: where a made-up answer costs more than a false alarm, a lower "
        "one is right."
    )
    report.figure(
        "roc",
        roc_of_methods(found),
        "Curves of each fold alone, averaged; points of all folds together.",
    )
    report.figure("precision_recall", precision_of_methods(found), "All folds together.")
    report.figure(
        "confusion",
        confusion_chart(found[COMBINED]),
        f"{COMBINED.capitalize()}, flagged from {THRESHOLD:g}; averaged over repeats.",
    )
    table = pl.DataFrame([{"method": name, **_errors(one)} for name, one in found.items()])
    report.table(
        "errors",
        without_nan(table),
        f"Answers that are flagged from {THRESHOLD:g}, averaged over repeats, and their shares of "
        "the made-up and of the true answers with 95 % intervals over groups.",
        {name: ".3f" if name.startswith("of_") else ".1f" for name in table.columns[1:]},
    )


def add_kinds(report: Report, run: Run, config: HallucinationConfig) -> None:
    """Nothing where all answers are of one kind."""
    answers = readable_answers(run)
    kinds = answers["category"].to_numpy()
    if len(np.unique(kinds)) < 2:
        return
    scores = read_scores(run, config)
    methods = {name: scores[name] for name in OF_KINDS}
    n_resamples = min(KIND_RESAMPLES, config.detection.resamples)
    table = kind_table(methods, kinds, config.seed, n_resamples)
    report.section("Which kinds are told")
    report.text(
        "**AUROC** of a kind that has both labels is of its answers alone; where all are made up "
        "they are ranked against all true answers of the run, and the other way round "
        f"(`against`). The **share flagged** from {THRESHOLD:g} on is of hits where answers are "
        "made up, and of false alarms where they are true."
    )
    largest = table.unique("kind", maintain_order=True).sort("answers", descending=True)
    names = largest["kind"].head(N_KINDS).to_list()
    report.figure(
        "told_by_kind",
        _kinds_chart(table, names),
        f"The {N_KINDS} largest kinds at most, each with how many of its answers are made up, and "
        "95 % intervals over groups; none where a kind has fewer than 10. The dashed line is the "
        "AUROC of chance.",
    )
    report.table(
        "kinds", without_nan(table), "No interval of fewer than 10 groups. No correction for many."
    )


def kind_table(
    methods: Mapping[str, Scored], kinds: np.ndarray, seed: int, n_resamples: int = KIND_RESAMPLES
) -> pl.DataFrame:
    """A row a kind and method: the share that is flagged, and AUROC, each with its interval."""
    first = next(iter(methods.values()))
    rows = []
    for kind in np.unique(kinds):
        here = kinds == kind
        n, n_made_up = int(here.sum()), int(first.labels[here].sum())
        n_groups = len(np.unique(first.groups[here]))
        against, compared = "its own", here
        if n_made_up in (0, n):
            against = "all true" if n_made_up else "all made up"
            compared = here | (first.labels != bool(n_made_up))
        for name, rows_of in methods.items():
            found = auroc(_some(rows_of, compared), seed, n_resamples)
            if n_groups < MIN_UNITS:
                found = Interval(found.value, math.nan, math.nan)
            rows.append(
                {
                    "kind": kind or "(none)",
                    "answers": n,
                    "groups": n_groups,
                    "made_up": n_made_up,
                    "method": name,
                    **_columns("flagged", flagged_share(rows_of, here)),
                    **_columns("auroc", found),
                    "against": against,
                }
            )
    return pl.DataFrame(rows)


def flagged_share(
    rows: Scored, here: Bool[np.ndarray, " n"], threshold: float = THRESHOLD
) -> Interval:
    """Of some rows; repeats of a row belong to its group."""
    is_flagged = rows.scores[:, here] >= threshold
    groups = np.tile(rows.groups[here], len(is_flagged))
    return clustered_share_interval(is_flagged.ravel(), groups)


def add_calibration(report: Report, run: Run) -> None:
    error = with_nan(read_json(run.shard_folder(EVALUATE, "all") / CALIBRATION))
    bins, coverage = evaluated(run, RELIABILITY), evaluated(run, COVERAGE)
    report.section("How far scores can be believed")
    report.text(
        f"Expected calibration error {error['value']:.3f}; scores that say exactly what is so "
        f"would have {error['if_calibrated']:.3f} (95 % below {error['if_calibrated_95']:.3f})."
    )
    lines: Sequence[Line] = [
        Line("made up", bins["score"], bins["share"], bins["low"], bins["high"], markers=True),
        Line("as said", [0, 1], [0, 1], style="dashed"),
    ]
    chart = Chart.single(*lines, x=Axis("score"), y=Axis("share made up", limits=(0, 1)))
    report.figure("reliability", chart, "Of baseline + tracking, in bins of equal mass.")
    curve = Line("risk", coverage["coverage"], coverage["risk"])
    chart = Chart.single(curve, x=Axis("share of answers given"), y=Axis("share of them made up"))
    report.figure("risk_coverage", chart, "The answers least likely to be made up are given first.")
    report.table(
        "abstention",
        without_nan(evaluated(run, ABSTENTION)),
        "Answers are given below `threshold` and withheld from it on. `promised` is the most of "
        "what is made up that may be given; `missed` is what was, of answers that the threshold "
        "was not set by. `answered` are the answers given, `error` the share of them made up.",
    )


def without_nan(frame: pl.DataFrame) -> pl.DataFrame:
    """Cells that hold no number are empty in tables."""
    floats = [name for name, kind in frame.schema.items() if kind.is_float()]
    return frame.with_columns(pl.col(floats).fill_nan(None))


def _errors(rows: Scored) -> dict[str, float]:
    return {
        **confusion(rows, THRESHOLD)._asdict(),
        **_columns("of_made_up", flagged_share(rows, rows.labels)),
        **_columns("of_true", flagged_share(rows, ~rows.labels)),
    }


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _some(rows: Scored, here: Bool[np.ndarray, " n"]) -> Scored:
    return scored(rows.scores[:, here], rows.labels[here], rows.groups[here], rows.folds[:, here])


def _kinds_chart(table: pl.DataFrame, kinds: Sequence[str]) -> Chart:
    panels: dict[str, list[Mark]] = {}
    for kind in kinds:
        mine = table.filter(pl.col("kind") == kind)
        title = f"{_plain(kind)} ({mine['made_up'][0]} of {mine['answers'][0]})"
        panels[title] = [
            Bars(words, mine["method"].to_list(), mine[n], mine[f"{n}_low"], mine[f"{n}_high"])
            for n, words in (("auroc", "AUROC"), ("flagged", "share flagged"))
        ]
    chance = [Reference(0.5)]
    return Chart.grid(panels, y=Axis("", limits=(0, 1)), references=chance, columns=2)


def _plain(name: str) -> str:
    # Matplotlib reads formulas between dollars.
    return name.translate(str.maketrans("$", "S"))
