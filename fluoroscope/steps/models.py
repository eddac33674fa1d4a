"""The model of a run, loaded once in each process that works on it."""

from pydantic import PositiveInt

from fluoroscope.activations.extract_config import StoreDtype
from fluoroscope.core.config import Config
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.runs.run import Run


class ModelConfig(Config):
    """Which model, and what only the model knows."""

    name: str
    revision: str | None
    dtype: StoreDtype
    d_model: PositiveInt
    n_layers: PositiveInt


def pass_overhead_s(n_layers: int, n_tiles: float) -> float:
    """What forward passes cost beside arithmetic and memory: about 1 ms a block and tile."""
    return 1e-3 * (n_layers + 1) * n_tiles


def load_model(run: Run, config: ModelConfig, device: str) -> LanguageModel:
    def load() -> LanguageModel:
        return LanguageModel.load(
            config.name, dtype=config.dtype, device=device, revision=config.revision
        )

    return run.cached(("model", config.name, config.revision, config.dtype, device), load)
