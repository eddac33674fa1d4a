"""Out-of-fold scores -> what may be said of them (`permute/`, `evaluate/`).

permute/shards/<k>/null.parquet    AUROC with the added columns exchanged between groups
evaluate/noise.json                what noise scores in the same folds; nothing is said otherwise
evaluate/methods.parquet           a row a method: every figure with its interval, and the AUROC
                                   among answers of one text
evaluate/against.parquet           baseline + tracking against every other method, paired
evaluate/detectors.parquet         a row a detector: tracking, baseline, and both, paired
evaluate/abstention.parquet        thresholds that promise how little of what is made up is given
evaluate/headline.json             the one sentence, with its p
evaluate/reliability.parquet, coverage.parquet, calibration.json   of baseline + tracking
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from fluoroscope.core.intervals import MIN_UNITS, Interval
from fluoroscope.core.plain_values import without_nan
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import read_json, write_json, write_parquet
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.detection import DETECTORS
from fluoroscope.studies.hallucination.detection.abstention import abstention_table
from fluoroscope.studies.hallucination.detection.calibration import calibration_error, reliability
from fluoroscope.studies.hallucination.detection.caveats import caveats
from fluoroscope.studies.hallucination.detection.comparisons import (
    compare,
    compare_all,
    headline,
)
from fluoroscope.studies.hallucination.detection.cross_validation import (
    CrossValidation,
    cross_validate,
    whole_groups,
)
from fluoroscope.studies.hallucination.detection.noise_guard import check_noise, distinct_texts
from fluoroscope.studies.hallucination.detection.permutation import exchange, exchange_p
from fluoroscope.studies.hallucination.detection.scores import (
    METRICS,
    Scored,
    auroc,
    aurocs,
    metrics,
    risk_coverage,
)
from fluoroscope.studies.hallucination.methods import (
    BASELINE,
    COMBINED,
    OF_TEXTS,
    TRACKING,
    WORDS_APART,
    Method,
    by,
    methods,
)
from fluoroscope.studies.hallucination.steps.answers import read_answer_records
from fluoroscope.studies.hallucination.steps.detect import (
    DETECT,
    SECONDS_A_FIT,
    DetectStep,
    read_scores,
)
from fluoroscope.studies.hallucination.steps.features import (
    completions,
    method_columns,
    readable_answers,
)

PERMUTE, EVALUATE = "permute", "evaluate"
NULL, NOISE, METHODS, AGAINST, HEADLINE, RELIABILITY, COVERAGE, CALIBRATION = (
    "null.parquet", "noise.json", "methods.parquet", "against.parquet", "headline.json",
    "reliability.parquet", "coverage.parquet", "calibration.json",
)  # fmt: skip
DETECTORS_FILE, ABSTENTION = "detectors.parquet", "abstention.parquet"
SAME_ANSWER = "auroc_same_answer"
"""AUROC among answers of one text, which to know an answer again does nothing for."""

_PER_SHARD = 20


class PermuteStep(MapStep):
    """Shards of some exchanges: does tracking tell more than columns of other answers would?"""

    name = PERMUTE

    def __init__(self, config: HallucinationConfig) -> None:
        self.config = config
        self.inputs = DetectStep(config).inputs

    def cost(self) -> Cost:
        n, folds = self.config.detection.permutations + 1, self.config.detection.folds
        return Cost(
            overhead_s=n * folds * SECONDS_A_FIT,
            memory_bytes=1e9,
            parallel=max(1, n // _PER_SHARD),
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        # Number 0 is the order as it is.
        n = self.config.detection.permutations + 1
        return [
            Shard(f"{start:05d}", {"from": start, "to": min(start + _PER_SHARD, n)})
            for start in range(0, n, _PER_SHARD)
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        base = method_columns(run, self.config, BASELINE)
        added = method_columns(run, self.config, TRACKING)
        groups = readable_answers(run)["group_id"].to_numpy()
        numbers = range(shard.params["from"], shard.params["to"])
        rows = []
        for done, number in enumerate(numbers, start=1):
            order = np.arange(len(groups))
            if number:
                order = exchange(groups, self.config.seed, number - 1)
            rows.append((number, self._auroc(run, np.hstack([base, added[order]]))))
            context.sink.progress(done, len(numbers), "exchanges")
        frame = pl.DataFrame(rows, schema={"number": pl.Int64, "auroc": pl.Float64}, orient="row")
        write_parquet(context.folder / NULL, frame)

    def _auroc(self, run: Run, columns: np.ndarray) -> float:
        answers, detection = readable_answers(run), self.config.detection
        found = cross_validate(
            DETECTORS.load(detection.detector)(),
            columns,
            answers["label"].to_numpy(),
            answers["group_id"].to_numpy(),
            CrossValidation(self.config.seed, detection.folds, 1),
            answers["id"].to_numpy(),
        )
        return float(aurocs(found, np.ones((1, int(found.groups.max()) + 1)))[0])


class EvaluateStep(MapStep):
    """One shard; noise is judged first, and nothing else if it can be told."""

    name = EVALUATE
    inputs = (DETECT, PERMUTE)

    def __init__(self, config: HallucinationConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        return Cost(overhead_s=60.0, memory_bytes=1e9)

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard("all")]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        folder, seed, detection = context.folder, self.config.seed, self.config.detection
        write_json(folder / NOISE, without_nan(self._noise(run)))
        found = read_scores(run, self.config)
        texts = distinct_texts(completions(run))[1]
        rows = [self._figures(method, found[name], texts)
                for name, method in methods(self.config).items() if name in found]  # fmt: skip
        write_parquet(folder / METHODS, pl.DataFrame(rows))
        detectors = self._by_detector(found)
        write_parquet(folder / DETECTORS_FILE, detectors)
        # Its folds are its own, so nothing can be paired with it.
        found.pop(WORDS_APART, None)
        combined = found.pop(COMBINED)
        write_parquet(folder / ABSTENTION, abstention_table(combined, seed, detection.resamples))
        against = compare_all(combined, found, seed, detection.resamples)
        write_parquet(folder / AGAINST, against)
        p = self._p(run)
        said = headline(found[BASELINE], combined, seed, detection.resamples, p_exchanged=p)
        value, low, high = said.comparison.difference
        beside = caveats(against, detectors, OF_TEXTS, is_useful=said.is_useful)
        about = {
            "sentence": said.sentence,
            "caveats": beside,
            "is_useful": said.is_useful,
            "difference": [value, low, high],
            "p_exchange": p,
            "n_exchanges": detection.permutations,
        }
        write_json(folder / HEADLINE, without_nan(about))
        write_parquet(folder / RELIABILITY, reliability(combined))
        error = calibration_error(combined, seed)
        write_json(folder / CALIBRATION, without_nan(error._asdict()))
        risk = risk_coverage(combined)
        share = np.arange(1, len(risk) + 1) / len(risk)
        write_parquet(folder / COVERAGE, pl.DataFrame({"coverage": share, "risk": risk}))

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        said = read_json(folder / "shards" / "all" / HEADLINE)
        sink.message(" ".join([said["sentence"], *said["caveats"]]))

    def _figures(
        self, method: Method, scores: Scored, texts: np.ndarray
    ) -> dict[str, str | int | float]:
        seed, n_resamples = self.config.seed, self.config.detection.resamples
        figures = metrics(scores, seed, None if method.kind == "raw" else 0.5, n_resamples)
        figures[SAME_ANSWER] = auroc_same_answer(scores, texts, seed, n_resamples)
        row: dict[str, str | int | float] = {
            "method": method.name,
            "kind": method.kind,
            "detector": method.detector or "none",
            "repeats": method.repeats,
        }
        for figure in (*METRICS, SAME_ANSWER):
            value, low, high = figures[figure]
            row |= {figure: value, f"{figure}_low": low, f"{figure}_high": high}
        return row

    def _by_detector(self, found: dict[str, Scored]) -> pl.DataFrame:
        """The headline's difference again, by every detector that was run."""
        seed, detection = self.config.seed, self.config.detection
        rows = []
        for detector in dict.fromkeys([detection.detector, *detection.also]):
            is_headline = detector == detection.detector
            base, added, both = (
                found[name if is_headline else by(name, detector)]
                for name in (BASELINE, TRACKING, COMBINED)
            )
            said = compare(both, base, seed, detection.resamples)
            alone = auroc(added, seed, detection.resamples)
            rows.append(
                (detector, len(base.scores), *said.other, *alone, *said.one, *said.difference)
            )
        parts = ("baseline", "tracking", "both", "difference")
        figures = [f"{part}{end}" for part in parts for end in ("", "_low", "_high")]
        return pl.DataFrame(rows, schema=["detector", "repeats", *figures], orient="row")

    def _noise(self, run: Run) -> dict[str, float | int | list[float]]:
        answers, detection = readable_answers(run), self.config.detection
        texts = {record.id: record.text for record in read_answer_records(run)}
        found = check_noise(
            answers["group_id"].to_numpy(),
            answers["label"].to_numpy(),
            [texts[name] for name in answers["id"]],
            whole_groups,
            self.config.seed,
            detection.folds,
            detection.repeats,
            ids=answers["id"].to_numpy(),
        )
        return {"auroc": list(found.auroc), "draws": found.n_draws, "shared": found.n_shared}

    def _p(self, run: Run) -> float:
        files = sorted((run.step_folder(PERMUTE) / "shards").glob(f"*/{NULL}"))
        found = pl.concat([pl.read_parquet(file) for file in files]).sort("number")["auroc"]
        return exchange_p(found[0], found[1:].to_numpy())


def auroc_same_answer(rows: Scored, texts: np.ndarray, seed: int, n_resamples: int) -> Interval:
    """AUROC of answers that have one text and are in one fold; `texts` numbers them.

    NaN where fewer than 10 groups have an answer that can be compared.
    """
    alike = rows.within(texts)
    taking_part = [len(_compared(rows, strata)) for strata in alike.folds]
    if min(taking_part) < MIN_UNITS:
        return Interval(math.nan, math.nan, math.nan)
    return auroc(alike, seed, n_resamples)


def _compared(rows: Scored, strata: np.ndarray) -> np.ndarray:
    """Groups with an answer in a stratum of both labels."""
    index = np.unique(strata, return_inverse=True)[1]
    n_made_up = np.bincount(index, rows.labels)
    has_both = (n_made_up > 0) & (n_made_up < np.bincount(index))
    return np.unique(rows.groups[has_both[index]])
