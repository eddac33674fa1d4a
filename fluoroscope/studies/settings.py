"""A study's settings from a preset, a file and the command line, each laid over the one before."""

from collections.abc import Sequence
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
from fluoroscope.core.registry import nearest
from fluoroscope.studies import SPECS

_PRESETS = Path(__file__).parents[1] / "presets"


def study_spec(
    study: str, preset: str | None, file: Path | None, overrides: Sequence[str]
) -> Config:
    """The checked spec of `study`; torch is not needed for it."""
    kind = SPECS.load(study)
    settings: Settings = {}
    if preset is not None:
        settings = read_settings(_preset_file(study, preset))
    if file is not None:
        settings = merge_settings(settings, read_settings(file))
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
