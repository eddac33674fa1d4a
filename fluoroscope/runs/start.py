"""Starting or continuing: is this folder this run, and are these its settings?"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from fluoroscope.core.config import Config, Settings, build, what_half
from fluoroscope.core.errors import RunError
from fluoroscope.core.storage import COMMIT
from fluoroscope.runs.events import EventLog
from fluoroscope.runs.how import How
from fluoroscope.runs.manifest import SHARDS
from fluoroscope.runs.provenance import provenance
from fluoroscope.runs.record import (
    FILE,
    RunRecord,
    StepRecord,
    class_reference,
    flatten,
    load_class,
    read_record,
    write_record,
)
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.study import Study

_MISSING = "(not there)"


def start_run(
    folder: Path,
    study: Study[Config, Config],
    spec: Config,
    config: Config,
    sources: Mapping[str, str],
    steps: Sequence[MapStep],
    how: How,
    arguments: Sequence[str],
) -> EventLog:
    """Writes run.json, or checks that the one there is of the same study and settings."""
    record = RunRecord(
        study=study.name,
        study_class=class_reference(type(study)),
        spec_class=class_reference(type(spec)),
        config_class=class_reference(type(config)),
        spec=spec.model_dump(mode="json"),
        config=config.model_dump(mode="json"),
        sources=sources,
        how=how,
        arguments=tuple(arguments),
        steps=tuple(StepRecord(name=s.name, inputs=s.inputs, cost=asdict(s.cost())) for s in steps),
        provenance=provenance(getattr(config, "seed", None)),
    )
    log = EventLog(folder)
    log.mend()
    here = record.provenance
    if (folder / FILE).exists():
        old = read_record(folder)
        _check_same(folder, old, record, spec, config)
        kept = {"provenance": old.provenance, "sources": {**sources, **old.sources}}
        record = record.model_copy(update=kept)
    else:
        started = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        record = record.model_copy(update={"provenance": {**here, **started}})
    _remove_leftovers(folder)
    write_record(folder, record)
    log.append(
        "run started", how=how.model_dump(mode="json"), arguments=list(arguments), pid=os.getpid()
    )
    for change in _differences(_versions(record.provenance), _versions(here)):
        text = f"Not as when the run was started, so the last bits of numbers may differ: {change}"
        log.append("message", text=text)
    return log


def _versions(settings: Settings) -> Settings:
    names = ("fluoroscope", "python", "packages", "hardware")
    return {name: settings.get(name) for name in names}


def _check_same(folder: Path, old: RunRecord, new: RunRecord, spec: Config, config: Config) -> None:
    if old.study != new.study:
        raise RunError(
            f"{folder} is a run of the study {old.study!r}, not of {new.study!r}. "
            "Choose another --name."
        )
    exchanged = [
        name
        for name, found in old.sources.items()
        if new.sources.get(name, found) != found and not found.startswith(COMMIT)
    ]
    if exchanged:
        raise RunError(
            f"Run {folder.name} was started with another {' and '.join(exchanged)} than what now "
            "stands in its place, so going on would mix two results. Put back the old one, or "
            "choose another --name."
        )
    changes = _changes(old.config, old.config_class, config)
    if changes:
        # What was asked for says more to a reader than what became of it.
        asked = _changes(old.spec, old.spec_class, spec)
        changes = [*asked, *(change for change in changes if change not in asked)]
        listing = "\n".join(f"  {change}" for change in changes)
        raise RunError(
            f"Run {folder.name} was started with other settings, so going on would mix two "
            f"results. Changed:\n{listing}\nGive the old values, or choose another --name."
        )


def _changes(old: Settings, old_class: str, new: Config) -> list[str]:
    """WHAT settings that differ; a HOW setting of the old run is known by the new class."""
    if old_class != class_reference(type(new)):
        return [f"class: {old_class} -> {class_reference(type(new))}"]
    try:
        old_what = what_half(build(load_class(old_class), old))
    except ValueError:
        # Written by another version: what it had and this one has not shows as a difference.
        old_what = old
    return _differences(old_what, what_half(new))


def _differences(old: Settings, new: Settings) -> list[str]:
    before, after = dict(flatten(old)), dict(flatten(new))
    keys = sorted(before.keys() | after.keys())
    pairs = [(key, before.get(key, _MISSING), after.get(key, _MISSING)) for key in keys]
    return [f"{key}: {a!r} -> {b!r}" for key, a, b in pairs if a != b]


def check_unused(folder: Path) -> None:
    """Raises `RunError` if `folder` is there with files that are not a run's."""
    if not folder.is_dir() or (folder / FILE).exists():
        return
    ours = {"lock", "workers.lock", "log.txt", "events.jsonl"}
    others = [
        path.name for path in folder.iterdir() if path.name not in ours and path.name[0] != "."
    ]
    if others:
        raise RunError(
            f"{folder} has no {FILE} but holds {', '.join(sorted(others)[:5])}: it is not a run, "
            "and nothing is written over it. Choose another --name."
        )


def _remove_leftovers(folder: Path) -> None:
    # Half-written files of a killed process; their names begin with a dot and end with .part.
    places = [folder, folder / "tables", folder / "figures"]
    places += [place.parent for place in folder.glob(f"*/{SHARDS}")]
    for place in places:
        for leftover in place.glob(".*.part"):
            leftover.unlink()
