"""What was read and tracked -> a score after every token, and how early it knows (`online/`).

online/shards/<columns>-<repeat>/scores.safetensors   out-of-fold, of every prefix of every answer
online/shards/final/detector.*     learnt from all answers: what `fluoro hallucination watch` uses
online/prefixes.parquet            a row an answer and number of tokens: its out-of-fold scores
online/early.parquet               AUROC after so many tokens, of the answers that long
online/judged.json                 what may be said of a score: answers; AUROC and calibration over
                                   all of them before the first token and after the last

Folds are those of the step `detect`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float64, Int64, Shaped

from fluoroscope.core.plain_values import with_nan, without_nan
from fluoroscope.core.seeding import derive_seed
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import read_json, write_json, write_parquet
from fluoroscope.core.tensors import read_metadata, read_tensors, write_tensors
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.detection.calibration import calibration_error
from fluoroscope.studies.hallucination.detection.scores import checked_labels
from fluoroscope.studies.hallucination.metrics.describe import METRICS
from fluoroscope.studies.hallucination.online.columns import (
    COLUMNS,
    UNCERTAINTY,
    learnt_prefixes,
    prefix_columns,
)
from fluoroscope.studies.hallucination.online.detector import (
    OnlineDetector,
    fit_online,
    save_detector,
)
from fluoroscope.studies.hallucination.online.early import Prefixes, at_ends, how_early
from fluoroscope.studies.hallucination.steps.associate import ASSOCIATE
from fluoroscope.studies.hallucination.steps.detect import make_protocol
from fluoroscope.studies.hallucination.steps.features import readable_answers
from fluoroscope.studies.hallucination.steps.read import READ, READINGS, read_shards
from fluoroscope.studies.hallucination.steps.track import METRICS_FILE, TRACK
from fluoroscope.studies.hallucination.tracking.association import SETTINGS as ASSOCIATION

ONLINE = "online"
FINAL, SCORES, PREFIXES, EARLY, JUDGED = (
    "final", "scores.safetensors", "prefixes.parquet", "early.parquet", "judged.json",
)  # fmt: skip
ALL, UNCERTAIN = "all", "uncertainty"
AUROC = "auroc"
N_COLUMNS = {ALL: len(COLUMNS), UNCERTAIN: len(UNCERTAINTY)}

MOST_PREFIXES = 16
"""Of an answer that a detector learns from; all are scored."""

_FITS = 36
"""Of one detector: penalties x inner folds, and the last."""


class OnlineStep(MapStep):
    """A shard for each set of columns and repeat, and one for the detector that is kept."""

    name = ONLINE
    inputs = (READ, ASSOCIATE, TRACK)

    def __init__(self, config: HallucinationConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        detection, length = self.config.detection, self.config.answers.max_tokens
        n = self.config.size.answers
        rows = n * min(length, MOST_PREFIXES)
        fits = _FITS * (detection.folds * detection.repeats + 1)
        seconds = sum(0.005 + 3e-10 * rows * width**2 for width in N_COLUMNS.values())
        return Cost(
            overhead_s=fits * seconds + 1e-4 * n * length + 10.0,
            memory_bytes=24.0 * n * (length + 1) * len(COLUMNS) + 0.5e9,
            disk_bytes=n * (length + 1) * (16.0 * detection.repeats + 60.0),
            parallel=2 * detection.repeats + 1,
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        repeats = range(self.config.detection.repeats)
        scores = [
            Shard(f"{columns}-{repeat:02d}", {"columns": columns, "repeat": repeat})
            for columns in N_COLUMNS
            for repeat in repeats
        ]
        return [*scores, Shard(FINAL)]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        rows = prefix_rows(run)
        if shard.key == FINAL:
            everything = np.ones(len(rows.labels), bool)
            seed = derive_seed(self.config.seed, "online detector")
            save_detector(_fit(rows, everything, ALL, seed), self._made_of(run), context.folder)
            return
        columns, repeat = shard.params["columns"], shard.params["repeat"]
        fold = make_protocol(self.config).folds(rows.groups, rows.labels, repeat)
        seed = derive_seed(self.config.seed, "online", columns, repeat)
        scores = out_of_fold(rows, fold, columns, seed, context.sink)
        tensors = {"scores": torch.from_numpy(scores), "folds": torch.from_numpy(fold)}
        write_tensors(context.folder / SCORES, tensors, {"columns": columns, "repeat": repeat})

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        rows, detection = prefix_rows(run), self.config.detection
        found = self._prefixes(folder, rows)
        frame = pl.DataFrame(
            {
                "id": rows.ids[rows.answer_of],
                "tokens": rows.x[:, 0].astype(np.int32),
                "score": found.scores.mean(axis=0),
                "uncertainty": found.uncertainty.mean(axis=0),
            }
        )
        write_parquet(folder / PREFIXES, frame)
        early = how_early(found, self.config.seed, detection.resamples)
        write_parquet(folder / EARLY, early)
        judged = _judged(found, self.config.seed, detection.resamples)
        write_json(folder / JUDGED, without_nan(judged))
        sink.message(early_sentence(judged))

    def _prefixes(self, folder: Path, rows: "PrefixRows") -> Prefixes:
        parts = {
            columns: [
                read_tensors(folder / "shards" / f"{columns}-{repeat:02d}" / SCORES)
                for repeat in range(self.config.detection.repeats)
            ]
            for columns in N_COLUMNS
        }
        return Prefixes(
            n_tokens=rows.n_tokens,
            labels=rows.labels,
            groups=rows.groups,
            folds=np.stack([part["folds"].numpy() for part in parts[ALL]]),
            scores=np.stack([part["scores"].numpy() for part in parts[ALL]]),
            uncertainty=np.stack([part["scores"].numpy() for part in parts[UNCERTAIN]]),
        )

    def _made_of(self, run: Run) -> dict[str, object]:
        """By which another model, other SAEs or another tracker are told."""
        first = min((run.step_folder(READ) / "shards").iterdir())
        association = read_json(run.shard_folder(ASSOCIATE, "all") / ASSOCIATION)
        return {
            **read_metadata(first / READINGS),
            "tracking": self.config.tracking.model_dump(mode="json"),
            "association_sha256": association["tensors_sha256"],
            "data": self.config.data.name,
            "answers": self.config.data.answers,
        }


class PrefixRows(NamedTuple):
    """A row a prefix of an answer, from none of its tokens to all; answers by their ids."""

    x: Float64[np.ndarray, "p d"]
    answer_of: Int64[np.ndarray, " p"]
    ids: Shaped[np.ndarray, " n"]
    n_tokens: Int64[np.ndarray, " n"]
    labels: Bool[np.ndarray, " n"]
    groups: Shaped[np.ndarray, " n"]


def prefix_rows(run: Run) -> PrefixRows:
    """Of all answers that were read, made once in each process."""
    return run.cached((ONLINE, "rows"), lambda: _prefix_rows(run))


def read_early(run: Run) -> pl.DataFrame:
    """See `how_early`."""
    return pl.read_parquet(run.step_folder(ONLINE) / EARLY)


def read_judged(run: Run) -> dict[str, Any]:  # Any: nested JSON values.
    """See `_judged`; NaN is what cannot be told."""
    return with_nan(read_json(run.step_folder(ONLINE) / JUDGED))


def early_sentence(judged: Mapping[str, Any]) -> str:  # Any: see `read_judged`.
    """What is known before the first token, and after the last."""
    if AUROC not in judged:
        return "There are too few groups of either label to say how early a score knows."
    before, after = early_aurocs(judged)
    last = judged[AUROC]["last"]
    alone, (_, low, high) = _with_ends(last["uncertainty"]), last["difference"]
    said = f"AUROC of the running score before the first token {before}, after the last {after}; "
    if np.isnan([low, high]).any():
        return f"{said}uncertainty alone has {alone}, and whether the two differ cannot be told."
    if low > 0:
        compared = "ahead of"
    elif high < 0:
        compared = "behind"
    else:
        compared = "not shown to differ from"
    difference = _with_ends(last["difference"], "+.3f")
    return f"{said}that is {compared} uncertainty alone, with {alone} (difference {difference})."


def early_aurocs(judged: Mapping[str, Any]) -> tuple[str, str]:  # Any: see `read_judged`.
    """Before the first token and after the last, with intervals, in words."""
    first, last = (_with_ends(judged[AUROC][end]["score"]) for end in ("before", "last"))
    return first, last


def _with_ends(interval: Sequence[float], form: str = ".3f") -> str:
    value, low, high = (f"{one:{form}}" for one in interval)
    if np.isnan(interval).any():
        return f"{value} (its interval cannot be told)"
    return f"{value} [{low}, {high}]"


def _prefix_rows(run: Run) -> PrefixRows:
    found = pl.read_parquet(run.step_folder(TRACK) / METRICS_FILE).sort("id", "position")
    tracked = dict(
        zip(
            found["id"].unique(maintain_order=True),
            _split(found.select(*METRICS).to_numpy(), found["id"].rle().struct.field("len")),
            strict=True,
        )
    )
    rows: dict[str, np.ndarray] = {}
    for answers, readings in read_shards(run):
        bounds = zip(readings.offsets[:-1].tolist(), readings.offsets[1:].tolist(), strict=True)
        for name, (start, stop) in zip(answers["id"], bounds, strict=True):
            logprobs = readings.logprobs[start:stop].double().numpy()
            entropies = readings.entropies[start:stop].double().numpy()
            rows[name] = prefix_columns(logprobs, entropies, tracked[name])
    answers = readable_answers(run).sort("id")
    n_tokens = np.array([len(rows[name]) - 1 for name in answers["id"]])
    return PrefixRows(
        x=np.concatenate([rows[name] for name in answers["id"]]),
        answer_of=np.repeat(np.arange(len(answers)), n_tokens + 1),
        ids=answers["id"].to_numpy(),
        n_tokens=n_tokens,
        labels=checked_labels(answers["label"].to_numpy()),
        groups=answers["group_id"].to_numpy(),
    )


def _split(rows: np.ndarray, counts: pl.Series) -> list[np.ndarray]:
    return np.split(rows, counts.to_numpy().cumsum()[:-1])


def out_of_fold(
    rows: PrefixRows, fold: Int64[np.ndarray, " n"], columns: str, seed: int, sink: Sink
) -> Float64[np.ndarray, " p"]:
    """Scores of all prefixes of each fold by a detector that learnt from the other folds."""
    scores = np.full(len(rows.x), np.nan)
    numbers = np.unique(fold).tolist()
    for done, number in enumerate(numbers, start=1):
        is_test = fold == number
        fitted = _fit(rows, ~is_test, columns, derive_seed(seed, number))
        here = is_test[rows.answer_of]
        scores[here] = fitted.scores(rows.x[here, : N_COLUMNS[columns]])
        sink.progress(done, len(numbers), "folds")
    return scores


def _fit(
    rows: PrefixRows, is_learnt: Bool[np.ndarray, " n"], columns: str, seed: int
) -> OnlineDetector:
    """From some prefixes of some answers; those of one answer weigh 1 together."""
    ends = np.cumsum(rows.n_tokens + 1)
    starts = ends - rows.n_tokens - 1
    taken, weights = [], []
    for answer in np.flatnonzero(is_learnt):
        after = learnt_prefixes(int(rows.n_tokens[answer]), MOST_PREFIXES)
        taken += [starts[answer], *(starts[answer] + np.array(after))]
        weights += [1.0] + [1 / len(after)] * len(after)
    at = np.array(taken)
    answer_of, width = rows.answer_of[at], N_COLUMNS[columns]
    return fit_online(
        COLUMNS[:width],
        rows.x[at, :width],
        rows.labels[answer_of],
        rows.groups[answer_of],
        np.array(weights),
        seed,
    )


def _judged(
    found: Prefixes, seed: int, n_resamples: int
) -> dict[str, Any]:  # Any: see `read_judged`.
    """Without `auroc` where there are too few groups of either label."""
    everyone = np.arange(len(found.labels))
    judged: dict[str, Any] = {  # Any: see `read_judged`.
        "answers": len(everyone),
        "groups": len(np.unique(found.groups)),
        "made_up": float(found.labels.mean()),
    }
    for end, tokens in (("before", np.zeros_like(found.n_tokens)), ("last", found.n_tokens)):
        pair = found.at(everyone, tokens)
        judged[end] = calibration_error(pair.both, seed)._asdict()
    ends = at_ends(found, seed, n_resamples)
    if ends:
        judged[AUROC] = {
            end: {
                "score": list(one.one),
                "uncertainty": list(one.other),
                "difference": list(one.difference),
            }
            for end, one in ends.items()
        }
    return judged
