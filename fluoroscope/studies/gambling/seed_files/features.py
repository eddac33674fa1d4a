"""Feature statistics in the seed's form <-> a table of latents.

    {"layer_results": {"25": {"significant_features": [{"feature_idx", "cohen_d", "p_value",
     "p_corrected", "bankrupt_mean", "safe_mean", "bankrupt_std", "safe_std"}]}}}

or an .npz with `layer_25_indices`, `layer_25_cohen_d`, `layer_25_p_values`, ... Such a file names
latents by number alone, and a number means nothing without the SAE and the layer that it counts
in. So what we write says both (`provenance`), and what others wrote is taken only with SAEs and a
layer convention that the caller answers for, and only if it can be of latents at all.

Layers here are blocks from 0, as in the seed's patching and in Llama Scope's names (L25R is what
leaves block 25). Files whose statistics were taken from `hidden_states[L]`, with the embedding at
0, are about what leaves block L - 1.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import polars as pl
from jaxtyping import Float

from fluoroscope.core.errors import ConfigError, CorpusError, DamagedError, MismatchError
from fluoroscope.core.storage import read_json, sha256_file
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.steps.sae_sources import SAEChoice, check_recorded
from fluoroscope.studies.gambling.seed_files.latent_checks import check_can_be_latents

Layers = Literal["block_output", "hidden_states"]
"""What the file's layer L counts: what leaves block L, or entry L of `hidden_states`."""

FEATURES_SCHEMA = {
    "hook_point": pl.String, "latent": pl.Int64, "cohen_d": pl.Float64, "p_value": pl.Float64,
    "p_corrected": pl.Float64, "bankrupt_mean": pl.Float64, "safe_mean": pl.Float64,
    "bankrupt_std": pl.Float64, "safe_std": pl.Float64,
}  # fmt: skip

_OURS = {
    "cohen_d": "cohen_d", "p_value": "p_welch", "p_corrected": "q_welch",
    "bankrupt_mean": "mean_in", "safe_mean": "mean_out", "bankrupt_std": "std_in",
    "safe_std": "std_out",
}  # fmt: skip
_NUMBERS = tuple(_OURS)
_ARRAY = re.compile(r"(?:layer[_ ]?|L)?(\d+)[_./](\w+)")
_ARRAY_NAMES = {"indices": "feature_idx", "p_values": "p_value"}
_LAYER_RESULTS, _FEATURES = "layer_results", "significant_features"
_CONVENTION = "layer L is what leaves block L, blocks counted from 0"


def import_features(
    path: Path | str, saes: Sequence[SAEChoice], layers: Layers | None = None
) -> pl.DataFrame:
    """The latents of a file that are of `saes`: `FEATURES_SCHEMA`, by hook point, as in the file.

    A file of ours says of which SAEs and layers it is, and is refused for others. Of any other
    file the caller says it: `saes` are those that its numbers were computed with, and `layers`
    what its layers count. Means are as they stand: those that another loader computed may be in
    other units, which `rescaled` mends.

    Raises `MismatchError` for what cannot be latents of these SAEs, `CorpusError` for what is not
    such a file.
    """
    path = Path(path)
    given, listed = _read_arrays(path) if path.suffix == ".npz" else _read_json(path)
    provenance = given.get("provenance")
    shift = _shift(path, provenance, layers)
    by_point = {sae.hook_point: sae for sae in saes}
    found: dict[str, list[dict[str, Any]]] = {}  # Any: JSON values.
    for layer, features in listed.items():
        if layer < shift:
            raise MismatchError(
                f"{path}: layer {layer} of hidden_states is the embedding, which no block gives."
            )
        point = f"{layer - shift}.resid_post"
        if point in by_point:
            found[point] = features
    if not found:
        raise MismatchError(
            f"{path} has layers {', '.join(map(str, listed)) or 'none'}, that is "
            f"{', '.join(f'{layer - shift}.resid_post' for layer in listed) or 'nothing'}, and the "
            f"SAEs are of {', '.join(by_point) or 'nothing'}."
        )
    if provenance is not None:
        for point in found:
            recorded = provenance.get("saes", {}).get(point, {})
            check_recorded(recorded, by_point[point], f"{path} at {point}")
    table = _table(path, found)
    check_can_be_latents(path, given, table, by_point, is_known=provenance is not None)
    return table


def features_json(
    found: pl.DataFrame, saes: Sequence[SAEChoice], selection: str
) -> dict[str, Any]:  # Any: JSON values.
    """In the form above, with its provenance: rows of `contrast/latents.parquet`, or of
    `FEATURES_SCHEMA`; each layer's largest |d| first. Rows without a d are left out.

    The seed calls what is listed significant. What it really is, the caller says as `selection`.
    """
    by_point = {sae.hook_point: sae for sae in saes}
    points = found["hook_point"].unique(maintain_order=True).to_list()
    table = seed_columns(found)
    known = table.filter(pl.col("cohen_d").is_finite())
    results = {}
    for name in points:
        mine = known.filter(pl.col("hook_point") == name).sort(
            pl.col("cohen_d").abs(), "latent", descending=[True, False]
        )
        features = mine.rename({"latent": "feature_idx"}).drop("hook_point").to_dicts()
        results[str(layer_of(name))] = {
            "layer": layer_of(name),
            "n_features": by_point[name].d_sae,
            "n_significant": len(mine),
            _FEATURES: features,
        }
    return {
        "provenance": provenance_json([by_point[name] for name in points]),
        "selection": selection,
        "total_significant_features": len(known),
        _LAYER_RESULTS: results,
    }


def provenance_json(saes: Sequence[SAEChoice]) -> dict[str, Any]:  # Any: JSON values.
    """What numbers of latents are worthless without."""
    return {
        "feature_space": "SAE latents, in units of the activation",
        "layers": _CONVENTION,
        "saes": {sae.hook_point: sae.provenance() for sae in saes},
    }


def seed_columns(found: pl.DataFrame) -> pl.DataFrame:
    """`FEATURES_SCHEMA` from the columns of a contrast; NaN, which JSON has not, becomes null."""
    names = [name if name in found.columns else _OURS[name] for name in _NUMBERS]
    table = found.select("hook_point", "latent", *names)
    renamed = dict(zip(names, _NUMBERS, strict=True))
    return table.rename(renamed).with_columns(pl.col(*_NUMBERS).fill_nan(None))


def rescaled(
    features: pl.DataFrame, scales: Mapping[str, Float[np.ndarray, " d_sae"]]
) -> pl.DataFrame:
    """Means and deviations times the scale of their latent, by hook point.

    Numbers that were computed with a release's own formula are in its units; the scale is the
    `release_scale` of the SAE as we load it (see `sae/formats/released.py`).
    """
    factor = np.array(
        [scales[point][latent] for point, latent in features.select("hook_point", "latent").rows()]
    )
    scaled = ("bankrupt_mean", "safe_mean", "bankrupt_std", "safe_std")
    return features.with_columns(pl.col(name) * pl.Series(factor) for name in scaled)


def layer_of(hook_point: str) -> int:
    """The seed's layer, which has no other stream than what leaves a block."""
    point = HookPoint(hook_point)
    if point.stream != "resid_post":
        raise ConfigError(
            f"The seed's files know what leaves a block (resid_post), and not {hook_point}."
        )
    return point.layer


def _shift(path: Path, provenance: object, layers: Layers | None) -> int:
    if provenance is None:
        if layers is None:
            raise ConfigError(
                f"{path} does not say what its layers count. Say layers='block_output' (layer L is "
                "what leaves block L) or layers='hidden_states' (entry L, with the embedding at "
                f"0: what leaves block L - 1). Its SHA-256 is {sha256_file(path)}."
            )
        return int(layers == "hidden_states")
    if not isinstance(provenance, Mapping) or provenance.get("layers") != _CONVENTION:
        raise CorpusError(f"{path}: its provenance is not one that this version writes.")
    if layers == "hidden_states":
        raise MismatchError(f"{path} says that {_CONVENTION}, so layers='hidden_states' is wrong.")
    return 0


Listed = dict[int, list[dict[str, Any]]]  # Any: JSON values.


def _read_json(path: Path) -> tuple[dict[str, Any], Listed]:  # Any: JSON values.
    if not path.is_file():
        raise CorpusError(f"There is no file {path}.")
    try:
        given = read_json(path)
    except DamagedError as error:
        raise CorpusError(f"{path} is not JSON, or was not written to its end.") from error
    results = given.get(_LAYER_RESULTS) if isinstance(given, dict) else None
    if not isinstance(results, dict):
        raise CorpusError(f"{path} has no object {_LAYER_RESULTS!r}, as a file of features has.")
    listed: Listed = {}
    for layer, result in results.items():
        features = result.get(_FEATURES) if isinstance(result, dict) else None
        if not layer.isdecimal() or not isinstance(features, list):
            raise CorpusError(f"{path}: {_LAYER_RESULTS}.{layer} must have a list {_FEATURES}.")
        listed[int(layer)] = features
    return given, listed


def _read_arrays(path: Path) -> tuple[dict[str, Any], Listed]:  # Any: JSON values.
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, BadZipFile) as error:
        raise CorpusError(
            f"{path} cannot be read as arrays of numbers ({error}). Pickled objects are not read, "
            "as they can run any code: write plain arrays with numpy.savez."
        ) from None
    columns: dict[int, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        match = _ARRAY.fullmatch(name)
        if match is not None and array.ndim == 1:
            column = _ARRAY_NAMES.get(match[2], match[2])
            columns.setdefault(int(match[1]), {})[column] = array
    listed: Listed = {}
    for layer, own in sorted(columns.items()):
        if len({len(array) for array in own.values()}) > 1:
            raise CorpusError(f"{path}: the arrays of layer {layer} differ in length.")
        values = [array.tolist() for array in own.values()]
        listed[layer] = [dict(zip(own, row, strict=True)) for row in zip(*values, strict=True)]
    if not listed:
        raise CorpusError(f"{path} has no arrays such as layer_25_indices, layer_25_cohen_d.")
    return {}, listed


def _table(path: Path, found: Mapping[str, list[Any]]) -> pl.DataFrame:  # Any: JSON values.
    rows = []
    for point, features in found.items():
        for i, one in enumerate(features):
            where = f"{path}, {point}, {_FEATURES}[{i}]"
            if not isinstance(one, Mapping):
                raise CorpusError(f"{where} is {one!r:.60}, and should be an object.")
            row = {"hook_point": point, "latent": one.get("feature_idx")}
            row |= {name: one.get(name) for name in _NUMBERS}
            _check_row(row, where)
            rows.append(row)
    return pl.DataFrame(rows, schema=FEATURES_SCHEMA)


def _check_row(row: Mapping[str, object], where: str) -> None:
    if type(row["latent"]) is not int or row["latent"] < 0:
        raise CorpusError(f"{where}: feature_idx must be a number from 0, got {row['latent']!r}.")
    for name in _NUMBERS:
        value = row[name]
        may_lack = name in ("p_value", "p_corrected")
        if value is None and may_lack:
            continue
        if not isinstance(value, int | float) or not np.isfinite(value):
            raise CorpusError(f"{where}: {name} must be a finite number, got {value!r}.")
        is_p, is_std = name.startswith("p_"), name.endswith("_std")
        if (is_p and not 0 <= value <= 1) or (is_std and value < 0):
            raise CorpusError(f"{where}: {name} cannot be {value}.")
