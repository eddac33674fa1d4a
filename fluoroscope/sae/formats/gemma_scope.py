"""Gemma Scope (Lieberum et al. 2024, arXiv:2408.05147): SAEs of every block of Gemma 2.

    layer_20/width_131k/{canonical, average_l0_114}/params.npz

holds W_enc [d_model, s], W_dec [s, d_model], b_enc, b_dec and a threshold for each latent:
JumpReLU of raw activations, `pre = x W_enc + b_enc`, without subtracting b_dec and without
normalisation (their section 3). Nothing in the file says where its activations come from. The
layer is in the folder's name; the stream is in the repository's: `-res` are the residual stream
behind a block, `-mlp` what the MLP adds to it, after its norm. `-att` are heads before their
output projection, and transcoders map one stream to another; neither is a stream of ours.

The arrays are read without pickle.
"""

import math
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

import numpy as np
import torch
from numpy.lib import format as npy

from fluoroscope.core.errors import ConfigError, DamagedError, MismatchError
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.formats.released import ReleasedSAE, check_shapes, released_sae

PARAMS = "params.npz"

_LAYER = re.compile(r"layer_(\d+)")
_WIDTH = re.compile(r"width_(\d+)([km]?)")
_SITE = re.compile(r"gemma-scope-\w+-(?:pt|it)-(res|mlp|att|transcoders)\b.*")
_STREAMS = {"res": "resid_post", "mlp": "mlp_out"}
_D_MODEL = {"2b": 2304, "9b": 3584, "27b": 4608}


def load_gemma_scope(
    path: Path | str,
    hook_point: HookPoint | str | None = None,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ReleasedSAE:
    """The SAE in a params.npz or in its folder, of raw activations.

    `hook_point` is needed where the path does not name both the layer and the repository. Its
    `release_scale` is relative to the release's own latents.
    """
    file = params_file(path)
    point = _where(file, None if hook_point is None else HookPoint(str(hook_point)))
    d_model, d_sae = gemma_scope_sizes(file)
    with _damage_named(file), np.load(file, allow_pickle=False) as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    check_shapes(
        file,
        tensors,
        {
            "W_dec": (d_sae, d_model),
            "b_enc": (d_sae,),
            "b_dec": (d_model,),
            "threshold": (d_sae,),
        },
    )
    sae = released_sae(
        file,
        tensors.pop("W_enc").to(device, dtype).T.contiguous(),
        tensors["b_enc"].to(device),
        tensors.pop("W_dec").to(device, dtype),
        tensors["b_dec"].to(device),
        tensors["threshold"].to(device),
    )
    sae.hook_point = point
    return sae


def params_file(path: Path | str) -> Path:
    """The params.npz that a path is or holds."""
    file = Path(path) if Path(path).name.endswith(".npz") else Path(path) / PARAMS
    if not file.is_file():
        raise ConfigError(
            f"There is no {file}. An SAE of Gemma Scope is a folder with {PARAMS}, such as "
            "layer_20/width_16k/canonical."
        )
    return file


def gemma_scope_sizes(file: Path) -> tuple[int, int]:
    """d_model and d_sae, of the head of the file alone."""
    with (
        _damage_named(file),
        zipfile.ZipFile(file) as archive,
        archive.open("W_enc.npy") as member,
    ):
        version = npy.read_magic(member)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        d_model, d_sae = read(member)[0]
        return d_model, d_sae


def gemma_scope_width(path: PurePath | str) -> int | None:
    """d_sae by the folder's name: `width_131k` has 2^17 latents."""
    found = [match for part in PurePath(path).parts if (match := _WIDTH.fullmatch(part))]
    if not found:
        return None
    number, unit = int(found[-1][1]), found[-1][2]
    # 16k, 65k, 131k, 1m: powers of two in decimal words.
    return number if not unit else 2 ** round(math.log2(number * {"k": 1e3, "m": 1e6}[unit]))


def released_d_model(repository: str) -> int | None:
    """Width of the model that a repository's SAEs are of, where its name says which."""
    match = re.search(r"gemma-scope-(\w+)-(?:pt|it)-", repository)
    return _D_MODEL.get(match[1]) if match else None


def gemma_scope_point(path: PurePath | str) -> tuple[int | None, str | None]:
    """The layer and the stream, as far as the names in a path say them."""
    layer: int | None = None
    stream: str | None = None
    for part in PurePath(path).parts:
        if match := _LAYER.fullmatch(part):
            layer = int(match[1])
        # A hub cache has models--google--gemma-scope-9b-pt-res.
        elif match := _SITE.fullmatch(part.rpartition("--")[2]):
            if match[1] not in _STREAMS:
                raise ConfigError(
                    f"SAEs of {part} are of activations that are no stream of a model here; those "
                    "of the -res and -mlp repositories are read."
                )
            stream = _STREAMS[match[1]]
    return layer, stream


@contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedError(
            f"{file} is not a whole file of Gemma Scope ({error}). Fetch it again."
        ) from None


def _where(file: Path, given: HookPoint | None) -> HookPoint:
    layer, stream = gemma_scope_point(file)
    if given is None:
        if layer is None or stream is None:
            raise ConfigError(
                f"{file} does not say where its activations come from, as layer_20 below "
                "gemma-scope-9b-pt-res would. Give its hook point, such as 20.resid_post."
            )
        return HookPoint(f"{layer}.{stream}")
    named = HookPoint(f"{given.layer if layer is None else layer}.{stream or given.stream}")
    if named != given:
        raise MismatchError(f"{file} is of {named}, and was to be used at {given}.")
    return given
