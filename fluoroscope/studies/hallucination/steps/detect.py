"""Columns of each method -> out-of-fold scores (`detect/`).

detect/shards/<k>/scores.safetensors   of a method [repeats, answers], and the fold of each; none
                                       for one that cannot be judged on these answers
detect/shards/<k>/notes.json           what was done to its columns, or why it cannot
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from fluoroscope.core.errors import ConfigError, MismatchError
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.core.tensors import read_metadata, read_tensors, write_tensors
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.detection import DETECTORS
from fluoroscope.studies.hallucination.detection.cross_validation import (
    CrossValidation,
    OutOfFold,
    cross_validate,
    without_training,
)
from fluoroscope.studies.hallucination.detection.noise_guard import merged_groups
from fluoroscope.studies.hallucination.detection.scores import Scored, scored
from fluoroscope.studies.hallucination.methods import WORDS_APART, Method, methods
from fluoroscope.studies.hallucination.steps.answers import ANSWERS
from fluoroscope.studies.hallucination.steps.features import (
    completions,
    features,
    readable_answers,
)
from fluoroscope.studies.hallucination.steps.read import READ
from fluoroscope.studies.hallucination.steps.samples import SAMPLES
from fluoroscope.studies.hallucination.steps.track import TRACK

DETECT = "detect"
SCORES, NOTES = "scores.safetensors", "notes.json"
SECONDS_A_FIT = 0.5
MAX_MERGED = 0.5
"""Share of the answers that may hang together by recurring texts before folds make no sense."""


class DetectStep(MapStep):
    """A shard a method, all in the same folds."""

    name = DETECT

    def __init__(self, config: HallucinationConfig) -> None:
        self.config = config
        sampled = (SAMPLES,) if config.answers.samples else ()
        self.inputs = (ANSWERS, *sampled, READ, TRACK)

    def cost(self) -> Cost:
        learnt = [one for one in methods(self.config).values() if one.kind != "raw"]
        fits = self.config.detection.folds * sum(one.repeats for one in learnt)
        return Cost(overhead_s=fits * SECONDS_A_FIT, memory_bytes=1e9, parallel=len(learnt))

    def shards(self, run: Run) -> Sequence[Shard]:
        return [
            Shard(f"{number:02d}", {"method": method})
            for number, method in enumerate(methods(self.config))
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        method = methods(self.config)[shard.params["method"]]
        about = {"method": method.name, "detector": method.detector}
        try:
            found = judged(run, self.config, method)
        except _RecurringError as error:
            write_json(context.folder / NOTES, {**about, "notes": [str(error)]})
            return
        tensors = {"scores": torch.from_numpy(found.scores), "folds": torch.from_numpy(found.folds)}
        write_tensors(context.folder / SCORES, tensors, about)
        notes = list(found.notes) if isinstance(found, OutOfFold) else []
        write_json(context.folder / NOTES, {**about, "notes": notes})

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        told = set()
        for shard, method in zip(self.shards(run), methods(self.config).values(), strict=True):
            notes = _notes(run, folder / "shards" / shard.key, method.name)
            # Another detector has nothing new to say of the same columns.
            if notes and (method.kind, method.columns) not in told:
                sink.message(f"{method.name}: {' '.join(notes)}")
                told.add((method.kind, method.columns))


class _RecurringError(ConfigError):
    """Answers of one text cannot be kept apart."""


def judged(run: Run, config: HallucinationConfig, method: Method) -> Scored:
    """The scores of a method, of answers that it saw nothing of."""
    answers, looked_at = readable_answers(run), features(run, config, method.columns)
    labels, groups = answers["label"].to_numpy(), answers["group_id"].to_numpy()
    ids, protocol = answers["id"].to_numpy(), make_protocol(config, method.repeats)
    if method.kind == "raw":
        return without_training(looked_at.x, labels, groups, protocol, ids)
    detector = DETECTORS.load(method.detector)()
    if method.name != WORDS_APART:
        return cross_validate(detector, looked_at.x, labels, groups, protocol, ids, looked_at.names)
    merged = _merged(groups, completions(run))
    try:
        return cross_validate(detector, looked_at.x, labels, merged, protocol, ids)
    except ConfigError as error:
        raise _RecurringError(f"left out, for answers recur: {error}") from error


def make_protocol(config: HallucinationConfig, repeats: int | None = None) -> CrossValidation:
    """All repeats by default; fewer are the first ones."""
    return CrossValidation(config.seed, config.detection.folds, repeats or config.detection.repeats)


def read_scores(run: Run, config: HallucinationConfig) -> dict[str, Scored]:
    """Method -> its scores, in the order of `methods`, without those that could not be judged.

    `MismatchError` where a shard is of another method: its run has another version's list of them.
    """
    answers = readable_answers(run)
    labels, groups = answers["label"].to_numpy(), answers["group_id"].to_numpy()
    found = {}
    for number, method in enumerate(methods(config)):
        place = run.shard_folder(DETECT, f"{number:02d}") / SCORES
        if not place.exists():
            read_notes(run, number, method)
            continue
        _check_method(run, place, read_metadata(place), method)
        tensors = read_tensors(place)
        folds = tensors["folds"].numpy().astype(np.int64)
        own = merged_groups(groups, completions(run)) if method == WORDS_APART else groups
        found[method] = scored(tensors["scores"].numpy(), labels, own, folds)
    return found


def read_notes(run: Run, number: int, method: str) -> list[str]:
    """What was done to the columns of a method, or why it could not be judged."""
    return _notes(run, run.shard_folder(DETECT, f"{number:02d}"), method)


def _notes(run: Run, shard: Path, method: str) -> list[str]:
    about = read_json(shard / NOTES)
    _check_method(run, shard / NOTES, about, method)
    return about["notes"]


def _check_method(run: Run, file: Path, about: Mapping[str, object], method: str) -> None:
    # Shards are numbered, and the numbers mean something else as soon as the list changes.
    if about.get("method") != method:
        raise MismatchError(
            f"{file.relative_to(run.folder)} of run {run.name} should be of method {method!r} and "
            f"is of {about.get('method')!r}: the run was made by another version, with another "
            f"list of methods. Remove {run.folder / DETECT} and run the study again under this "
            "name, or run it under another --name."
        )


def _merged(groups: np.ndarray, texts: list[str]) -> np.ndarray:
    """Groups that share an answer as one."""
    merged = merged_groups(groups, texts)
    most = int(np.bincount(merged).max())
    if most > MAX_MERGED * len(merged):
        raise _RecurringError(
            f"left out, for answers recur so much that {most} of {len(merged)} hang together; "
            "see the AUROC among answers of one text."
        )
    return merged
