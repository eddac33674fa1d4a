"""The items of one list in a JSON file, one at a time.

A log of games may have 14 GB, nearly all of it dense activations. Read as a whole it would be ten
times that in memory; here one game at a time is held. Python's own decoder does the work, on a
window of the text that grows until an item is whole.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fluoroscope.core.errors import CorpusError

_CHUNK = 1 << 20
_BLANK = " \t\n\r"
_MARGIN = 64
"""Of characters: what is wrong this near to the end of the window may only be cut off."""


class JSONItems:
    """Iterates over the items of the list that the file is, or that its `key` has; where that is
    an object, over its values. `header` has what stands beside it, as far as it was read.

    Raises `CorpusError` for what is not JSON, naming the item, and where there is no such list.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.header: dict[str, Any] = {}  # Any: JSON values.

    def __iter__(self) -> Iterator[Any]:  # Any: JSON values.
        try:
            with self.path.open(encoding="utf-8") as file:
                window = _Window(file.read, str(self.path))
                yield from self._items(window)
        except UnicodeDecodeError as error:
            raise CorpusError(f"{self.path} is not text in UTF-8 ({error}).") from None
        except OSError as error:
            raise CorpusError(f"{self.path} cannot be read: {error.strerror}.") from None

    def _items(self, window: "_Window") -> Iterator[Any]:  # Any: JSON values.
        match window.next():
            case "[":
                yield from window.items("", has_names=False)
            case "{":
                window.take("{")
                for name in window.names():
                    opening = window.next()
                    if name == self.key and opening in ("[", "{"):
                        yield from window.items(name, has_names=opening == "{")
                        return
                    self.header[name] = window.value(f"of {name}")
                raise CorpusError(
                    f"{self.path} has no list {self.key!r}; it has "
                    f"{', '.join(map(repr, self.header)) or 'nothing'}."
                )
            case found:
                raise CorpusError(
                    f"{self.path} is no list and no object of JSON; it begins with {found!r}."
                )


class _Window:
    """A part of a text that is decoded from left to right."""

    def __init__(self, read: Any, name: str) -> None:  # Any: the method of an open text file.
        self._read, self._name = read, name
        self._text, self._at, self._is_whole = "", 0, False
        self._decoder = json.JSONDecoder()

    def items(self, label: str, *, has_names: bool) -> Iterator[Any]:  # Any: JSON values.
        ends = "}" if has_names else "]"
        self._at += 1
        for i in self._members(ends):
            if has_names:
                self._name_and_colon()
            yield self.value(f"at {label}[{i}]")

    def names(self) -> Iterator[str]:
        """The names of an object that was begun; the value must be taken before the next."""
        for _ in self._members("}"):
            yield self._name_and_colon()

    def value(self, what: str) -> Any:  # Any: JSON values.
        self.next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated string") or (
                    error.pos > len(self._text) - _MARGIN
                )
                if self._is_whole or not is_cut:
                    raise CorpusError(
                        f"{self._name}, {what}: {error.msg} (character {error.pos - self._at} of "
                        "it). The file is damaged or was not written to its end."
                    ) from None
            else:
                # A number near the edge may go on behind it: "0" of "0.5", "0." too.
                if self._is_whole or end < len(self._text) - _MARGIN or self._is_end(end):
                    self._at = end
                    return value
            self._more()

    def next(self) -> str:
        """The next character that is not blank, which is not taken; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _BLANK:
                    return self._text[self._at]
                self._at += 1
            if self._is_whole:
                return ""
            self._more()

    def take(self, expected: str) -> str:
        """Passes over the next character, which must be one of `expected`."""
        found = self.next()
        if not found or found not in expected:
            raise CorpusError(
                f"{self._name}: expected {' or '.join(expected)}, got {found or 'the end'!r}. The "
                "file is damaged or was not written to its end."
            )
        self._at += 1
        return found

    def _members(self, ends: str) -> Iterator[int]:
        if self.next() == ends:
            self._at += 1
            return
        i = 0
        while True:
            yield i
            i += 1
            if self.take(f",{ends}") == ends:
                return

    def _name_and_colon(self) -> str:
        name = self.value("in a name")
        if not isinstance(name, str):
            raise CorpusError(f"{self._name}: the name of a value must be text, got {name!r}.")
        self.take(":")
        return name

    def _is_end(self, at: int) -> bool:
        return at < len(self._text) and self._text[at] in f"{_BLANK},:]}}"

    def _more(self) -> None:
        """As much again as is held, so that a large item is decoded a few times, not many."""
        kept = self._text[self._at :]
        read = self._read(max(_CHUNK, len(kept)))
        self._is_whole = read == ""
        self._text, self._at = kept + read, 0
