"""Which SAEs a study works with: names -> what they are and where they lie -> the SAEs.

Every study names SAEs in this way. `find_saes` reads names and small files only, so that a study
is resolved, planned and refused before gigabytes are fetched; `load_saes` fetches what is needed
and refuses any other SAE than the one that was found. This module imports no torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt

from fluoroscope.core.config import Config, how
from fluoroscope.core.errors import ConfigError, DamagedError, MismatchError
from fluoroscope.models.hook_points import HookPoint, parse_hook_points
from fluoroscope.models.hub import content_sha256, fetch_file
from fluoroscope.steps.sae_places import Folder, SAEFormat, SAEPlace, find_places

if TYPE_CHECKING:
    from fluoroscope.models.identity import ModelIdentity
    from fluoroscope.sae.base import SparseAutoencoder
    from fluoroscope.steps.models import ModelConfig


class SAEChoice(Config):
    """One SAE, known by its content; where it lies may change."""

    hook_point: str
    """`15.resid_post`: blocks count from 0, and resid_post is what leaves a block."""

    format: SAEFormat = "native"

    folder: str = how("")
    """Where it lies, if it lies on this machine."""

    repository: str = how("")
    """The hub repository that it is of, if it is not in a folder; `revision` is the commit."""

    revision: str | None = how(None)

    file: str = how("")
    """Its weights, within the folder or the repository."""

    weights_sha256: str

    settings_sha256: str = ""
    """Of the file with its threshold, where that is not among the weights."""

    d_model: PositiveInt
    d_sae: PositiveInt

    def __str__(self) -> str:
        where = f"{self.repository}/{self.file}" if self.repository else self.folder
        return f"the SAE of {self.hook_point} in {where} ({self.weights_sha256[:12]}...)"

    def provenance(self) -> dict[str, Any]:  # Any: JSON values.
        """What an artefact with numbers of its latents records."""
        return {
            "feature_space": "SAE latents, in units of the activation",
            "layers": "blocks counted from 0; resid_post is what leaves a block",
            **self.model_dump(mode="json", include=set(_RECORDED)),
        }


_IDENTITY = ("hook_point", "d_sae", "weights_sha256", "settings_sha256")
_RECORDED = (*_IDENTITY, "d_model", "format", "repository", "revision", "file")


def find_saes(
    source: str | Sequence[str],
    hook_points: str | Sequence[str] | None,
    model: "ModelConfig",
) -> list[SAEChoice]:
    """The SAEs that a user named, in the order of their hook points.

    A name is a folder with an SAE or with several, a dictionary run, `organism:batch_topk`, or a
    hub repository (`fnlp/Llama3_1-8B-Base-LXR-8x`, `google/gemma-scope-9b-pt-res/width_131k`,
    `jbloom/GPT2-Small-SAEs-Reformatted`, `hf:OWNER/NAME`), perhaps with `@REVISION`; without
    `hook_points` all that are there.
    """
    given = [source] if isinstance(source, str) else list(source)
    wanted = None
    if hook_points is not None:
        wanted = {str(point) for point in parse_hook_points(hook_points, model.n_layers)}
    found: dict[str, SAEPlace] = {}
    known: list[str] = []
    for place in [place for name in given for place in find_places(name)]:
        point = str(place.hook_point)
        known.append(point)
        if wanted is not None and point not in wanted:
            continue
        if point in found:
            raise ConfigError(
                f"There are two SAEs of {point}: {found[point]} and {place}. Name the folder of "
                "the one that is meant."
            )
        found[point] = place
    missing = sorted((wanted or set()) - set(found))
    if missing or not found:
        raise ConfigError(
            f"There is no SAE of {missing[0] if missing else 'any hook point'} in "
            f"{', '.join(given) or 'no folder'}; there are those of "
            f"{', '.join(sorted(set(known))) or 'none'}."
        )
    return sorted(
        (_choice(place, model) for place in found.values()),
        key=lambda choice: HookPoint(choice.hook_point),
    )


def load_saes(
    choices: Sequence[SAEChoice], *, device: str = "cpu", model: "ModelIdentity | None" = None
) -> "dict[str, SparseAutoencoder]":
    """Hook point -> its SAE, without gradients."""
    return {
        choice.hook_point: load_choice(choice, device=device, model=model).requires_grad_(False)
        for choice in choices
    }


def load_choice(
    choice: SAEChoice, *, device: str = "cpu", model: "ModelIdentity | None" = None
) -> "SparseAutoencoder":
    """The SAE that was chosen, and no other. A native SAE knows the weights of its model, and is
    refused for a `model` with others; of a release only the width is known.
    """
    from fluoroscope.sae.formats.gemma_scope import load_gemma_scope
    from fluoroscope.sae.formats.layered import load_layered
    from fluoroscope.sae.formats.llama_scope import HYPERPARAMS, WEIGHTS, load_llama_scope
    from fluoroscope.sae.formats.native import load_sae
    from fluoroscope.sae.formats.saelens import load_saelens

    match choice.format:
        case "native":
            expect = {"hook_point": choice.hook_point, "weights_sha256": choice.weights_sha256}
            known = {} if model is None else {"model": model.to_json()}
            sae = load_sae(choice.folder, device=device, expect={**known, **expect})
        case "saelens":
            sae = load_saelens(_saelens_folder(choice), device=device)
        case "llama_scope":
            settings = choice.file.removesuffix(WEIGHTS) + HYPERPARAMS
            folder = _content(choice, settings, choice.settings_sha256).parent
            _content(choice, choice.file, choice.weights_sha256)
            sae = load_llama_scope(folder, device=device)
        case "gemma_scope":
            weights = _content(choice, choice.file, choice.weights_sha256)
            sae = load_gemma_scope(weights, choice.hook_point, device=device)
        case "layered":
            weights = _content(choice, choice.file, choice.weights_sha256)
            own = None if model is None else model.to_json()
            sae = load_layered(weights, device=device, model=own)
    is_other = (str(sae.hook_point), sae.d_model, sae.d_sae) != (
        choice.hook_point,
        choice.d_model,
        choice.d_sae,
    )
    if is_other:
        raise MismatchError(
            f"Chosen was {choice}, with {choice.d_sae} latents of width {choice.d_model}; what is "
            f"there is of {sae.hook_point}, with {sae.d_sae} latents of width {sae.d_model}."
        )
    return sae


def check_recorded(recorded: Mapping[str, Any], choice: SAEChoice, artefact: str) -> None:
    """Raises `MismatchError` unless an artefact's numbers are of the latents of this SAE.

    `recorded` is what `SAEChoice.provenance` gave when the artefact was made.
    """
    own = choice.provenance()
    for name in ("feature_space", *_IDENTITY):
        if recorded.get(name) != own[name]:
            raise MismatchError(
                f"{artefact} has {name} {recorded.get(name)!r}, and was to be used with {choice}, "
                f"which has {own[name]!r}. Use the SAE that it was made with, or make it anew."
            )


def _choice(place: SAEPlace, model: "ModelConfig") -> SAEChoice:
    facts = place.facts()
    d_model = model.d_model if facts.d_model is None else facts.d_model
    if HookPoint(facts.hook_point).layer >= model.n_layers or d_model != model.d_model:
        raise MismatchError(
            f"The SAE in {place} is of {facts.hook_point} with width {d_model}; {model.name} has "
            f"layers 0 to {model.n_layers - 1} and width {model.d_model}. It was made for another "
            "model."
        )
    choice = SAEChoice(
        hook_point=facts.hook_point,
        format=place.format,
        weights_sha256=facts.weights_sha256,
        settings_sha256=facts.settings_sha256,
        d_model=d_model,
        d_sae=facts.d_sae,
    )
    if isinstance(place.files, Folder):
        folder = (place.files.path / place.folder).resolve()
        return choice.model_copy(update={"folder": str(folder), "file": place.weights})
    name, commit = place.files.repository.name, place.files.repository.commit
    file = place.file(place.weights)
    return choice.model_copy(update={"repository": name, "revision": commit, "file": file})


def _saelens_folder(choice: SAEChoice) -> Path:
    """Its folder, with the files that were found, fetched if they are not here."""
    from fluoroscope.sae.formats.saelens import saelens_sha256
    from fluoroscope.sae.formats.saelens_config import CONFIG, SCALER, WEIGHTS, saelens_facts

    inside = choice.file.removesuffix(WEIGHTS)
    config = _file(choice, inside + CONFIG)
    if saelens_facts(config).is_scaled:
        _file(choice, inside + SCALER)
    _check_content(choice, config, saelens_sha256(config), choice.settings_sha256)
    return _content(choice, choice.file, choice.weights_sha256).parent


def _content(choice: SAEChoice, file: str, sha256: str) -> Path:
    """A file of an SAE, fetched if it is not here, with this content."""
    path = _file(choice, file)
    _check_content(choice, path, content_sha256(path), sha256)
    return path


def _file(choice: SAEChoice, file: str) -> Path:
    if choice.repository:
        path = fetch_file(choice.repository, choice.revision, file)
    else:
        path = Path(choice.folder) / file
    if not path.is_file():
        raise DamagedError(f"{path} is missing, and is a part of {choice}. Restore it.")
    return path


def _check_content(choice: SAEChoice, path: Path, found: str, sha256: str) -> None:
    if found != sha256:
        raise MismatchError(
            f"{path} is not a part of {choice}: its SHA-256 should be {sha256[:12]}..., it is "
            f"{found[:12]}.... It was exchanged, or is damaged; restore it, or start anew."
        )
