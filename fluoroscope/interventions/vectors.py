"""Steering vectors: directions by hook point, how much of them, where, and how they were made.

    vector = mean_difference(model, praising, blaming, ["12.resid_post"])
    save_vector(vector, "praise")            # praise.safetensors and praise.json
    vector = load_vector("praise.json")
    vector.check_model(model)
    with steer(model, vector.edits(), vector.positions):
        ...

The safetensors file holds the directions by hook point, and the JSON file beside it all else.
The coefficient and the positions may be changed there by hand. Vectors in GGUF, of repeng and
llama.cpp, are read by `load_vector` and written by `save_gguf`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor

from fluoroscope.activations.capture import capture
from fluoroscope.core.config import Config, settings_hash
from fluoroscope.core.errors import DamagedError, InterventionError, MismatchError, UserError
from fluoroscope.core.storage import read_json, sha256_file, write_json
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.interventions.edits import AddDirection, check_direction, check_number
from fluoroscope.interventions.gguf_vectors import ControlVector, read_gguf, write_gguf
from fluoroscope.interventions.positions import ALL, GENERATED, LAST, Positions
from fluoroscope.interventions.row_edits import EditSet
from fluoroscope.models.hook_points import HookPoint, parse_hook_points
from fluoroscope.models.language_model import LanguageModel

_WEIGHTS = "weights_sha256"
_TENSORS, _SIDECAR, _GGUF = ".safetensors", ".json", ".gguf"


@dataclass(frozen=True, eq=False, kw_only=True)
class SteeringVector:
    """What is added to a model's activations, and what it was made for."""

    directions: Mapping[HookPoint, Float[Tensor, " d_model"]]

    coefficient: float = 1.0
    """What every direction is multiplied by."""

    is_relative: bool = False
    """Whether the coefficient is in units of the activation's norm; see `AddDirection`."""

    positions: Positions = ALL

    source: str
    """How it was made, in a few words."""

    model: Mapping[str, str | None] | None = None
    """The `ModelIdentity.to_json()` of the model it was made for; None where nobody said."""

    provenance: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values.
    """What else is known of how it was made."""

    def __post_init__(self) -> None:
        if not self.directions:
            raise InterventionError(
                "A steering vector needs a direction at one hook point at least."
            )
        for point, direction in self.directions.items():
            check_direction(direction, f"The vector at {point}", allow_zero=not self.is_relative)
        check_number(self.coefficient, "The coefficient of a steering vector")
        if self.model is not None and not self.model.get(_WEIGHTS):
            raise InterventionError(
                f"The model of a steering vector is named by its {_WEIGHTS}, as "
                f"`model.identity.to_json()` gives it; got {dict(self.model)}."
            )

    def edits(self) -> EditSet:
        """One `AddDirection` for each hook point, to be used at `positions`."""
        return {
            point: AddDirection(direction, self.coefficient, self.is_relative)
            for point, direction in sorted(self.directions.items())
        }

    def with_coefficient(self, coefficient: float) -> "SteeringVector":
        """The same directions, by another amount."""
        return replace(self, coefficient=coefficient)

    def check_model(self, model: LanguageModel) -> None:
        """Raises `MismatchError` where it was made for other weights, or does not fit."""
        if self.model is not None and self.model[_WEIGHTS] != model.identity.weights_sha256:
            raise MismatchError(
                f"The vector ({self.source}) was made for the model {self.model.get('id')} "
                f"(weights {str(self.model[_WEIGHTS])[:12]}...), and was to be used with "
                f"{model.name} (weights {model.identity.weights_sha256[:12]}...). Load the model "
                "it is of, or make it anew for this one."
            )
        for point, direction in self.directions.items():
            if point.layer >= model.n_layers:
                raise MismatchError(
                    f"The vector ({self.source}) acts at {point}, and {model.name} has layers 0 "
                    f"to {model.n_layers - 1}. It was made for another model."
                )
            if len(direction) != model.width(point):
                raise MismatchError(
                    f"The vector ({self.source}) has width {len(direction)} at {point}, where "
                    f"{model.name} has width {model.width(point)}. It was made for another model."
                )


def mean_difference(
    model: LanguageModel,
    positive: Sequence[str],
    negative: Sequence[str],
    points: str | HookPoint | Sequence[HookPoint | str],
    *,
    batch_size: int = 32,
) -> SteeringVector:
    """The mean activation at the last token of the positive texts, less that of the negative.

    Contrastive activation addition (Rimsky et al. 2024, arXiv:2312.06681), whose pairs of texts
    differ in their last token. Added with coefficient 1 wherever a token is drawn.
    """
    wanted = parse_hook_points(points, model.n_layers)
    high = _last_token_means(model, positive, wanted, batch_size, "positive")
    low = _last_token_means(model, negative, wanted, batch_size, "negative")
    return SteeringVector(
        directions={point: (high[point] - low[point]).float() for point in wanted},
        positions=LAST | GENERATED,
        source=f"mean difference of {len(positive)} and {len(negative)} texts at the last token",
        model=model.identity.to_json(),
        provenance={
            "method": "mean_difference",
            "n_negative": len(negative),
            "n_positive": len(positive),
            "texts_sha256": settings_hash([list(positive), list(negative)]),
        },
    )


def save_vector(vector: SteeringVector, path: Path | str) -> None:
    """Writes `NAME.safetensors` and `NAME.json`; the JSON last, so that what has one is whole.

    The bytes depend on the vector alone.
    """
    sidecar, tensors = _files(Path(path).expanduser())
    settings = _Sidecar(
        kind="steering vector",
        coefficient=float(vector.coefficient),
        is_relative=vector.is_relative,
        points=[str(point) for point in sorted(vector.directions)],
        tensors_sha256="",
        **_about(vector),
    )
    sidecar.unlink(missing_ok=True)
    # A clone: safetensors refuses tensors that share memory, as one direction at two layers does.
    found = {str(point): value.detach().clone() for point, value in vector.directions.items()}
    write_tensors(tensors, found)
    whole = settings.model_copy(update={"tensors_sha256": sha256_file(tensors)})
    write_json(sidecar, whole.model_dump(mode="json"))


def load_vector(path: Path | str) -> SteeringVector:
    """A vector by either of the files that `save_vector` wrote, or a control vector in GGUF."""
    path = Path(path).expanduser()
    if path.suffix == _GGUF:
        return _from_gguf(path)
    sidecar, tensors = _files(path)
    _check_exists(path, sidecar, tensors)
    settings = _settings_of(sidecar)
    found = sha256_file(tensors)
    if found != settings.tensors_sha256:
        raise DamagedError(
            f"{tensors} is damaged, or not the file that {sidecar.name} describes: its SHA-256 "
            f"should be {settings.tensors_sha256[:16]}..., it is {found[:16]}.... Copy both files "
            "again, or make the vector anew."
        )
    directions = {HookPoint(name): value for name, value in read_tensors(tensors).items()}
    if sorted(settings.points) != sorted(map(str, directions)):
        raise DamagedError(
            f"{sidecar} names the hook points {', '.join(settings.points)}, and {tensors.name} "
            f"holds directions of {', '.join(map(str, directions))}."
        )
    try:
        return SteeringVector(
            directions=directions,
            coefficient=settings.coefficient,
            is_relative=settings.is_relative,
            positions=Positions.parse(settings.positions),
            source=settings.source,
            model=settings.model,
            provenance=settings.provenance,
        )
    except InterventionError as error:
        raise InterventionError(f"{sidecar} cannot be used: {error}") from None


def save_gguf(vector: SteeringVector, path: Path | str, model_type: str) -> None:
    """Writes a control vector for repeng and llama.cpp, the coefficient multiplied in.

    `model_type` is what transformers calls the architecture (`model.family.model_type`). Those
    programs add the vector at every position, whatever ours are.
    """
    if vector.is_relative:
        raise InterventionError(
            "A control vector in GGUF has a length of its own, and the coefficient of this vector "
            "is in units of the activation's norm. Save it with save_vector, or give it a "
            "coefficient that is not relative."
        )
    scaled = {point: value * vector.coefficient for point, value in vector.directions.items()}
    write_gguf(Path(path).expanduser(), ControlVector(scaled, model_type, _about(vector)))


class _About(Config):
    model: dict[str, str | None] | None
    positions: str
    provenance: dict[str, Any]  # Any: JSON values.
    source: str


class _Sidecar(_About):
    kind: Literal["steering vector"]
    coefficient: float
    is_relative: bool
    points: list[str]
    tensors_sha256: str


def _about(vector: SteeringVector) -> dict[str, Any]:  # Any: JSON values.
    return {
        "model": None if vector.model is None else dict(vector.model),
        "positions": str(vector.positions),
        "provenance": dict(vector.provenance),
        "source": vector.source,
    }


def _from_gguf(path: Path) -> SteeringVector:
    found = read_gguf(path)
    hint = {} if found.model_hint is None else {"model_hint": found.model_hint}
    given: Any = found.about  # Any: a JSON value, checked here.
    if given is None:
        kind = found.model_hint or "an unnamed"
        source = f"control vector of {kind} model, in GGUF"
        given = {"model": None, "positions": str(ALL), "provenance": hint, "source": source}
    try:
        about = _About.model_validate(given)
        return SteeringVector(
            directions=found.directions,
            positions=Positions.parse(about.positions),
            source=about.source,
            model=about.model,
            provenance=about.provenance,
        )
    except (ValidationError, InterventionError) as error:
        raise InterventionError(f"{path} cannot be used: {error}") from None


def _files(path: Path) -> tuple[Path, Path]:
    if path.suffix == _GGUF:
        raise UserError(f"{path} would be a control vector in GGUF, which save_gguf writes.")
    stem = path.with_suffix("") if path.suffix in (_TENSORS, _SIDECAR) else path
    return stem.with_name(stem.name + _SIDECAR), stem.with_name(stem.name + _TENSORS)


def _check_exists(path: Path, sidecar: Path, tensors: Path) -> None:
    if sidecar.is_file() and tensors.is_file():
        return
    if tensors.is_file():
        raise UserError(
            f"{tensors} has no {sidecar.name} beside it, which says where and how much of it to "
            "add. Copy both files; save_vector writes both."
        )
    if sidecar.is_file():
        # Told apart first: any JSON file may be given by mistake.
        _settings_of(sidecar)
        raise DamagedError(f"{sidecar} has no {tensors.name} beside it. Copy both files.")
    raise UserError(
        f"There is no steering vector {path}: it is NAME{_SIDECAR} with NAME{_TENSORS} beside it, "
        f"or NAME{_GGUF}."
    )


def _settings_of(sidecar: Path) -> _Sidecar:
    try:
        return _Sidecar.model_validate(read_json(sidecar))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{sidecar} describes no steering vector, as save_vector writes it: "
            f"{f'{place}: ' if place else ''}{first['msg']}."
        ) from None


def _last_token_means(
    model: LanguageModel,
    texts: Sequence[str],
    points: Sequence[HookPoint],
    batch_size: int,
    side: str,
) -> dict[HookPoint, Float[Tensor, " d_model"]]:
    if not texts:
        raise InterventionError(f"mean_difference got no {side} text; give at least one.")
    model.check_positions_are_tokens("A mean over last positions")
    sums = {point: torch.zeros(model.width(point), dtype=torch.float64) for point in points}
    for start in range(0, len(texts), batch_size):
        tokens, mask = model.tokenize(texts[start : start + batch_size])
        empty = (mask.sum(dim=1) == 0).nonzero().flatten().tolist()
        if empty:
            raise InterventionError(
                f"The {side} text {start + empty[0]} ({texts[start + empty[0]]!r}) has no token."
            )
        # The last position that is no padding, on whichever side that is.
        last = (mask * torch.arange(1, mask.shape[1] + 1)).argmax(dim=1)
        cache = capture(model, tokens, points, mask)
        for point in points:
            found = cache[point]
            rows = found[torch.arange(len(found), device=found.device), last.to(found.device)]
            sums[point] += rows.cpu().double().sum(dim=0)
    return {point: total / len(texts) for point, total in sums.items()}
