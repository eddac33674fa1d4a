"""What is edited in a sweep: which SAEs, which of their latents, set to what."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fluoroscope.core.errors import ConfigError
from fluoroscope.steps.models import ModelConfig
from fluoroscope.steps.sae_sources import SAEChoice, find_saes
from fluoroscope.steps.sweep_config import Condition, SweptSAE
from fluoroscope.studies.patch.files import reading
from fluoroscope.studies.patch.spec import PatchSpec

_RANGE = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")
_OWN_COLUMNS = ("hook_point", "latent")


def make_grid(spec: PatchSpec, model: ModelConfig) -> tuple[list[SweptSAE], list[Condition]]:
    """SAEs with their latents, and the conditions of each latent."""
    choices = find_saes(spec.sae, spec.hook_points, model)
    points = [choice.hook_point for choice in choices]
    is_file = isinstance(spec.latents, str) and spec.latents.endswith(".csv")
    if is_file:
        table = _latent_table(Path(str(spec.latents)), points)
        latents = {
            point: table.filter(pl.col("hook_point") == point)["latent"].to_list()
            for point in points
        }
        conditions = _table_conditions(spec.values, table, points)
    else:
        wanted = _latents(spec.latents)
        latents = dict.fromkeys(points, wanted)
        conditions = _conditions(spec.values)
    saes = []
    for choice in choices:
        given = latents[choice.hook_point]
        chosen = list(range(choice.d_sae)) if given is None else list(given)
        _check_latents(chosen, choice)
        if chosen:
            saes.append(SweptSAE(**choice.model_dump(), latents=chosen))
    if not saes:
        raise ConfigError(f"{spec.latents} names no latent of the SAEs of {', '.join(points)}.")
    return saes, conditions


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


def _check_latents(latents: Sequence[int], choice: SAEChoice) -> None:
    wrong = next((latent for latent in latents if not 0 <= latent < choice.d_sae), None)
    if wrong is not None:
        raise ConfigError(
            f"There is no latent {wrong}: {choice} has latents 0 to {choice.d_sae - 1}."
        )
    if len(set(latents)) < len(latents):
        raise ConfigError(f"A latent of {choice.hook_point} is named twice.")


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


def _latent_table(path: Path, points: Sequence[str]) -> pl.DataFrame:
    if not path.is_file():
        raise ConfigError(f"There is no file {path} with latents.")
    with reading(path):
        table = pl.read_csv(path)
    missing = [name for name in _OWN_COLUMNS if name not in table.columns]
    if missing:
        raise ConfigError(
            f"{path} needs the columns hook_point and latent; it has {', '.join(table.columns)}."
        )
    unknown = set(table["hook_point"].cast(pl.String)) - set(points)
    if unknown:
        raise ConfigError(
            f"{path} names latents of {sorted(unknown)[0]}, and there is no SAE of it; there are "
            f"those of {', '.join(points)}."
        )
    latents = table["latent"].cast(pl.Float64, strict=False)
    if not (latents.is_finite() & (latents == latents.round())).fill_null(False).all():
        raise ConfigError(f"{path} has a row whose latent is no whole number.")
    return table.with_columns(latents.cast(pl.Int64).alias("latent"))


def _table_conditions(
    values: str | Sequence[str | float] | None, table: pl.DataFrame, points: Sequence[str]
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
            point: column.filter(table["hook_point"] == point).to_list() for point in points
        }
        found.append(Condition(name=name, kind="set", values=by_point))
    return found
