r"""paper.tex: one document with the tables and figures of a run, to see that all of it compiles.

It reads on any engine. Under pdfTeX, which knows few characters, others (of tokens, of other
scripts) are set as their code, `U+2581`. A table is made as small as it must be to fit a page.
"""

import re
from collections.abc import Mapping, Sequence

from fluoroscope.runs.latex import latex_text

_KNOWN = frozenset("\u2013\u2014\u2018\u2019\u201c\u201d\u2026")
"""Beside Latin letters, what pdfTeX sets without being told how."""

MAX_ROWS = 100
"""A table with more rows is not in the document, though its file is in the folder."""


def document(
    title: str, note: str, tables: Mapping[str, str], figures: Mapping[str, str], study: str
) -> str:
    """`tables`: name -> the LaTeX of it; `figures`: name -> caption."""
    body = [latex_text(title), *tables.values(), *figures.values(), note]
    lines = [
        r"\documentclass{article}",
        r"\usepackage{iftex,booktabs,graphicx,etoolbox,adjustbox,amsmath}",
        r"\ifPDFTeX",
        r"  \usepackage[utf8]{inputenc}",
        r"  \usepackage[T1]{fontenc}",
        r"  \IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}",
        *(f"  {line}" for line in _unknown_characters("".join(body))),
        r"\fi",
        r"\BeforeBeginEnvironment{tabular}"
        r"{\begin{adjustbox}{max width=\textwidth,max totalheight=0.8\textheight}}",
        r"\AfterEndEnvironment{tabular}{\end{adjustbox}}",
        r"\input{numbers.tex}",
        rf"\title{{{latex_text(title)}}}",
        rf"\author{{A run of the study \emph{{{latex_text(study)}}}}}",
        r"\date{}",
        r"\begin{document}",
        r"\maketitle",
        latex_text(note),
        # Floats that wait are held in memory, and there is room for few.
        r"\clearpage",
        *(line for name, latex in tables.items() for line in _table(name, latex)),
        *(line for name, caption in figures.items() for line in _figure(name, caption)),
        r"\end{document}",
    ]
    return "\n".join(lines) + "\n"


def with_caption(latex: str, name: str) -> str:
    """A table that says what it is: one without a caption gets its name."""
    if r"\caption{" in latex:
        return latex
    caption = latex_text(name.replace("_", " ").replace("-", " ").capitalize())
    return latex.replace(r"  \centering", rf"  \centering{chr(10)}  \caption{{{caption}.}}", 1)


def _table(name: str, latex: str) -> Sequence[str]:
    n_rows = latex.count("\\\\\n") - 1
    if n_rows > MAX_ROWS:
        return (f"% {n_rows:,} rows do not fit a page:", rf"% \input{{tables/{name}.tex}}")
    return rf"\input{{tables/{name}.tex}}", r"\clearpage"


def _figure(name: str, caption: str) -> Sequence[str]:
    return (
        r"\begin{figure}",
        r"  \centering",
        rf"  \includegraphics[width=\textwidth,height=0.8\textheight,keepaspectratio]"
        rf"{{{{figures/{name}}}.pdf}}",
        rf"  \caption{{{latex_text(caption or name.replace('_', ' ').capitalize() + '.')}}}",
        rf"  \label{{fig:{name}}}",
        r"\end{figure}",
        r"\clearpage",
    )


def _unknown_characters(text: str) -> list[str]:
    found = sorted(set(re.findall(r"[^\x00-\u017f]", text)) - _KNOWN)
    return [
        rf"\DeclareUnicodeCharacter{{{ord(one):04X}}}{{\texttt{{U+{ord(one):04X}}}}}"
        for one in found
    ]
