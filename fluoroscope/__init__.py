"""Fluoroscope: see inside a language model while it runs, and steer it.

Names are loaded when they are first used (PEP 562), so that `import fluoroscope` and the
command line stay instant and nobody pays for torch who does not use it.
"""

from typing import TYPE_CHECKING

from fluoroscope.core.lazy_names import lazy_names

if TYPE_CHECKING:
    from fluoroscope.activations.capture import ActivationCache, capture
    from fluoroscope.activations.store import ActivationStore
    from fluoroscope.activations.stream import ActivationStream
    from fluoroscope.interventions.edits import AblateDirection, AddDirection, MeanAblate, Replace
    from fluoroscope.interventions.positions import ALL, GENERATED, LAST, PROMPT
    from fluoroscope.interventions.row_edits import row_edits
    from fluoroscope.interventions.screening import Screen
    from fluoroscope.interventions.steering import steer
    from fluoroscope.interventions.vectors import SteeringVector, load_vector, save_vector
    from fluoroscope.models.generation import Generation, Request, generate
    from fluoroscope.models.hook_points import HookPoint
    from fluoroscope.models.language_model import LanguageModel
    from fluoroscope.models.sampling import Sampling
    from fluoroscope.sae.base import SparseAutoencoder
    from fluoroscope.sae.formats.native import load_sae, save_sae
    from fluoroscope.sae.latent_edits import ScaleLatent, SetLatent
    from fluoroscope.sae.training import SAETrainer

__version__ = "0.1.0"

_HOMES = {
    "ALL": "fluoroscope.interventions.positions",
    "AblateDirection": "fluoroscope.interventions.edits",
    "ActivationCache": "fluoroscope.activations.capture",
    "ActivationStore": "fluoroscope.activations.store",
    "ActivationStream": "fluoroscope.activations.stream",
    "AddDirection": "fluoroscope.interventions.edits",
    "GENERATED": "fluoroscope.interventions.positions",
    "Generation": "fluoroscope.models.generation",
    "HookPoint": "fluoroscope.models.hook_points",
    "LAST": "fluoroscope.interventions.positions",
    "LanguageModel": "fluoroscope.models.language_model",
    "MeanAblate": "fluoroscope.interventions.edits",
    "PROMPT": "fluoroscope.interventions.positions",
    "Replace": "fluoroscope.interventions.edits",
    "Request": "fluoroscope.models.generation",
    "SAETrainer": "fluoroscope.sae.training",
    "Sampling": "fluoroscope.models.sampling",
    "ScaleLatent": "fluoroscope.sae.latent_edits",
    "Screen": "fluoroscope.interventions.screening",
    "SetLatent": "fluoroscope.sae.latent_edits",
    "SparseAutoencoder": "fluoroscope.sae.base",
    "SteeringVector": "fluoroscope.interventions.vectors",
    "capture": "fluoroscope.activations.capture",
    "generate": "fluoroscope.models.generation",
    "load_sae": "fluoroscope.sae.formats.native",
    "load_vector": "fluoroscope.interventions.vectors",
    "row_edits": "fluoroscope.interventions.row_edits",
    "save_sae": "fluoroscope.sae.formats.native",
    "save_vector": "fluoroscope.interventions.vectors",
    "steer": "fluoroscope.interventions.steering",
}

__all__ = [
    "ALL",
    "GENERATED",
    "LAST",
    "PROMPT",
    "AblateDirection",
    "ActivationCache",
    "ActivationStore",
    "ActivationStream",
    "AddDirection",
    "Generation",
    "HookPoint",
    "LanguageModel",
    "MeanAblate",
    "Replace",
    "Request",
    "SAETrainer",
    "Sampling",
    "ScaleLatent",
    "Screen",
    "SetLatent",
    "SparseAutoencoder",
    "SteeringVector",
    "capture",
    "generate",
    "load_sae",
    "load_vector",
    "row_edits",
    "save_sae",
    "save_vector",
    "steer",
]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
