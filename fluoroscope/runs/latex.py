"""A table as LaTeX (booktabs): to paste into a paper, or to input as a file."""

from collections.abc import Mapping, Sequence

import polars

from fluoroscope.runs.number_format import MINUS, NOTHING, THIN_SPACE, column_texts

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\n": " ",
    MINUS: "$-$",
    THIN_SPACE: r"\,",
    NOTHING: "--",
    "\u221e": r"$\infty$",
}


def latex_table(
    frame: polars.DataFrame,
    caption: str = "",
    label: str = "",
    formats: Mapping[str, str] | None = None,
) -> str:
    """A whole `table` environment; numbers are set to the right, words to the left."""
    formats = formats or {}
    columns = [column_texts(column, formats.get(column.name)) for column in frame]
    sides = "".join("r" if column.dtype.is_numeric() else "l" for column in frame)
    rows = [_row(cells) for cells in zip(*columns, strict=True)]
    lines = [
        "% Needs \\usepackage{booktabs}.",
        "\\begin{table}",
        "  \\centering",
        *([f"  \\caption{{{latex_text(caption)}}}"] if caption else []),
        *([f"  \\label{{tab:{label}}}"] if label else []),
        f"  \\begin{{tabular}}{{{sides}}}",
        "    \\toprule",
        f"    {_row(frame.columns)}",
        "    \\midrule",
        *(f"    {row}" for row in rows),
        "    \\bottomrule",
        "  \\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def latex_text(text: str) -> str:
    """`text` with everything that LaTeX would act on made plain."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def _row(cells: Sequence[str]) -> str:
    return " & ".join(latex_text(cell) for cell in cells) + r" \\"
