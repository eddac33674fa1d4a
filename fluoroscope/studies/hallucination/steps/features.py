"""All that was read of the answers -> the columns that detectors learn from, by name.

A row an answer, in the order of `read/answers.parquet`; every method has the same rows.

Axes: n answers, d columns, l layers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Shaped

from fluoroscope.models.hook_points import HookPoint
from fluoroscope.runs.run import Run
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.methods import BASELINE, COMBINED, TRACKING, WORDS, methods
from fluoroscope.studies.hallucination.metrics.describe import METRICS
from fluoroscope.studies.hallucination.signals.reading import PLACES, Readings
from fluoroscope.studies.hallucination.signals.samples import (
    largest_surprise,
    similarity_to_samples,
    surprise_of_words,
)
from fluoroscope.studies.hallucination.signals.texts import STYLE, style
from fluoroscope.studies.hallucination.steps.answers import read_answer_records
from fluoroscope.studies.hallucination.steps.read import READ, READABLE, read_shards
from fluoroscope.studies.hallucination.steps.samples import AGREEMENT, SAMPLES, TEXTS
from fluoroscope.studies.hallucination.steps.track import METRICS_FILE, TRACK


class Features(NamedTuple):
    """What a method looks at."""

    x: Shaped[np.ndarray, "n ..."]
    names: tuple[str, ...] = ()
    """Of the columns, where they are numbers; of the last axis, after the first has been folded
    into it, for `layers`."""


def features(run: Run, config: HallucinationConfig, columns: str) -> Features:
    """`columns` as a method names them: `COLUMNS`, or `probe` and a hook point."""
    kind, _, rest = columns.partition(" ")
    if kind == "probe" and columns not in COLUMNS:
        return _states(run, HookPoint(rest))
    return COLUMNS[columns](run, config)


def method_columns(run: Run, config: HallucinationConfig, method: str) -> np.ndarray:
    """What the method of this name looks at; texts for those of words."""
    return features(run, config, methods(config)[method].columns).x


def readable_answers(run: Run) -> pl.DataFrame:
    """`row`, id, group_id, label... of every answer that was read."""
    return run.cached((READ, "answers"), lambda: pl.read_parquet(run.step_folder(READ) / READABLE))


def completions(run: Run) -> list[str]:
    """The text of each answer."""
    return _texts(run, "completion")


def _texts(run: Run, part: str) -> list[str]:
    by_id = {record.id: record for record in read_answer_records(run)}
    return [getattr(by_id[name], part) for name in readable_answers(run)["id"]]


def _words(part: str) -> Callable[[Run], Features]:
    return lambda run: Features(np.array(_texts(run, part), object))


def _style(run: Run) -> Features:
    rows = [list(style(text).values()) for text in completions(run)]
    return Features(np.array(rows), STYLE)


_UNCERTAINTY = (
    "log-probability", "mean log-probability", "least log-probability",
    "log-probability of the first token", "mean entropy", "largest entropy",
    "entropy at the first token", "entropy at the last token",
)  # fmt: skip


def _uncertainty(run: Run) -> Features:
    rows = [row for _, readings in read_shards(run) for row in _uncertainties(readings)]
    return Features(np.array(rows), _UNCERTAINTY)


def _uncertainties(readings: Readings) -> Iterator[list[float]]:
    for start, stop in zip(readings.offsets[:-1], readings.offsets[1:], strict=True):
        scores = readings.logprobs[int(start) : int(stop)].double().numpy()
        entropies = readings.entropies[int(start) : int(stop)].double().numpy()
        yield [
            scores.sum(), scores.mean(), scores.min(), scores[0],
            entropies.mean(), entropies.max(), entropies[0], entropies[-1],
        ]  # fmt: skip


def _agreement(run: Run) -> Features:
    found = pl.read_parquet(run.step_folder(SAMPLES) / AGREEMENT)
    # A statement without a prompt was not sampled: its columns are NaN, and filled in folds.
    joined = pl.DataFrame({"prompt": _texts(run, "prompt")}).join(
        found, on="prompt", how="left", maintain_order="left"
    )
    rows = joined.drop("prompt").cast(pl.Float64).fill_null(float("nan"))
    return Features(rows.to_numpy(), tuple(rows.columns))


_SELF_CHECK = ("surprise of words", "largest surprise of a word", "similarity to samples")


def _self_check(run: Run) -> Features:
    """How far the samples of a prompt say what the answer says (SelfCheckGPT by words alone)."""
    found = pl.read_parquet(run.step_folder(SAMPLES) / TEXTS)
    samples = dict(found.group_by("prompt").agg("text").iter_rows())
    rows = []
    for prompt, answer in zip(_texts(run, "prompt"), completions(run), strict=True):
        mine = samples.get(prompt)
        judges = (surprise_of_words, largest_surprise, similarity_to_samples)
        rows.append([judge(answer, mine) if mine else np.nan for judge in judges])
    return Features(np.array(rows), _SELF_CHECK)


def _baseline(run: Run, config: HallucinationConfig) -> Features:
    sampled = [_agreement, _self_check] if config.answers.samples else []
    return _joined([make(run) for make in (_style, _uncertainty, *sampled)])


def _states(run: Run, point: HookPoint) -> Features:
    place = PLACES.index("exact")
    parts = [readings.states[point][:, place].numpy() for _, readings in read_shards(run)]
    x = np.concatenate(parts).astype(np.float64)
    return Features(x, tuple(f"{point}[{i}]" for i in range(x.shape[1])))


def _layers(run: Run, config: HallucinationConfig) -> Features:
    """The states of all layers [n, l, d_model]."""
    found = [_states(run, point) for point in config.points]
    names = tuple(name for one in found for name in one.names)
    return Features(np.stack([one.x for one in found], axis=1), names)


def _updates(run: Run, config: HallucinationConfig) -> Features:
    """What each layer adds to the one before, all layers side by side: a probe of transitions, as
    DRIFT reads them. It is fitted in the rows' own span, which is PCA with nothing cut off.
    """
    layers, _ = _layers(run, config)
    updates = np.diff(layers, axis=1)
    names = (f"{p} to {q}[{i}]" for p, q in zip(config.points[:-1], config.points[1:], strict=True)
             for i in range(layers.shape[2]))  # fmt: skip
    return Features(updates.reshape(len(layers), -1), tuple(names))


def _latents(run: Run, config: HallucinationConfig) -> Features:
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
    ever = np.flatnonzero(found.any(axis=0))
    starts = np.cumsum([0, *config.widths])
    layer = np.searchsorted(starts, ever, side="right") - 1
    names = (f"latent {config.points[k]}/{i - starts[k]}" for k, i in zip(layer, ever, strict=True))
    return Features(found[:, ever], tuple(names))


def _reconstruction(run: Run, config: HallucinationConfig) -> Features:
    """By layer, the share of an answer's states that its latents leave unexplained, and how many
    are active at a position.
    """
    parts = []
    for _, readings in read_shards(run):
        starts = readings.offsets[:-1].numpy() + np.arange(len(readings.offsets) - 1)
        n_positions = np.diff(readings.offsets.numpy()) + 1
        columns = []
        for point in config.points:
            errors, distances = readings.unexplained[point].double().numpy().T
            active = readings.latents[point].offsets.diff().numpy()
            columns.append(np.add.reduceat(errors, starts) / np.add.reduceat(distances, starts))
            columns.append(np.add.reduceat(active, starts) / n_positions)
        parts.append(np.column_stack(columns))
    names = (f"{what} {point}" for point in config.points for what in ("FVU", "L0"))
    return Features(np.concatenate(parts), tuple(names))


def _tracking(run: Run) -> Features:
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
    said = (f"{name} {where}" for where in ("where it is drawn", "of the answer") for name in names)
    return Features(np.hstack(parts), tuple(said))


def _one(of: Callable[[Run], Features], column: str, sign: float = 1.0) -> "_Made":
    """One column as a score; what is not known of an answer is in the middle of the others."""

    def made(run: Run) -> Features:
        found = of(run)
        score: Float[np.ndarray, " n"] = sign * found.x[:, found.names.index(column)]
        return Features(np.where(np.isnan(score), np.nanmedian(score), score), (column,))

    return _of_run(made)


def _of_run(make: Callable[[Run], Features]) -> "_Made":
    return lambda run, _: make(run)


def _joined(parts: Sequence[Features]) -> Features:
    names = tuple(name for part in parts for name in part.names)
    return Features(np.hstack([part.x for part in parts]), names)


_Made = Callable[[Run, HallucinationConfig], Features]

COLUMNS: Mapping[str, _Made] = MappingProxyType(
    {
        "length": _one(_style, "characters"),
        "perplexity": _one(_uncertainty, "mean log-probability", -1.0),
        "token entropy": _one(_uncertainty, "mean entropy"),
        "EigenScore": _one(_agreement, "eigen_score"),
        "semantic entropy": _one(_agreement, "semantic_entropy"),
        "style": _of_run(_style),
        WORDS[0]: _of_run(_words("completion")),
        WORDS[1]: _of_run(_words("prompt")),
        "uncertainty": _of_run(_uncertainty),
        "agreement of samples": _of_run(_agreement),
        "self-check": _of_run(_self_check),
        "layers": _layers,
        "probe of updates": _updates,
        "latents": _latents,
        "reconstruction": _reconstruction,
        BASELINE: _baseline,
        TRACKING: _of_run(_tracking),
        COMBINED: lambda run, config: _joined([_baseline(run, config), _tracking(run)]),
    }
)
"""What methods look at, by name."""
