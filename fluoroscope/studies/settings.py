"""A study's settings from a preset, a file and the command line, each laid over the one before.

A file may be written in the keys of the plan that a study grew from; see `TRANSLATORS`.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fluoroscope.core.config import (
    Config,
    Settings,
    build,
    merge_settings,
    parse_overrides,
    read_settings,
)
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.registry import Registry, nearest
from fluoroscope.studies import SPECS

TRANSLATORS: Registry[Callable[[Settings], tuple[Settings, tuple[str, ...]]]] = Registry(
    "translator of settings",
    {
        "connection": "fluoroscope.studies.connection.seed_config:translate",
        "hallucination": "fluoroscope.studies.hallucination.seed_config:translate",
    },
)
"""By study: a file's settings -> ours, and what is to be said of it. Ours stay as they are."""

_PRESETS = Path(__file__).parents[1] / "presets"


def _to_stderr(note: str) -> None:
    sys.stderr.write(f"{note}\n")


def study_spec(
    study: str,
    preset: str | None,
    file: Path | None,
    overrides: Sequence[str],
    say: Callable[[str], None] = _to_stderr,
) -> Config:
    """The checked spec of `study`; torch is not needed for it. `say` gets what became of the keys
    of a file that is written in others than ours.
    """
    kind = SPECS.load(study)
    settings: Settings = {}
    if preset is not None:
        settings = read_settings(_preset_file(study, preset))
    if file is not None:
        given, notes = read_settings(file), ()
        if study in TRANSLATORS:
            given, notes = TRANSLATORS.load(study)(given)
        for note in notes:
            say(note)
        settings = merge_settings(settings, given)
    return build(kind, merge_settings(settings, parse_overrides(overrides)))


def preset_files() -> dict[str, Path]:
    """`dictionary/tiny` -> its file, for every preset that comes with the package."""
    files = sorted(_PRESETS.rglob("*.yaml"))
    return {path.relative_to(_PRESETS).with_suffix("").as_posix(): path for path in files}


def _preset_file(study: str, preset: str) -> Path:
    files = preset_files()
    for name in (f"{study}/{preset}", preset):
        if name in files:
            return files[name]
    raise ConfigError(
        f"Preset {preset!r} does not exist.{nearest(preset, files)} "
        f"There are: {', '.join(files) or 'none'}."
    )
