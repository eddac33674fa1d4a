"""The SAEs of a hallucination run, named by its user or trained by itself."""

from fluoroscope.models.identity import ModelIdentity
from fluoroscope.runs.run import Run
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.steps.sae_sources import SAEChoice, load_saes
from fluoroscope.steps.sae_training import trained_saes
from fluoroscope.steps.train_saes import SAES_STEP
from fluoroscope.studies.hallucination.config import HallucinationConfig


def sae_inputs(config: HallucinationConfig) -> tuple[str, ...]:
    """The step that a step which loads the SAEs stands on, if there is one."""
    return (SAES_STEP,) if config.train else ()


def sae_choices(run: Run, config: HallucinationConfig) -> list[SAEChoice]:
    """In the order of `config.points`."""
    return trained_saes(run, config.model) if config.train else config.saes


def load_layers(
    run: Run, config: HallucinationConfig, device: str, model: ModelIdentity | None = None
) -> dict[str, SparseAutoencoder]:
    """Hook point -> its SAE, without gradients; loaded once in each process."""

    def load() -> dict[str, SparseAutoencoder]:
        return load_saes(sae_choices(run, config), device=device, model=model)

    return run.cached(("layers", device, model is None), load)
