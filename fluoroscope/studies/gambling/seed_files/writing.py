"""Results under the names that the seed gives its files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.storage import write_json

WORDS = "feature_word_associations.json"
PATHWAY = "layer_pathway.json"


def patching_name(device: str) -> str:
    """`2` -> `multilayer_final_gpu2.json`; `cpu` -> `multilayer_final_cpu.json`."""
    return f"multilayer_final_{place(device)}.json"


def features_name(first_layer: int, last_layer: int) -> str:
    """Without the date that the seed puts there, so that the same result has the same name."""
    return f"L{first_layer}_{last_layer}_features_FINAL.json"


def games_name(model: str) -> str:
    """`llama` -> `llama_3200_games.json`."""
    return f"{model}_3200_games.json"


def place(device: str) -> str:
    """`2` -> gpu2, `2,4` -> gpu2_4, `cpu` and `auto` as they are."""
    if device in ("cpu", "auto"):
        return device
    if re.fullmatch(r"\d+(,\d+)*", device) is None:
        raise ConfigError(f"gpu_id is a number, several with commas, cpu or auto; got {device!r}.")
    return f"gpu{device.replace(',', '_')}"


def write_seed_files(folder: Path, contents: Mapping[str, Any]) -> list[Path]:  # Any: JSON values.
    """Writes each content under its name; a file is whole or not there."""
    paths = []
    for name, content in contents.items():
        path = folder / name
        if path.parent != folder:
            raise ConfigError(f"{name!r} is no name of a file.")
        write_json(path, content)
        paths.append(path)
    return paths
