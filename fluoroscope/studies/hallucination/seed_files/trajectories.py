"""`hypothesis_trajectories.json`: every track of every text, point by point.

    {"id", "group_id", "label", "prompt", "answer",
     "point_fields": ["layer", "feature", "activation", "norm_activation"],
     "tracks": [{"id", "position", "birth", "death", "existence", "parent", "children",
                 "points": [[3, 412, 1.7, 0.9], ...]}]}

Layers are blocks counted from 0. Position -1 is the last token of the prompt, where the answer is
drawn; 0 is the answer's first token. Tracks are numbered within a position; `parent` is the track
of the same position that one split from, or null. `death` is the layer of the last point, null
where it lives on in the last layer. `norm_activation` is in units of what is high for the latent.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fluoroscope.data.answers.record import AnswerRecord
from fluoroscope.runs.run import Run
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.seed_files.writing import TRAJECTORIES, write_lines
from fluoroscope.studies.hallucination.steps.answers import read_answer_records
from fluoroscope.studies.hallucination.steps.features import readable_answers
from fluoroscope.studies.hallucination.steps.track import TRACK, TRACKS

FIELDS = ["layer", "feature", "activation", "norm_activation"]


def write_trajectories(run: Run, config: HallucinationConfig, out: Path) -> Path:
    """Text by text; memory holds one shard of the run."""
    return write_lines(out / TRAJECTORIES, trajectories(run, config))


def trajectories(run: Run, config: HallucinationConfig) -> Iterator[dict[str, Any]]:
    """A text at a time, in the order of `read/answers.parquet`."""
    records = {record.id: record for record in read_answer_records(run)}
    blocks = np.array([point.layer for point in config.points])
    tracks: dict[str, pl.DataFrame] = {}
    shards = iter(sorted((run.step_folder(TRACK) / "shards").iterdir()))
    for name in readable_answers(run)["id"]:
        while name not in tracks and (place := next(shards, None)) is not None:
            # Shards have answers in this order, so those of the one before are done with.
            found = pl.read_parquet(place / TRACKS)
            tracks = {str(key[0]): part for key, part in found.group_by("id", maintain_order=True)}
        yield _text_json(records[name], tracks.get(name), blocks)


def _text_json(
    record: AnswerRecord, points: pl.DataFrame | None, blocks: np.ndarray
) -> dict[str, Any]:
    return {
        "id": record.id,
        "group_id": record.group_id,
        "label": record.label,
        "prompt": record.prompt,
        "answer": record.completion,
        "point_fields": FIELDS,
        "tracks": [] if points is None else tracks_json(points, blocks),
    }


def tracks_json(points: pl.DataFrame, blocks: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
    """Of the points of one text, sorted by position, track and layer; `blocks` is the block of
    each layer that is tracked.
    """
    order = points.sort("position", "track", "layer")
    position, track = order["position"].to_numpy(), order["track"].to_numpy()
    starts = np.flatnonzero(np.r_[True, (np.diff(position) != 0) | (np.diff(track) != 0)])
    layers = np.asarray(blocks)[order["layer"].to_numpy()]
    rows = list(
        zip(
            layers.tolist(),
            order["latent"].to_list(),
            [_short(value) for value in order["activation"]],
            [_short(value) for value in order["strength"]],
            strict=True,
        )
    )
    existence, parent = order["existence"].to_numpy(), order["parent"].to_numpy()
    found, by_place = [], {}
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        one = {
            "id": int(track[start]),
            "position": int(position[start]),
            "birth": rows[start][0],
            "death": None if rows[stop - 1][0] == blocks[-1] else rows[stop - 1][0],
            "existence": _short(float(existence[start])),
            "parent": int(parent[start]) if parent[start] >= 0 else None,
            "children": [],
            "points": [list(row) for row in rows[start:stop]],
        }
        found.append(one)
        by_place[one["position"], one["id"]] = one
    for one in found:
        if one["parent"] is not None:
            by_place[one["position"], one["parent"]]["children"].append(one["id"])
    return found


def _short(value: float) -> float:
    """Six digits: what is read from half the bytes."""
    return float(f"{value:.6g}")
