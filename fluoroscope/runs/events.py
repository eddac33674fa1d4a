"""events.jsonl: what happened in a run, one JSON object a line, only ever appended to.

Any number of processes append at once: a line is one `write` to a file opened with O_APPEND.
A process killed in the middle of one may leave a torn line, which readers pass over.
"""

import errno
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fluoroscope.core.errors import DoesNotFitError
from fluoroscope.core.storage import full_disk_named

FILE = "events.jsonl"

Event = dict[str, Any]  # Any: JSON values; "event" and "time" are always there.


class EventLog:
    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def append(self, event: str, **values: object) -> None:
        """Adds a line; numbers that JSON does not have (NaN, infinities) become null."""
        line = {"event": event, "time": round(time.time(), 3), **values}
        data = (json.dumps(_finite(line), ensure_ascii=False) + "\n").encode()
        with full_disk_named(self.path):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                if os.write(descriptor, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(descriptor)

    def append_if_possible(self, event: str, **values: object) -> None:
        """Adds a line about a failure, which a full disk must not hide behind another."""
        with suppress(DoesNotFitError):
            self.append(event, **values)

    def mend(self) -> None:
        """Ends a line that was torn by a kill, so that the next one stands on its own."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            return
        with full_disk_named(self.path), self.path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def parse_events(lines: list[bytes]) -> list[Event]:
    """The events of `lines`; torn ones are passed over."""
    events: list[Event] = []
    for line in lines:
        try:
            event = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError):
            continue
        if isinstance(event, dict) and {"event", "time"} <= event.keys():
            events.append(event)
    return events


def read_events(folder: Path, *kinds: str) -> list[Event]:
    """The events of a run in order, of all kinds or of `kinds` only."""
    path = folder / FILE
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    return [event for event in parse_events(lines) if not kinds or event["event"] in kinds]


def read_metrics(folder: Path, step: str, shard: str | None = None) -> Iterator[Event]:
    """Metrics of a step by shard and iteration, each once however often the run was resumed.

    Every item has `shard`, `iteration` and `values`.
    """
    latest = {
        (event["shard"], event["iteration"]): event
        for event in read_events(folder, "metrics")
        if event["step"] == step and shard in (None, event["shard"])
    }
    for key in sorted(latest):
        yield latest[key]


class EventTail:
    """The events that were appended since the last look."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._position = self._path.stat().st_size if self._path.exists() else 0

    def new(self) -> list[Event]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._position)
            data = file.read()
        whole, newline, _ = data.rpartition(b"\n")
        self._position += len(whole) + len(newline)
        return parse_events(whole.split(b"\n"))
