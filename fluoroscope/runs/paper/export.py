"""A finished run -> a folder for a paper.

    tables/NAME.tex, NAME.csv    as the run's report has them
    figures/NAME.pdf, NAME.png   likewise, and NAME.gif, which is in no document
    numbers.tex, numbers.csv     macros (`numbers.py` says of which numbers), and their index
    refused.csv                  numbers without an interval, which get none
    paper.tex                    a document with all of it but tables too long for a page
    provenance.json, PROVENANCE.md

The same run is the same bytes, and nothing is written over but an export that nobody changed.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fluoroscope.core.errors import DamagedError, RunError
from fluoroscope.core.storage import (
    atomic_path,
    read_json,
    sha256_file,
    sha256_folder,
    write_csv,
    write_text,
)
from fluoroscope.runs.interval_columns import read_table
from fluoroscope.runs.paper.document import document, with_caption
from fluoroscope.runs.paper.numbers import macros
from fluoroscope.runs.paper.provenance import FORMAT, JSON, result_settings, write_provenance
from fluoroscope.runs.record import RunRecord, flatten, read_record
from fluoroscope.runs.run import DONE
from fluoroscope.runs.whole_folder import whole_folder
from fluoroscope.runs.written_report import read_report

_REPORT = "report.html"
_MADE_BY_TEX = tuple(
    f"paper.{ending}" for ending in ("aux", "fdb_latexmk", "fls", "log", "out", "pdf", "synctex.gz")
)


class Exported(NamedTuple):
    folder: Path
    n_tables: int
    n_figures: int
    n_macros: int
    n_refused: int


def export_run(run: Path, to: Path) -> Exported:
    """Writes the folder `to`, which must be new, empty, or an export that nobody changed."""
    record = read_record(run)
    files = _report_files(run, record)
    with whole_folder(to, JSON, FORMAT, _MADE_BY_TEX) as making:
        found = _write(run, record, files, making)
    return found._replace(folder=to)


def _write(run: Path, record: RunRecord, files: Sequence[str], folder: Path) -> Exported:
    said = read_report(run / _REPORT)
    tables = {Path(name).stem: name for name in files if name.endswith(".csv")}
    frames = {name: read_table(run / file) for name, file in tables.items()}
    latex: dict[str, str] = {}
    for name in files:
        if name.endswith(".tex"):
            stem = Path(name).stem
            latex[stem] = with_caption((run / name).read_text(encoding="utf-8"), stem)
            write_text(folder / name, latex[stem])
        else:
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(run / name, temporary)
    stems = [Path(name).stem for name in files if name.endswith(".pdf")]
    figures = {stem: said.captions.get(stem, "") for stem in stems}
    settings = dict(flatten(result_settings(record)))
    found = macros(record.study, frames, said.facts, settings)
    write_text(folder / "numbers.tex", found.latex())
    write_csv(folder / "numbers.csv", found.index())
    write_csv(folder / "refused.csv", found.refusals())
    note = f"From the run {run.name}; PROVENANCE.md says what it was made of."
    title = said.title or run.name
    write_text(folder / "paper.tex", document(title, note, latex, figures, record.study))
    n_refused = sum(refused.n for refused in found.refused)
    counts = {"macros": len(found.numbers), "refused": n_refused}
    write_provenance(folder, run, record, sha256_folder(folder), counts)
    return Exported(folder, len(tables), len(figures), len(found.numbers), n_refused)


def _report_files(run: Path, record: RunRecord) -> list[str]:
    """Tables and figures of the run's report, which must be of all its steps, and as written."""
    again = "Run the study again under this name (without --until and --only)"
    missing = [step.name for step in record.steps if not (run / step.name / DONE).exists()]
    if missing:
        more = f" (and {', '.join(missing[1:])})" if missing[1:] else ""
        raise RunError(
            f"Run {run.name} has no whole report: step {missing[0]!r}{more} is not done. {again} "
            "to finish it."
        )
    if not (run / DONE).exists():
        raise RunError(f"All steps of run {run.name} are done, but its report is not. {again}.")
    manifest = read_json(run / DONE)
    for step, sha256 in manifest["inputs"].items():
        if sha256_file(run / step / DONE) != sha256:
            raise RunError(
                f"Step {step!r} of run {run.name} was done again since its report was written. "
                f"{again} for a report of it."
            )
    _check_files(run, manifest["files"], again)
    kinds = {"tables": (".csv", ".tex"), "figures": (".pdf", ".png", ".gif")}
    files = [name for name in manifest["files"] if name.endswith(kinds.get(_top(name), ()))]
    if _REPORT not in manifest["files"] or not files:
        raise RunError(
            f"The study {record.study!r} of run {run.name} has written no report with tables or "
            "figures, so there is nothing to export."
        )
    return sorted(files)


def _check_files(run: Path, hashes: Mapping[str, str], again: str) -> None:
    for name, sha256 in hashes.items():
        path = run / name
        if not path.exists() or sha256_file(path) != sha256:
            what = "has changed since it was written" if path.exists() else "is missing"
            raise DamagedError(f"{path} {what}. {again}: the report is written anew.")


def _top(name: str) -> str:
    return name.partition("/")[0]
