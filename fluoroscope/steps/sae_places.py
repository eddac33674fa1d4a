"""Where SAEs lie: in a folder, a run, the package, or a repository of the hub.

A place is known by names and small files alone; weights are neither fetched nor read. What a
format needs (torch among it) is imported when a place of it is looked at.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from fluoroscope.core.errors import ConfigError, MismatchError
from fluoroscope.core.storage import read_json, sha256_file
from fluoroscope.models.hub import (
    SHIPPED,
    Repository,
    content_sha256,
    fetch_file,
    find_repository,
    hub_file_sha256,
)
from fluoroscope.runs.record import runs_root

HUB = "hf:"
"""Before the name of a repository that does not itself say that SAEs are in it."""

SAEFormat = Literal["native", "saelens", "llama_scope", "gemma_scope", "layered"]

_REPOSITORY = re.compile(r"(\w[\w.-]*/([\w.-]+))((?:/[\w.-]+)*)(?:@(.+))?")
_HAS_SAES = re.compile(r"Llama[\w.]*-.*LX|gemma-scope-|(?i:.*sae)")
_LLAMA_FOLDER = re.compile(r".*-L(\d+)([RAM])-\d+x")
_LLAMA_STREAMS = {"R": "resid_post", "A": "attn_out", "M": "mlp_out"}


@dataclass(frozen=True)
class Folder:
    """Files on this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def find(self, name: str) -> list[str]:
        """Paths, relative and sorted, of the files of this name."""
        return sorted(file.relative_to(self.path).as_posix() for file in self.path.rglob(name))

    def has(self, file: str) -> bool:
        return (self.path / file).is_file()

    def get(self, file: str) -> Path:
        return self.path / file

    def sha256(self, file: str) -> str:
        return content_sha256(self.path / file)


@dataclass(frozen=True)
class HubFolder:
    """Files of a repository, fetched when they are got."""

    repository: Repository

    def __str__(self) -> str:
        return self.repository.name

    def find(self, name: str) -> list[str]:
        """Paths, relative and sorted, of the files of this name."""
        return [file for file in self.repository.files if PurePosixPath(file).name == name]

    def has(self, file: str) -> bool:
        return file in self.repository.files

    def get(self, file: str) -> Path:
        return fetch_file(self.repository.name, self.repository.commit, file)

    def sha256(self, file: str) -> str:
        return hub_file_sha256(self.repository, file)


class SAEFacts(NamedTuple):
    """What the small files beside an SAE say of it."""

    hook_point: str
    d_model: int | None
    """None where only the weights say it."""

    d_sae: int
    weights_sha256: str

    settings_sha256: str = ""
    """Of the file beside the weights that decides latents as well, where there is one."""


@dataclass(frozen=True)
class SAEPlace:
    """An SAE that was found."""

    format: SAEFormat
    files: Folder | HubFolder
    folder: str
    """Of the SAE, within the files."""

    weights: str
    """Its weights, within its folder."""

    hook_point: str | None
    """As names, a native sidecar, or metadata say."""

    def __str__(self) -> str:
        return str(self.files) if self.folder == "." else f"{self.files}/{self.folder}"

    def file(self, name: str) -> str:
        """A file of the SAE, within all files."""
        return name if self.folder == "." else f"{self.folder}/{name}"

    def facts(self) -> SAEFacts:
        match self.format:
            case "native":
                return _native_facts(self)
            case "saelens":
                return _saelens_facts(self)
            case "llama_scope":
                return _llama_facts(self)
            case "gemma_scope":
                return _gemma_facts(self)
            case "layered":
                return _layered_facts(self)


def find_places(name: str) -> list[SAEPlace]:
    """All SAEs that a name means: a folder with SAEs, a run, `organism:batch_topk`, or a
    repository of Llama Scope, Gemma Scope or SAELens folders,
    `google/gemma-scope-9b-pt-res/width_16k@REVISION`; `hf:` before it where its name has no "sae".
    """
    if name.startswith("organism:"):
        folder = SHIPPED["organism"] / "saes" / name.removeprefix("organism:")
    else:
        given = Path(name).expanduser()
        folder = given if given.is_dir() else runs_root() / name
    match = _REPOSITORY.fullmatch(name.removeprefix(HUB))
    # The hub is not asked for what may be a mistyped folder.
    is_far = match is not None and (name.startswith(HUB) or _HAS_SAES.match(match[2]) is not None)
    if match is None or not is_far or folder.is_dir():
        found = _places(Folder(folder), ())
        if not found:
            raise ConfigError(
                f"There is no SAE in {folder}. Give the folder of an SAE or of a dictionary run, "
                "the name of such a run, organism:batch_topk, or a repository such as "
                "fnlp/Llama3_1-8B-Base-LXR-8x, google/gemma-scope-9b-pt-res/width_16k or, of any "
                "other name, hf:OWNER/NAME."
            )
        return found
    repository = find_repository(match[1], match[4])
    inside = tuple(PurePosixPath(match[3]).parts[1:])
    found = _places(HubFolder(repository), inside)
    if not found:
        below = sorted({str(PurePosixPath(file).parent) for file in repository.files})
        where = " in the hub's cache, and the hub cannot be asked" if repository.is_cached else ""
        raise ConfigError(
            f"There is no SAE that can be read in {name}{where}. Its folders are "
            f"{', '.join(below[:6]) or 'none'}{' and more' if len(below) > 6 else ''}."
        )
    return found


def _places(files: Folder | HubFolder, inside: tuple[str, ...]) -> list[SAEPlace]:
    # A run may hold its SAEs a second time, exported as one file a layer.
    found = [*_native(files), *_saelens(files), *_llama(files), *_gemma(files)]
    found = found or [*_layered(files)]
    meant = [place for place in found if set(inside) <= set(PurePosixPath(place.folder).parts)]
    # Of Gemma Scope's several sparsities of a layer and width, one is the canonical.
    canonical = {PurePosixPath(place.folder).parent for place in meant if _is_canonical(place)}
    return [
        place
        for place in meant
        if _is_canonical(place)
        or place.format != "gemma_scope"
        or PurePosixPath(place.folder).parent not in canonical
    ]


def _is_canonical(place: SAEPlace) -> bool:
    return place.format == "gemma_scope" and PurePosixPath(place.folder).name == "canonical"


def _native(files: Folder | HubFolder) -> Iterator[SAEPlace]:
    from fluoroscope.sae.formats.native import SIDECAR
    from fluoroscope.steps.train_saes import BEST, LAST

    if isinstance(files, HubFolder):
        return
    sidecars = [PurePosixPath(file) for file in files.find(SIDECAR)]
    for sidecar in sidecars:
        # A run keeps the last weights beside the best.
        folder = sidecar.parent
        if folder.name != LAST or folder.with_name(BEST) / SIDECAR not in sidecars:
            point = read_json(files.get(str(sidecar)))["hook_point"]
            yield SAEPlace("native", files, str(folder), "sae_weights.safetensors", point)


def _saelens(files: Folder | HubFolder) -> Iterator[SAEPlace]:
    from fluoroscope.sae.formats.native import SIDECAR
    from fluoroscope.sae.formats.saelens_config import (
        CONFIG,
        WEIGHTS,
        saelens_hook_name,
        saelens_point,
    )

    for config in files.find(CONFIG):
        folder = PurePosixPath(config).parent
        if files.has(str(folder / SIDECAR)) or not files.has(str(folder / WEIGHTS)):
            continue
        # Most folders are named so, and then nothing is fetched to find one of them. A place that
        # is no stream of ours keeps its own name, and is refused when it is meant.
        is_named = saelens_point(folder.name) is not None
        name = folder.name if is_named else saelens_hook_name(files.get(config))
        yield SAEPlace("saelens", files, str(folder), WEIGHTS, str(saelens_point(name) or name))


def _llama(files: Folder | HubFolder) -> Iterator[SAEPlace]:
    from fluoroscope.sae.formats.llama_scope import HYPERPARAMS, WEIGHTS, read_llama_scope

    for hyperparams in files.find(HYPERPARAMS):
        folder = PurePosixPath(hyperparams).parent
        if not files.has(str(folder / WEIGHTS)):
            continue
        match = _LLAMA_FOLDER.fullmatch(folder.name)
        if match is not None:
            point = f"{match[1]}.{_LLAMA_STREAMS[match[2]]}"
        else:
            point = str(read_llama_scope(files.get(hyperparams)).hook_point)
        yield SAEPlace("llama_scope", files, str(folder), WEIGHTS, point)


def _gemma(files: Folder | HubFolder) -> Iterator[SAEPlace]:
    from fluoroscope.sae.formats.gemma_scope import PARAMS, gemma_scope_point

    above = files.path.absolute() if isinstance(files, Folder) else PurePosixPath(str(files))
    for file in files.find(PARAMS):
        folder = PurePosixPath(file).parent
        layer, stream = gemma_scope_point(above / folder)
        point = None if layer is None or stream is None else f"{layer}.{stream}"
        # The SAEs of the embedding are of no layer.
        if "embedding" not in folder.parts:
            yield SAEPlace("gemma_scope", files, str(folder), PARAMS, point)


def _layered(files: Folder | HubFolder) -> Iterator[SAEPlace]:
    from fluoroscope.sae.formats.layered import GLOBS, layer_in_name, layered_point

    if isinstance(files, HubFolder):
        return
    known: set[tuple[PurePosixPath, int]] = set()
    for file in [PurePosixPath(file) for glob in GLOBS for file in files.find(glob)]:
        layer = layer_in_name(file.name)
        # The same layer as safetensors and as .pt is one SAE, converted.
        if layer is not None and (file.parent, layer) not in known:
            known.add((file.parent, layer))
            point = str(layered_point(files.get(str(file))))
            yield SAEPlace("layered", files, str(file.parent), file.name, point)


def _native_facts(place: SAEPlace) -> SAEFacts:
    from fluoroscope.sae.formats.native import SIDECAR

    sidecar = read_json(place.files.get(place.file(SIDECAR)))
    if place.hook_point is None:
        raise MismatchError(f"The SAE in {place} does not say at which hook point it belongs.")
    config = sidecar["config"]
    return SAEFacts(
        place.hook_point, int(config["d_model"]), int(config["d_sae"]), sidecar["weights_sha256"]
    )


def _saelens_facts(place: SAEPlace) -> SAEFacts:
    from fluoroscope.sae.formats.saelens import saelens_sha256
    from fluoroscope.sae.formats.saelens_config import CONFIG, SCALER, saelens_facts

    config = place.files.get(place.file(CONFIG))
    facts = saelens_facts(config)
    if str(facts.hook_point) != place.hook_point:
        raise _misnamed(place, str(facts.hook_point), CONFIG)
    if facts.is_scaled and place.files.has(place.file(SCALER)):
        place.files.get(place.file(SCALER))
    return SAEFacts(
        str(facts.hook_point),
        facts.d_model,
        facts.d_sae,
        place.files.sha256(place.file(place.weights)),
        saelens_sha256(config),
    )


def _llama_facts(place: SAEPlace) -> SAEFacts:
    from fluoroscope.sae.formats.llama_scope import HYPERPARAMS, read_llama_scope

    file = place.files.get(place.file(HYPERPARAMS))
    settings = read_llama_scope(file)
    if str(settings.hook_point) != place.hook_point:
        raise _misnamed(place, str(settings.hook_point), HYPERPARAMS)
    return SAEFacts(
        str(settings.hook_point),
        settings.d_model,
        settings.d_sae,
        place.files.sha256(place.file(place.weights)),
        sha256_file(file),
    )


def _misnamed(place: SAEPlace, hook_point: str, said_by: str) -> MismatchError:
    return MismatchError(
        f"{place} is of {place.hook_point} by its name, and of {hook_point} by its {said_by}. Name "
        "the folder after what is in it."
    )


def _gemma_facts(place: SAEPlace) -> SAEFacts:
    from fluoroscope.sae.formats.gemma_scope import (
        gemma_scope_sizes,
        gemma_scope_width,
        released_d_model,
    )

    if place.hook_point is None:
        raise MismatchError(
            f"The SAE in {place} does not say at which hook point it belongs: the layer and the "
            "stream of Gemma Scope are in names of folders alone. Keep them, as in "
            "gemma-scope-9b-pt-res/layer_20/width_16k/canonical."
        )
    weights = place.file(place.weights)
    if isinstance(place.files, Folder):
        d_model, d_sae = gemma_scope_sizes(place.files.get(weights))
    else:
        d_model, d_sae = released_d_model(str(place.files)), gemma_scope_width(place.folder)
    if d_sae is None:
        raise ConfigError(f"{place} does not say how many latents it has, as width_16k would.")
    return SAEFacts(place.hook_point, d_model, d_sae, place.files.sha256(weights))


def _layered_facts(place: SAEPlace) -> SAEFacts:
    from fluoroscope.sae.formats.layered import layered_facts

    weights = place.file(place.weights)
    point, d_model, d_sae = layered_facts(place.files.get(weights))
    return SAEFacts(str(point), d_model, d_sae, place.files.sha256(weights))
