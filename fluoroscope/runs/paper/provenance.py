"""Where an export comes from: provenance.json for programs, PROVENANCE.md for people.

Both tell of the run, never of the export, so that the same run is the same bytes. Folders of the
machine that it ran on are left out of settings: of a path the last name stays.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import fluoroscope
from fluoroscope.core.config import Settings, build, settings_hash, what_half
from fluoroscope.core.errors import UserError
from fluoroscope.core.storage import sha256_file, write_json, write_text
from fluoroscope.runs.events import read_events
from fluoroscope.runs.record import RunRecord, flatten, load_class

JSON, TEXT = "provenance.json", "PROVENANCE.md"
FORMAT = "fluoroscope paper export 1"


def result_settings(record: RunRecord) -> Settings:
    """The settings, as resolved, that decide results."""
    try:
        return what_half(build(load_class(record.config_class), record.config))
    except UserError:
        # Of another version of the study: all that was written of them.
        return dict(record.config)


def write_provenance(
    folder: Path, run: Path, record: RunRecord, files: Mapping[str, str], numbers: Mapping[str, int]
) -> None:
    """`files`: what was exported, with its SHA-256; `numbers`: how many macros, and refused."""
    settings = result_settings(record)
    flat = dict(flatten(settings))
    about: Settings = {
        "format": FORMAT,
        "run": run.name,
        "study": record.study,
        "finished": finished(run),
        "started": record.provenance.get("started"),
        "settings_sha256": settings_hash(settings),
        "settings": {name: _without_folders(value) for name, value in flat.items()},
        "seeds": {name: flat[name] for name in flat if name.rpartition(".")[2] == "seed"},
        "sources": dict(record.sources),
        "code": record.provenance.get("code"),
        "versions": {
            "fluoroscope": record.provenance.get("fluoroscope"),
            "python": record.provenance.get("python"),
            **(record.provenance.get("packages") or {}),
        },
        "hardware": record.provenance.get("hardware"),
        "exported_by": f"fluoroscope {fluoroscope.__version__}",
        "numbers": dict(numbers),
        "files": dict(files),
    }
    write_text(folder / TEXT, _as_text(about))
    about["files"] = {**files, TEXT: sha256_file(folder / TEXT)}
    write_json(folder / JSON, about)


def finished(run: Path) -> str | None:
    """When the last of the work was done, in UTC; starts that found all of it done do not count."""
    ends = read_events(run, "step finished")
    if not ends:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends[-1]["time"]))


def _without_folders(value: object) -> object:
    match value:
        case str() if value.startswith(("/", "~", "./", "../")):
            return value.rstrip("/").rpartition("/")[2]
        case Mapping():
            return {name: _without_folders(item) for name, item in value.items()}
        case list() | tuple():
            return [_without_folders(item) for item in value]
    return value


def _as_text(about: Settings) -> str:
    code = about["code"] or {}
    dirty = ", with changes that are not in it" if code.get("dirty") else ""
    head = [
        f"# Where these files come from\n\nExported from the run `{about['run']}` of the study "
        f"`{about['study']}`, finished {about['finished']}.\n",
        f"- settings: SHA-256 `{about['settings_sha256']}`",
        f"- code: `{code.get('revision', 'not known')}`{dirty}",
        *(f"- {name}: {value}" for name, value in about["seeds"].items()),
        *(f"- source, {name}: `{value}`" for name, value in about["sources"].items()),
        *(f"- {name} {version}" for name, version in about["versions"].items()),
        f"\n{about['numbers']['macros']} numbers have macros (`numbers.tex`, `numbers.csv`). "
        f"{about['numbers']['refused']} were refused, for they are estimates without an interval "
        "(`refused.csv`).\n",
        "| file | SHA-256 |\n|---|---|",
        *(f"| {name} | `{sha256}` |" for name, sha256 in about["files"].items()),
    ]
    return "\n".join(head) + "\n"
