"""What is edited in a sweep: which SAEs, which of their latents, set to what."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from fluoroscope.core.errors import ConfigError, MismatchError
from fluoroscope.models.hook_points import HookPoint, parse_hook_points
from fluoroscope.models.hub import SHIPPED
from fluoroscope.runs.record import runs_root
from fluoroscope.sae.formats.native import SIDECAR, sidecar_of
from fluoroscope.steps.models import ModelConfig
from fluoroscope.steps.sweep_config import Condition, SweptSAE
from fluoroscope.steps.train_saes import BEST, LAST
from fluoroscope.studies.patch.files import reading
from fluoroscope.studies.patch.spec import PatchSpec

_RANGE = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")
_OWN_COLUMNS = ("hook_point", "latent")


def make_grid(spec: PatchSpec, model: ModelConfig) -> tuple[list[SweptSAE], list[Condition]]:
    """SAEs with their latents, and the conditions of each latent."""
    folders = _folders(spec, model)
    is_file = isinstance(spec.latents, str) and spec.latents.endswith(".csv")
    if is_file:
        table = _latent_table(Path(str(spec.latents)), folders)
        latents = {
            point: table.filter(pl.col("hook_point") == point)["latent"].to_list()
            for point in folders
        }
        conditions = _table_conditions(spec.values, table, folders)
    else:
        wanted = _latents(spec.latents)
        latents = dict.fromkeys(folders, wanted)
        conditions = _conditions(spec.values)
    saes = []
    for point, folder in folders.items():
        sidecar = sidecar_of(folder)
        d_sae = int(sidecar["config"]["d_sae"])
        chosen = list(range(d_sae)) if latents[point] is None else list(latents[point] or [])
        _check_latents(chosen, d_sae, point, folder)
        if chosen:
            saes.append(
                SweptSAE(
                    hook_point=point,
                    folder=str(folder.resolve()),
                    weights_sha256=sidecar["weights_sha256"],
                    d_sae=d_sae,
                    latents=chosen,
                )
            )
    if not saes:
        raise ConfigError(f"{spec.latents} names no latent of the SAEs of {', '.join(folders)}.")
    return saes, conditions


def _folders(spec: PatchSpec, model: ModelConfig) -> dict[str, Path]:
    """Hook point -> the folder of its SAE."""
    given = [spec.sae] if isinstance(spec.sae, str) else spec.sae
    points = (
        None
        if spec.hook_points is None
        else {str(point) for point in parse_hook_points(spec.hook_points, model.n_layers)}
    )
    found: dict[str, Path] = {}
    known: list[str] = []
    for name in given:
        for folder in _sae_folders(name):
            point = sidecar_of(folder)["hook_point"]
            known.append(str(point))
            if points is not None and point not in points:
                continue
            _check_sae(folder, point, model)
            if point in found:
                raise ConfigError(
                    f"There are two SAEs of {point}: {found[point]} and {folder}. Name the folder "
                    "of the one that is meant."
                )
            found[point] = folder
    if points is not None and points - set(found):
        missing = sorted(points - set(found))[0]
        raise ConfigError(
            f"There is no SAE of {missing} in {', '.join(given)}; there are those of "
            f"{', '.join(sorted(set(known)))}."
        )
    return dict(sorted(found.items(), key=lambda pair: HookPoint(pair[0])))


def _sae_folders(name: str) -> list[Path]:
    if name.startswith("organism:"):
        folder = SHIPPED["organism"] / "saes" / name.removeprefix("organism:")
    else:
        folder = Path(name) if Path(name).is_dir() else runs_root() / name
    if (folder / SIDECAR).is_file():
        return [folder]
    inside = sorted(path.parent for path in folder.rglob(SIDECAR))
    # A run keeps the last weights beside the best.
    best = [path for path in inside if path.name != LAST or path.with_name(BEST) not in inside]
    if not best:
        raise ConfigError(
            f"There is no SAE in {folder}. Give the folder of an SAE or of a dictionary run, the "
            "name of such a run, or organism:batch_topk."
        )
    return best


def _check_sae(folder: Path, point: str | None, model: ModelConfig) -> None:
    if point is None:
        raise MismatchError(f"The SAE in {folder} does not say at which hook point it belongs.")
    d_model = int(sidecar_of(folder)["config"]["d_model"])
    if HookPoint(point).layer >= model.n_layers or d_model != model.d_model:
        raise MismatchError(
            f"The SAE in {folder} is of {point} with width {d_model}; {model.name} has layers 0 "
            f"to {model.n_layers - 1} and width {model.d_model}. It was made for another model."
        )


def _latents(given: str | Sequence[int]) -> list[int] | None:
    """None stands for all of them."""
    if not isinstance(given, str):
        return list(given)
    if given == "all":
        return None
    found: list[int] = []
    for part in given.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ConfigError(
                f"latents are 0-299, [3, 17], all, or a .csv file that exists; got {given!r}."
            )
        first, last = int(match[1]), int(match[2] or match[1])
        found += range(first, last + 1)
    return found


def _check_latents(latents: Sequence[int], d_sae: int, point: str, folder: Path) -> None:
    wrong = next((latent for latent in latents if not 0 <= latent < d_sae), None)
    if wrong is not None:
        raise ConfigError(
            f"There is no latent {wrong}: the SAE of {point} in {folder} has latents 0 to "
            f"{d_sae - 1}."
        )
    if len(set(latents)) < len(latents):
        raise ConfigError(f"A latent of {point} is named twice.")


def _conditions(values: str | Sequence[str | float] | None) -> list[Condition]:
    if values is None:
        raise ConfigError(
            "Say what latents are set to: values=[0, 4, 8], values=['*2'], or a column of numbers "
            "in a csv file of latents."
        )
    given = values.split(",") if isinstance(values, str) else list(values)
    found: list[Condition] = []
    for one in given:
        text = str(one).strip()
        kind = "scale" if text.startswith("*") else "set"
        try:
            number = float(text.removeprefix("*"))
        except ValueError as error:
            raise ConfigError(
                f"values are numbers, or numbers behind a * to multiply with; got {one!r}."
            ) from error
        if not math.isfinite(number):
            raise ConfigError(f"values must be finite numbers; got {one!r}.")
        name = f"{'times' if kind == 'scale' else 'set to'} {number:.12g}"
        found.append(Condition(name=name, kind=kind, value=number))
    names = [condition.name for condition in found]
    if not found or len(set(names)) < len(names):
        raise ConfigError(f"values must be different numbers, one at least; got {values!r}.")
    return found


def _latent_table(path: Path, folders: Mapping[str, Path]) -> pl.DataFrame:
    if not path.is_file():
        raise ConfigError(f"There is no file {path} with latents.")
    with reading(path):
        table = pl.read_csv(path)
    missing = [name for name in _OWN_COLUMNS if name not in table.columns]
    if missing:
        raise ConfigError(
            f"{path} needs the columns hook_point and latent; it has {', '.join(table.columns)}."
        )
    unknown = set(table["hook_point"].cast(pl.String)) - set(folders)
    if unknown:
        raise ConfigError(
            f"{path} names latents of {sorted(unknown)[0]}, and there is no SAE of it; there are "
            f"those of {', '.join(folders)}."
        )
    latents = table["latent"].cast(pl.Float64, strict=False)
    if not (latents.is_finite() & (latents == latents.round())).fill_null(False).all():
        raise ConfigError(f"{path} has a row whose latent is no whole number.")
    return table.with_columns(latents.cast(pl.Int64).alias("latent"))


def _table_conditions(
    values: str | Sequence[str | float] | None, table: pl.DataFrame, folders: Mapping[str, Path]
) -> list[Condition]:
    own = [name for name in table.columns if name not in _OWN_COLUMNS]
    if values is None:
        names = [name for name in own if table[name].dtype.is_numeric()]
    else:
        names = [str(name) for name in ([values] if isinstance(values, str) else values)]
    if not names or any(name not in own for name in names):
        # Numbers hold for every latent of a file as well.
        return _conditions(values)
    found = []
    for name in names:
        column = table[name].cast(pl.Float64, strict=False)
        if not column.is_finite().fill_null(False).all():
            raise ConfigError(f"The column {name} has a row without a finite number.")
        by_point = {
            point: column.filter(table["hook_point"] == point).to_list() for point in folders
        }
        found.append(Condition(name=name, kind="set", values=by_point))
    return found
