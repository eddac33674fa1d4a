"""Files of a matplotlib figure that is drawn by hand: the same bytes every time, with no date."""

from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure

from fluoroscope.core.storage import atomic_path
from fluoroscope.plots.style import MATPLOTLIB_STYLE, PNG_DPI

Kind = Literal["png", "pdf", "svg"]

_DATELESS: dict[Kind, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "ModDate": None},
    "svg": {"Date": None},
}


def figure_bytes(figure: Figure, kind: Kind) -> bytes:
    """The figure as a file of this kind; letters of an svg are shapes, alike on every machine."""
    # Names of an svg's parts are random without a salt.
    style: dict[Any, Any] = {"svg.hashsalt": "fluoroscope", "svg.fonttype": "path"}
    found = BytesIO()
    with matplotlib.rc_context(MATPLOTLIB_STYLE | style):
        figure.savefig(found, format=kind, dpi=PNG_DPI, metadata=_DATELESS[kind])
    return found.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Writes `path`, a .png, a .pdf or an .svg."""
    match path.suffix:
        case ".png":
            content = figure_bytes(figure, "png")
        case ".pdf":
            content = figure_bytes(figure, "pdf")
        case ".svg":
            content = figure_bytes(figure, "svg")
        case _:
            raise ValueError(f"A figure is saved as .png, .pdf or .svg, got {path.name!r}.")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
