"""The HTML of a report's elements and of the page around them.

Style and behaviour live beside this file in report.css and report.js. A content security
policy forbids the page every request, so that it is as offline as it claims to be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

import polars
from plotly.offline import get_plotlyjs

from fluoroscope.plots.chart import Chart
from fluoroscope.plots.plotly_renderer import plotly_figures
from fluoroscope.plots.style import RAMPS
from fluoroscope.runs.markdown_lite import inline_html
from fluoroscope.runs.number_format import cell_text, column_texts

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)

_LONG_TABLE_ROWS = 12

_MOST_COLUMNS = 4
"""Panels side by side; a sheet of paper may have more, which a page has no room for."""


@dataclass(frozen=True)
class Heading:
    level: int
    title: str
    anchor: str


def heading_html(heading: Heading) -> str:
    level = heading.level
    return f'<h{level} id="{heading.anchor}">{inline_html(heading.title)}</h{level}>'


def boxed_html(kind: str, body: str, caption: str) -> str:
    below = f"<figcaption>{inline_html(caption)}</figcaption>" if caption else ""
    return f'<figure class="{kind}">{body}{below}</figure>'


def table_html(name: str, frame: polars.DataFrame, caption: str, formats: Mapping[str, str]) -> str:
    columns = [_column_cells(column, formats.get(column.name)) for column in frame]
    rows = ["".join(cells) for cells in zip(*columns, strict=True)]
    return _sortable_html(name, frame, rows, caption)


def gates_html(name: str, frame: polars.DataFrame, caption: str) -> str:
    """As `table_html`, with a sign and a word for passed and failed."""
    # Gates measure different things, so each value has decimals of its own; what failed is
    # on top, where it is seen.
    rows = [
        f"<td>{escape(gate['where'])}</td><td>{escape(gate['name'])}</td>"
        f'<td class="number" data-value="{gate["value"]!r}">{escape(cell_text(gate["value"]))}</td>'
        f"<td>{escape(gate['allowed'])}</td>"
        f'<td data-value="{int(gate["passed"])}">{_verdict(is_passed=gate["passed"])}</td>'
        for gate in frame.sort("passed", maintain_order=True).iter_rows(named=True)
    ]
    return _sortable_html(name, frame, rows, caption)


def figure_html(name: str, chart: Chart, caption: str) -> str:
    """A place for each panel, drawn by report.js when it comes into view."""
    panels = "".join(
        _panel_html(f"{name}-{i}", panel.title, str(figure.to_json()))
        for i, (panel, figure) in enumerate(zip(chart.panels, plotly_figures(chart), strict=True))
    )
    columns = min(chart.columns, len(chart.panels), _MOST_COLUMNS)
    kind = "panels many" if len(chart.panels) > 1 else "panels"
    title = f'<p class="title">{inline_html(chart.title)}</p>' if chart.title else ""
    above = f"{title}{_legend_html(chart)}{_color_bar_html(chart)}"
    body = f'{above}<div class="{kind}" style="--columns:{columns}">{panels}</div>'
    return boxed_html("chart", body, caption)


def page_html(
    *,
    title: str,
    subtitle: str,
    facts: Mapping[str, str | float | int],
    n_gates: int,
    n_failed: int,
    headings: Sequence[Heading],
    blocks: Sequence[str],
    has_charts: bool,
) -> str:
    plotly = f"<script>{get_plotlyjs()}</script>" if has_charts else ""
    head = "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)}</title><style>{_asset('report.css')}</style></head>",
        ]
    )
    masthead = "".join(
        [
            '<header class="masthead"><p class="brand">Fluoroscope</p>',
            f"<h1>{inline_html(title)}</h1>",
            f'<p class="subtitle">{inline_html(subtitle)}</p>' if subtitle else "",
            _badge_html(n_gates, n_failed),
            _facts_html(facts),
            "</header>",
        ]
    )
    body = f"<body>{_contents_html(headings)}<main>{masthead}{''.join(blocks)}</main>"
    return f"{head}{body}{plotly}<script>{_asset('report.js')}</script></body></html>\n"


def _asset(name: str) -> str:
    return resources.files("fluoroscope.runs").joinpath(name).read_text(encoding="utf-8")


def _column_cells(column: polars.Series, number_format: str | None) -> list[str]:
    texts = column_texts(column, number_format)
    if not column.dtype.is_numeric():
        return [f"<td>{escape(text)}</td>" for text in texts]
    values = ["" if value is None else repr(value) for value in column.to_list()]
    return [
        f'<td class="number" data-value="{value}">{escape(text)}</td>'
        for value, text in zip(values, texts, strict=True)
    ]


def _sortable_html(name: str, frame: polars.DataFrame, rows: Sequence[str], caption: str) -> str:
    heads = "".join(
        f'<th scope="col"{_number_class(column)}><button type="button">'
        f"{escape(column.name)}</button></th>"
        for column in frame
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    find = ""
    if len(rows) > _LONG_TABLE_ROWS:
        find = '<input type="search" placeholder="Filter rows" aria-label="Filter rows">'
    bar = (
        f'<div class="table-bar"><code>{escape(name)}</code><span class="count">{len(rows)} rows'
        f'</span>{find}<button type="button" class="save">csv</button></div>'
    )
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    inside = f'{bar}<div class="scroll" tabindex="0">{table}</div>'
    return boxed_html("table", inside, caption)


def _number_class(column: polars.Series) -> str:
    return ' class="number"' if column.dtype.is_numeric() else ""


def _verdict(*, is_passed: bool) -> str:
    if is_passed:
        return '<span class="verdict pass">\u2713 pass</span>'
    return '<span class="verdict fail">\u2715 fail</span>'


def _panel_html(identifier: str, title: str, figure: str) -> str:
    heading = f"<h4>{escape(title)}</h4>" if title else ""
    # A closing tag inside the JSON would end the script element.
    safe = figure.replace("</", "<\\/")
    return (
        f'<div class="panel">{heading}<div class="plot" id="{escape(identifier)}"></div>'
        f'<script type="application/json">{safe}</script></div>'
    )


def _legend_html(chart: Chart) -> str:
    if not chart.needs_legend:
        return ""
    keys = "".join(
        f'<button type="button" aria-pressed="true" data-series="{escape(name)}">'
        f'<i style="background:{color}"></i>{escape(name)}</button>'
        for name, color in chart.series_colors.items()
    )
    return f'<div class="legend">{keys}</div>'


def _color_bar_html(chart: Chart) -> str:
    """What the colours of points mean, once for all panels."""
    bar = chart.color_bar
    if bar is None:
        return ""
    shades = f"linear-gradient(90deg,{','.join(RAMPS[bar.ramp])})"
    ticks = "".join(
        f'<span style="left:{100 * (tick - bar.low) / (bar.high - bar.low):.1f}%">{tick:g}</span>'
        for tick in bar.ticks
    )
    ramp = f'<div class="ramp"><i style="background:{shades}"></i>{ticks}</div>'
    return f'<div class="color-bar">{escape(bar.label)}{ramp}</div>'


def _badge_html(n_gates: int, n_failed: int) -> str:
    if n_gates == 0:
        return ""
    if n_failed == 0:
        return f'<p class="badge pass">\u2713 All {n_gates} gates passed</p>'
    return f'<p class="badge fail">\u2715 {n_failed} of {n_gates} gates failed</p>'


def _facts_html(facts: Mapping[str, str | float | int]) -> str:
    if not facts:
        return ""
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(cell_text(value))}</dd></div>"
        for name, value in facts.items()
    )
    return f'<dl class="facts">{items}</dl>'


def _contents_html(headings: Sequence[Heading]) -> str:
    links = "".join(
        f'<li class="level-{h.level}"><a href="#{h.anchor}">{inline_html(h.title)}</a></li>'
        for h in headings
    )
    theme = '<button type="button" id="theme" aria-label="Light or dark">Theme: auto</button>'
    listing = f"<ol>{links}</ol>" if links else ""
    return f"<nav><details open><summary>Contents</summary>{listing}</details>{theme}</nav>"
