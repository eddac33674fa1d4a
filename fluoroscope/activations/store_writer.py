"""Writes one shard of an `ActivationStore`, tile by tile; memory holds one tile."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import polars as pl
import torch

from fluoroscope.activations.extract_config import ExtractConfig
from fluoroscope.activations.row_file import row_file
from fluoroscope.activations.rows import tile_rows
from fluoroscope.core.config import what_half
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.core.storage import sha256_file, write_json, write_parquet
from fluoroscope.data.token_store import TokenStore, WindowRange, Windows
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel

CONTENTS = "contents.json"
INDEX = "index.parquet"


def write_activation_shard(
    model: LanguageModel,
    tokens: TokenStore,
    window_range: WindowRange,
    points: Sequence[HookPoint],
    config: ExtractConfig,
    folder: Path,
    sink: Sink = SILENT,
) -> None:
    """Fills `folder` with `<point>.safetensors`, `index.parquet` and `contents.json`.

    Name the folder `window_range.key`: `finish_store` reads shards in the order of their names.
    """
    tokens.check_tokenizer(model.tokenizer)
    if window_range.start % config.tile_windows:
        raise ConfigError(
            f"Shards must start on a tile: {window_range.start} windows are no multiple of "
            f"tile_windows={config.tile_windows}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    shared = {
        "config": what_half(config),
        "d_model": model.d_model,
        "hook_points": [str(point) for point in sorted(points)],
        "model": model.identity.to_json(),
        "tokens_sha256": tokens.sha256,
    }
    counts = _write_rows(model, tokens, window_range, sorted(points), config, folder, shared, sink)
    names = [INDEX, *(f"{point}.safetensors" for point in points)]
    shard = {
        "split": window_range.split,
        "windows": [window_range.start, window_range.stop],
        "rows": sum(counts),
        "tile_rows": counts,
        "files": {name: sha256_file(folder / name) for name in sorted(names)},
    }
    write_json(folder / CONTENTS, {"shared": shared, "shard": shard})


def _write_rows(
    model: LanguageModel,
    tokens: TokenStore,
    window_range: WindowRange,
    points: Sequence[HookPoint],
    config: ExtractConfig,
    folder: Path,
    shared: dict[str, object],
    sink: Sink,
) -> list[int]:
    provenance = {name: value for name, value in shared.items() if name != "hook_points"}
    index: list[pl.DataFrame] = []
    with ExitStack() as stack:
        files = {
            point: stack.enter_context(
                row_file(
                    folder / f"{point}.safetensors",
                    config.dtype,
                    {**provenance, "hook_point": str(point)},
                )
            )
            for point in points
        }
        for tile in window_range.tiles(config.tile_windows):
            windows = tokens.windows(tile.split, tile.start, tile.stop)
            tile_result = tile_rows(model, windows, points, config)
            for point, rows in tile_result.rows.items():
                files[point].append(rows)
            index.append(_index(windows, tile_result.kept, tile.start))
            sink.progress(tile.stop - window_range.start, len(window_range), "windows")
    frame = pl.concat(index).with_row_index("row")
    write_parquet(folder / INDEX, frame)
    return [len(part) for part in index]


def _index(windows: Windows, kept: torch.Tensor, first_window: int) -> pl.DataFrame:
    window, place = kept.nonzero(as_tuple=True)
    columns = {
        "document": windows.document[kept],
        "position": windows.position[kept],
        "token": windows.tokens[kept],
        "window": window + first_window,
        "place": place,
    }
    return pl.DataFrame({name: column.int().numpy() for name, column in columns.items()})
