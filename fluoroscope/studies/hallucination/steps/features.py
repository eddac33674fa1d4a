"""All that was read of the answers -> the columns that detectors learn from, by method.

A row an answer, in the order of `read/answers.parquet`; every method has the same rows.

Axes: n answers, d columns of a method.
"""

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
from jaxtyping import Float, Shaped

from fluoroscope.models.hook_points import HookPoint
from fluoroscope.runs.run import Run
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.metrics.describe import METRICS
from fluoroscope.studies.hallucination.signals.reading import PLACES, Readings
from fluoroscope.studies.hallucination.signals.texts import style
from fluoroscope.studies.hallucination.steps.answers import read_answer_records
from fluoroscope.studies.hallucination.steps.read import READ, READABLE, read_shards
from fluoroscope.studies.hallucination.steps.samples import AGREEMENT, SAMPLES
from fluoroscope.studies.hallucination.steps.track import METRICS_FILE, TRACK

Columns = Shaped[np.ndarray, "n ..."]

BASELINE, COMBINED, TRACKING = "baseline", "baseline + tracking", "tracking"
WORDS = ("words of the answer", "words of the question")
"""Methods whose rows are texts."""


def method_names(config: HallucinationConfig) -> list[str]:
    """From the simplest to the one that everything is about."""
    probes = [f"probe {point}" for point in config.points]
    agreement = ["agreement of samples"] if config.answers.samples else []
    return [
        "style",
        *WORDS,
        "uncertainty",
        *agreement,
        *probes,
        "latents",
        BASELINE,
        TRACKING,
        COMBINED,
    ]


def method_columns(run: Run, config: HallucinationConfig, method: str) -> Columns:
    """The columns of one method; texts for those of `WORDS`."""
    kind, _, rest = method.partition(" ")
    if kind == "probe":
        return _states(run, HookPoint(rest))
    made: Mapping[str, Callable[[], Columns]] = {
        "style": lambda: _style(run),
        WORDS[0]: lambda: _texts(run, "completion"),
        WORDS[1]: lambda: _texts(run, "prompt"),
        "uncertainty": lambda: _uncertainty(run),
        "agreement of samples": lambda: _agreement(run),
        "latents": lambda: _latents(run),
        TRACKING: lambda: _tracking(run),
        BASELINE: lambda: _baseline(run, config),
        COMBINED: lambda: np.hstack([_baseline(run, config), _tracking(run)]),
    }
    return made[method]()


def readable_answers(run: Run) -> pl.DataFrame:
    """`row`, id, group_id, label... of every answer that was read."""
    return run.cached((READ, "answers"), lambda: pl.read_parquet(run.step_folder(READ) / READABLE))


def _baseline(run: Run, config: HallucinationConfig) -> Float[np.ndarray, "n d"]:
    parts = [_style(run), _uncertainty(run)]
    return np.hstack(parts + ([_agreement(run)] if config.answers.samples else []))


def _texts(run: Run, part: str) -> Columns:
    by_id = {record.id: record for record in read_answer_records(run)}
    return np.array([getattr(by_id[name], part) for name in readable_answers(run)["id"]], object)


def _style(run: Run) -> Float[np.ndarray, "n d"]:
    return np.array([list(style(text).values()) for text in _texts(run, "completion")])


def _uncertainty(run: Run) -> Float[np.ndarray, "n d"]:
    rows = [row for _, readings in read_shards(run) for row in _uncertainties(readings)]
    return np.array(rows)


def _uncertainties(readings: Readings) -> list[list[float]]:
    found = []
    for start, stop in zip(readings.offsets[:-1], readings.offsets[1:], strict=True):
        scores = readings.logprobs[int(start) : int(stop)].double().numpy()
        entropies = readings.entropies[int(start) : int(stop)].double().numpy()
        found.append(
            [
                scores.sum(),
                scores.mean(),
                scores.min(),
                scores[0],
                entropies.mean(),
                entropies.max(),
                entropies[0],
                entropies[-1],
            ]
        )
    return found


def _agreement(run: Run) -> Float[np.ndarray, "n d"]:
    found = pl.read_parquet(run.step_folder(SAMPLES) / AGREEMENT)
    by_id = {record.id: record.prompt for record in read_answer_records(run)}
    prompts = [by_id[name] for name in readable_answers(run)["id"]]
    # A statement without a prompt was not sampled: its columns are NaN, and filled in folds.
    joined = pl.DataFrame({"prompt": prompts}).join(
        found, on="prompt", how="left", maintain_order="left"
    )
    return joined.drop("prompt").cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _states(run: Run, point: HookPoint) -> Float[np.ndarray, "n d"]:
    place = PLACES.index("exact")
    parts = [readings.states[point][:, place].numpy() for _, readings in read_shards(run)]
    return np.concatenate(parts).astype(np.float64)


def _latents(run: Run) -> Float[np.ndarray, "n d"]:
    """The largest activation of each latent at any position of an answer, without tracking."""
    parts = []
    for _, readings in read_shards(run):
        n = len(readings.offsets) - 1
        counts = np.diff(readings.offsets.numpy()) + 1
        answer_of = np.repeat(np.arange(n), counts)
        layers = []
        for latents in readings.latents.values():
            rows = np.zeros((n, latents.d_sae))
            at = (answer_of[latents.rows.numpy()], latents.indices.long().numpy())
            np.maximum.at(rows, at, latents.values.double().numpy())
            layers.append(rows)
        parts.append(np.hstack(layers))
    found = np.concatenate(parts)
    return found[:, found.any(axis=0)]


def _tracking(run: Run) -> Float[np.ndarray, "n d"]:
    """Metrics where the answer is drawn, and their mean over its tokens."""
    found = pl.read_parquet(run.step_folder(TRACK) / METRICS_FILE)
    names = list(METRICS)
    drawn = found.filter(pl.col("position") == -1).select("id", *names)
    means = found.filter(pl.col("position") >= 0).group_by("id").agg(pl.col(names).mean())
    order = readable_answers(run).select("id")
    parts = [
        order.join(part, on="id", how="left", maintain_order="left").drop("id").to_numpy()
        for part in (drawn, means)
    ]
    return np.hstack(parts)
