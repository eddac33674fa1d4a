"""The model of a run, loaded once in each process that works on it."""

from pathlib import Path

from pydantic import PositiveInt

from fluoroscope.activations.extract_config import StoreDtype
from fluoroscope.core.config import Config
from fluoroscope.core.storage import COMMIT
from fluoroscope.models.hub import find_config
from fluoroscope.models.known_shapes import known_config
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.model_spec import ModelSpec
from fluoroscope.models.shape import ModelShape
from fluoroscope.organism.shipping import is_organism
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost


class ModelConfig(Config):
    """Which model, and what only the model knows."""

    name: str
    revision: str | None
    dtype: StoreDtype
    d_model: PositiveInt
    n_layers: PositiveInt
    is_organism: bool
    """Whether its folder says what was planted in it."""


def resolve_model(spec: ModelSpec, shape: ModelShape) -> ModelConfig:
    """The model that a user named, with what its files say."""
    return ModelConfig(
        name=spec.source,
        revision=spec.revision,
        dtype=spec.dtype,
        d_model=shape.d_model,
        n_layers=shape.n_layers,
        is_organism=is_organism(find_config(spec.source, spec.revision).parent),
    )


def subject_model(spec: ModelSpec, shape: ModelShape, *, is_sketch: bool = False) -> ModelConfig:
    """As `resolve_model`; to sketch a plan, a well-known model needs no files."""
    is_far = not Path(spec.source).is_dir() and known_config(spec.source) is not None
    if not (is_sketch and is_far):
        return resolve_model(spec, shape)
    return ModelConfig(
        name=spec.source,
        revision=spec.revision,
        dtype=spec.dtype,
        d_model=shape.d_model,
        n_layers=shape.n_layers,
        is_organism=False,
    )


def forward_cost(
    model: ModelConfig, shape: ModelShape, context: int, tile_windows: int, n_tokens: float
) -> Cost:
    """Forward passes over `n_tokens` in tiles; the memory is that of the weights and the logits
    of a tile. Beside arithmetic and memory, about 1 ms a block and tile.
    """
    flops = shape.forward_flops_per_token(context) * n_tokens
    is_half = model.dtype != "float32"
    tile = tile_windows * context
    weights = float(shape.weight_bytes(model.dtype))
    return Cost(
        flops=0.0 if is_half else flops,
        half_flops=flops if is_half else 0.0,
        bytes_moved=weights * n_tokens / tile,
        overhead_s=1e-3 * (shape.n_layers + 1) * n_tokens / tile,
        memory_bytes=weights + 4.0 * tile * (4 * shape.vocab_size + 20 * shape.d_model),
    )


def load_model(run: Run, config: ModelConfig, device: str) -> LanguageModel:
    """A hub model at the commit that the run was started with, whatever is there by now."""

    def load() -> LanguageModel:
        revision = pinned_revision(run, "model", config.revision)
        return LanguageModel.load(config.name, dtype=config.dtype, device=device, revision=revision)

    return run.cached(("model", config.name, config.revision, config.dtype, device), load)


def pinned_revision(run: Run, source: str, revision: str | None) -> str | None:
    """The commit at which `source` was when the run was started; `revision` where there is none."""
    found = run.sources.get(source, "")
    return found.removeprefix(COMMIT) if found.startswith(COMMIT) else revision
