"""What a report says that stands in no table: the facts under its title and captions.

They are read off report.html, which holds them as they were shown.
"""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

_PICTURES = ("chart", "drawing", "animation")


@dataclass
class WrittenReport:
    title: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)
    """Name of a figure, a drawing or an animation -> what stands under it."""


def read_report(path: Path) -> WrittenReport:
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found = WrittenReport()
        self._text: list[str] = []
        self._fact = ""
        self._figure = ""
        self._in_picture = False
        self._in_facts = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "dl":
            self._in_facts = values.get("class") == "facts"
        if tag == "figure":
            self._in_picture, self._figure = values.get("class") in _PICTURES, ""
        if tag == "div" and values.get("class") == "plot" and not self._figure:
            # The place of a figure's first panel is called NAME-0.
            self._figure = (values.get("id") or "").rpartition("-")[0]
        if tag == "img" and not self._figure:
            self._figure = values.get("data-name") or ""
        if tag in ("h1", "dt", "dd", "figcaption"):
            self._text = []

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        text = "".join(self._text).strip()
        if tag == "h1":
            self.found.title = text
        if tag == "dt":
            self._fact = text
        if tag == "dd" and self._in_facts:
            self.found.facts[self._fact] = text
        if tag == "figcaption" and self._in_picture and self._figure:
            self.found.captions[self._figure] = text
