"""Several runs of one study, side by side: what differs in settings, facts and tables.

Rows of a table are matched by what names them (`interval_columns.row_key`). A difference of two
runs has no interval of its own here, for nothing says how their errors go together; those of both
stand beside it. A study that can pair its runs says more in its own `compare`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from fluoroscope.core.config import settings_hash
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.storage import sha256_folder, write_json
from fluoroscope.plots.chart import Chart
from fluoroscope.runs.interval_columns import estimates, plain_numbers, read_table, row_key
from fluoroscope.runs.number_format import cell_text
from fluoroscope.runs.paper.provenance import result_settings
from fluoroscope.runs.record import flatten, read_record
from fluoroscope.runs.report import Report
from fluoroscope.runs.whole_folder import whole_folder
from fluoroscope.runs.written_report import read_report

FILE, FORMAT = "comparison.json", "fluoroscope comparison 1"
_ORDER, _LONG = "(order)", 80
MAX_ROWS = 5000
"""Rows of a table of differences that are shown; those of quantities with intervals go first."""


class Comparison(Report):
    """A report that also tells a terminal what stands in it."""

    def __init__(self, runs: Sequence[Path]) -> None:
        super().__init__(" and ".join(run_names(runs)), f"Runs of {check_one_study(runs)}")
        self.shown: list[str | tuple[str, pl.DataFrame]] = []
        """Sentences, and tables with their headings, in their order."""

    def text(self, markdown: str) -> None:
        super().text(markdown)
        self.shown.append(markdown)

    def table(
        self,
        name: str,
        frame: pl.DataFrame,
        caption: str = "",
        formats: Mapping[str, str] | None = None,
    ) -> None:
        super().table(name, frame, caption, formats)
        self.shown.append((f"{name}: {caption}" if caption else name, brief(frame)))

    def figure(self, name: str, chart: Chart, caption: str = "") -> None:
        super().figure(name, chart, caption)


def write_comparison(report: Comparison, runs: Sequence[Path], to: Path) -> None:
    """report.html, tables/ and figures/ in the folder `to`, which must be new, empty, or an
    earlier comparison that nobody changed.
    """
    with whole_folder(to, FILE, FORMAT) as folder:
        report.write(folder)
        files = sha256_folder(folder)
        write_json(folder / FILE, {"format": FORMAT, "runs": run_names(runs), "files": files})


def compare_runs(runs: Sequence[Path], report: Report) -> None:
    """What can be said of runs of any study."""
    add_settings(runs, report)
    add_facts(runs, report)
    add_tables(runs, report)


def check_one_study(runs: Sequence[Path]) -> str:
    """The name of the study that all of `runs` are of."""
    if len(runs) < 2:
        raise ConfigError(f"Two runs or more are compared, got {len(runs)}.")
    studies = [read_record(run).study for run in runs]
    if len(set(studies)) > 1:
        listing = ", ".join(f"{run.name} of {s}" for run, s in zip(runs, studies, strict=True))
        raise ConfigError(
            f"Runs of one study are compared, and these are of several: {listing}. Name runs of "
            "one; `fluoro list` shows the study of each."
        )
    return studies[0]


def run_names(runs: Sequence[Path]) -> list[str]:
    """What each run is called; by its folder where two have one name."""
    names = [run.resolve().name for run in runs]
    paths = [str(run) for run in runs]
    if len({run.resolve() for run in runs}) < len(runs):
        raise ConfigError(f"A run is compared with others than itself, got {', '.join(paths)}.")
    return names if len(set(names)) == len(names) else paths


def add_settings(runs: Sequence[Path], report: Report) -> None:
    """The settings, as resolved, in which runs differ."""
    found = [dict(flatten(result_settings(read_record(run)))) for run in runs]
    keys = sorted({key for settings in found for key in settings})
    rows = [(key, *(_said(settings.get(key)) for settings in found)) for key in keys]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    report.section("Settings")
    if not rows:
        report.text("All settings that decide results are the same.")
        return
    schema = dict.fromkeys(("setting", *run_names(runs)), pl.String)
    report.table("settings", pl.DataFrame(rows, schema=schema, orient="row"), "Those that differ.")


def add_facts(runs: Sequence[Path], report: Report) -> None:
    """What stands under the titles of the runs' reports."""
    pages = [run / "report.html" for run in runs]
    found = [read_report(page).facts if page.exists() else {} for page in pages]
    names = list(dict.fromkeys(name for facts in found for name in facts))
    if not names:
        return
    rows = [(name, *(facts.get(name, "-") for facts in found)) for name in names]
    schema = dict.fromkeys(("fact", *run_names(runs)), pl.String)
    report.section("At a glance")
    report.table("facts", pl.DataFrame(rows, schema=schema, orient="row"))


def add_tables(runs: Sequence[Path], report: Report) -> None:
    """Tables that all runs have, a row for each number: of every run, and how it differs."""
    stems = [{path.stem for path in (run / "tables").glob("*.csv")} for run in runs]
    report.section("Tables")
    report.text(
        "Differences are from the first run. They have no intervals of their own: those of the "
        "runs stand beside them, and say of each run alone how sure it is."
    )
    for name in sorted(set.intersection(*stems)):
        frames = [read_table(run / "tables" / f"{name}.csv") for run in runs]
        joined, note = joined_tables(frames, run_names(runs))
        if len(joined):
            report.table(f"of_{name}", joined, note)
    alone = sorted(set.union(*stems) - set.intersection(*stems))
    if alone:
        report.text(f"Not in every run, and left out: {', '.join(alone)}.")


def joined_tables(frames: Sequence[pl.DataFrame], names: Sequence[str]) -> tuple[pl.DataFrame, str]:
    """Rows that all have: what names a row, `quantity`, the number of each run with its interval,
    and by how much it differs from the first; and what was left out, in words.
    """
    key = row_key(frames)
    if not key:
        if len({len(frame) for frame in frames}) > 1 or not len(frames[0]):
            return pl.DataFrame(), ""
        # Without a name a row is known by its place.
        key, frames = ["row"], [frame.with_row_index("row") for frame in frames]
    quantity = "quantity" if "quantity" not in key else "column"
    taken = {*key, quantity, "difference", _ORDER}
    names = [f"run {name}" if name in taken else name for name in names]
    joined, *others = (
        _long(frame, key, quantity, name) for frame, name in zip(frames, names, strict=True)
    )
    for other in others:
        joined = joined.join(
            other.drop(_ORDER),
            on=[*key, quantity],
            how="inner",
            nulls_equal=True,
            maintain_order="left",
        )
    left_out = max(len(frame) for frame in frames) - joined.select(key).n_unique()
    note = f"{left_out:,} rows are not in every run." if left_out and len(joined) else ""
    if len(joined) > MAX_ROWS:
        note += f" The first {MAX_ROWS:,} of {len(joined):,} numbers, those with intervals first."
        joined = joined.sort(pl.col(f"{names[0]}_low").is_null(), maintain_order=True)
        joined = joined.head(MAX_ROWS)
    differences = [
        (pl.col(name) - pl.col(names[0])).alias(_difference(name, names)) for name in names[1:]
    ]
    return joined.with_columns(differences).drop(_ORDER), note.strip()


def brief(frame: pl.DataFrame) -> pl.DataFrame:
    """With each estimate and its interval in one cell: `0.81 (0.72 to 0.89)`."""
    for found in estimates(frame):
        rows = frame.select(found).iter_rows()
        cells = pl.Series(found.value, [_cell(*row) for row in rows], dtype=pl.String)
        frame = frame.with_columns(cells).drop(found.low, found.high)
    return frame


def _cell(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "-"
    if low is None or high is None:
        return cell_text(value)
    return f"{cell_text(value)} ({cell_text(low)} to {cell_text(high)})"


def _difference(name: str, names: Sequence[str]) -> str:
    return "difference" if len(names) == 2 else f"{name} difference"


def _long(frame: pl.DataFrame, key: Sequence[str], quantity: str, run: str) -> pl.DataFrame:
    """A row a number: key, `quantity`, the number of `run` and its ends, and the row's place."""
    of_run = (run, f"{run}_low", f"{run}_high")
    columns = [tuple(found) for found in estimates(frame)]
    columns += [(name, None, None) for name in plain_numbers(frame)]
    kinds = {name: frame.schema[name] for name in key}
    schema = {_ORDER: pl.UInt32, **kinds, quantity: pl.String, **dict.fromkeys(of_run, pl.Float64)}
    parts = [pl.DataFrame(schema=schema)]
    for names in columns:
        numbers = [
            (pl.lit(None) if name is None else pl.col(name)).cast(pl.Float64).alias(as_name)
            for name, as_name in zip(names, of_run, strict=True)
        ]
        found = frame.with_row_index(_ORDER).with_columns(numbers)
        parts.append(found.select(_ORDER, *key, pl.lit(names[0]).alias(quantity), *of_run))
    return pl.concat(parts).sort(_ORDER, maintain_order=True)


def _said(value: object) -> str:
    text = "-" if value is None else str(value)
    if len(text) <= _LONG:
        return text
    # Two long lists are told apart, and not read.
    return f"{text[: _LONG - 20]}... ({settings_hash(value)[:8]})"
