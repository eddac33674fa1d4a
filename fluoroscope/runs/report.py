"""Report: tables, figures and words -> one page that opens anywhere, and files for a paper.

`write(folder)` leaves
    report.html      self-contained: style, scripts and data inside, and nothing is fetched
    tables/NAME.csv  the numbers in full, and NAME.tex, the same table for a paper
    figures/NAME.png and NAME.pdf, of an animation NAME.gif
All of them are the same bytes for the same content; nothing holds a time or a path.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars
from matplotlib.figure import Figure

from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.core.storage import write_csv, write_text
from fluoroscope.plots.animation import Animation, save_animation
from fluoroscope.plots.chart import Chart
from fluoroscope.plots.figure_files import save_figure
from fluoroscope.plots.matplotlib_renderer import save_chart
from fluoroscope.runs import report_html
from fluoroscope.runs.latex import latex_table
from fluoroscope.runs.markdown_lite import markdown_html
from fluoroscope.runs.report_cards import Context, FeatureCard, card_html, contexts_html
from fluoroscope.runs.report_pictures import animation_html, drawing_html
from fluoroscope.runs.report_strips import Strip, strips_html


@dataclass(frozen=True)
class Gate:
    """A number that must lie in a stated range for the result to be trusted."""

    name: str
    value: float | int
    allowed: str
    """The range in words, such as `at most 0.2` or `8 to 64`."""
    passed: bool
    where: str = ""
    """What the number was measured on, such as a hook point."""


@dataclass
class Report:
    """Elements appear in the order in which they are added; names are file names."""

    title: str
    subtitle: str = ""
    facts: Mapping[str, str | float | int] = field(default_factory=dict)
    """A few numbers or names that a reader wants first; shown large under the title."""

    def __post_init__(self) -> None:
        self._blocks: list[str] = []
        self._headings: list[report_html.Heading] = []
        self._tables: dict[str, tuple[polars.DataFrame, str]] = {}
        self._charts: dict[str, Chart] = {}
        self._drawings: dict[str, Figure] = {}
        self._animations: dict[str, Animation] = {}
        self._gates: list[Gate] = []

    def section(self, title: str) -> None:
        self._heading(2, title)

    def subsection(self, title: str) -> None:
        self._heading(3, title)

    def text(self, markdown: str) -> None:
        """Paragraphs, `-` lists, **bold**, *italic*, `code`, [links](https://...)."""
        self._blocks.append(f'<div class="prose">{markdown_html(markdown)}</div>')

    def table(
        self,
        name: str,
        frame: polars.DataFrame,
        caption: str = "",
        formats: Mapping[str, str] | None = None,
    ) -> None:
        """A sortable table; `formats` gives columns a number format, such as `{"fvu": ".3f"}`."""
        self._check_new(name)
        _check_flat(name, frame)
        missing = sorted(set(formats or {}) - set(frame.columns))
        if missing:
            raise ValueError(f"Table {name!r} has no column {missing[0]!r}, only {frame.columns}.")
        self._tables[name] = (frame, latex_table(frame, caption, name, formats))
        self._blocks.append(report_html.table_html(name, frame, caption, formats or {}))

    def figure(self, name: str, chart: Chart, caption: str = "") -> None:
        self._check_new(name)
        self._charts[name] = chart
        self._blocks.append(report_html.figure_html(name, chart, caption))

    def drawing(self, name: str, figure: Figure, caption: str = "", alt: str = "") -> None:
        """A figure of matplotlib that no chart can be; `alt` says in words what it shows."""
        self._check_new(name)
        self._drawings[name] = figure
        self._blocks.append(drawing_html(name, figure, caption, alt))

    def animation(self, name: str, animation: Animation, caption: str = "") -> None:
        """A GIF, with its stills folded below it; on paper the stills stand in its place."""
        self._check_new(name)
        self._animations[name] = animation
        self._blocks.append(animation_html(name, animation, caption))

    def gates(self, gates: Sequence[Gate], name: str = "gates", caption: str = "") -> None:
        """A table of checks; whether all of them passed is also said under the title."""
        self._check_new(name)
        columns = ("where", "name", "value", "allowed", "passed")
        rows = [{column: getattr(gate, column) for column in columns} for gate in gates]
        schema = {
            "where": polars.String,
            "name": polars.String,
            "value": polars.Float64,
            "allowed": polars.String,
            "passed": polars.Boolean,
        }
        frame = polars.DataFrame(rows, schema=schema)
        self._gates += gates
        self._tables[name] = (frame, latex_table(frame, caption, name))
        self._blocks.append(report_html.gates_html(name, frame, caption))

    def contexts(self, contexts: Sequence[Context], caption: str = "") -> None:
        """Rows of tokens, each on a ground whose strength is its activation."""
        body = contexts_html(contexts)
        self._blocks.append(report_html.boxed_html("context-box", body, caption))

    def strips(self, strips: Sequence[Strip], caption: str = "") -> None:
        """Texts whose tokens each stand above the numbers that are known of them."""
        body = strips_html(strips)
        self._blocks.append(report_html.boxed_html("strip-box", body, caption))

    def cards(self, cards: Sequence[FeatureCard]) -> None:
        """Identity cards, side by side where the window is wide enough."""
        inside = "".join(card_html(card) for card in cards)
        self._blocks.append(f'<div class="cards">{inside}</div>')

    def html(self, fragment: str) -> None:
        """A fragment of HTML as it is; escape what comes from data with `html.escape`."""
        self._blocks.append(fragment)

    def write(self, folder: Path, sink: Sink = SILENT) -> None:
        """Writes the files for a paper and, last, report.html."""
        figures = folder / "figures"
        for name, (frame, latex) in self._tables.items():
            write_csv(folder / "tables" / f"{name}.csv", frame)
            write_text(folder / "tables" / f"{name}.tex", latex)
        for i, (name, chart) in enumerate(self._charts.items(), start=1):
            save_chart(chart, figures / f"{name}.png", figures / f"{name}.pdf")
            sink.progress(i, len(self._charts), "figures")
        for name, figure in self._drawings.items():
            save_figure(figure, figures / f"{name}.png")
            save_figure(figure, figures / f"{name}.pdf")
        for name, animation in self._animations.items():
            save_animation(animation, figures / f"{name}.gif")
        write_text(folder / "report.html", self.page())

    def page(self) -> str:
        """The whole page as text."""
        return report_html.page_html(
            title=self.title,
            subtitle=self.subtitle,
            facts=self.facts,
            n_gates=len(self._gates),
            n_failed=sum(not gate.passed for gate in self._gates),
            headings=self._headings,
            blocks=self._blocks,
            has_charts=bool(self._charts),
        )

    def _named(self) -> tuple[Mapping[str, object], ...]:
        return self._tables, self._charts, self._drawings, self._animations

    def _heading(self, level: int, title: str) -> None:
        plain = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        taken = {heading.anchor for heading in self._headings}
        anchor, n = plain, 2
        while anchor in taken:
            anchor, n = f"{plain}-{n}", n + 1
        heading = report_html.Heading(level, title, anchor)
        self._headings.append(heading)
        self._blocks.append(report_html.heading_html(heading))

    def _check_new(self, name: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise ValueError(f"{name!r} becomes a file name: use letters, digits, '_', '-', '.'.")
        if any(name in kind for kind in self._named()):
            raise ValueError(f"The report has an element called {name!r} already.")


def _check_flat(name: str, frame: polars.DataFrame) -> None:
    for column in frame:
        if column.dtype.is_nested():
            raise ValueError(
                f"Column {column.name!r} of table {name!r} holds {column.dtype}; a table needs "
                "one number or text a cell."
            )
