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
    from fluoroscope.models.hook_points import HookPoint
    from fluoroscope.models.language_model import LanguageModel
    from fluoroscope.sae.base import SparseAutoencoder
    from fluoroscope.sae.formats.native import load_sae, save_sae
    from fluoroscope.sae.training import SAETrainer

__version__ = "0.1.0"

_HOMES = {
    "ActivationCache": "fluoroscope.activations.capture",
    "ActivationStore": "fluoroscope.activations.store",
    "ActivationStream": "fluoroscope.activations.stream",
    "HookPoint": "fluoroscope.models.hook_points",
    "LanguageModel": "fluoroscope.models.language_model",
    "SAETrainer": "fluoroscope.sae.training",
    "SparseAutoencoder": "fluoroscope.sae.base",
    "capture": "fluoroscope.activations.capture",
    "load_sae": "fluoroscope.sae.formats.native",
    "save_sae": "fluoroscope.sae.formats.native",
}

__all__ = [
    "ActivationCache",
    "ActivationStore",
    "ActivationStream",
    "HookPoint",
    "LanguageModel",
    "SAETrainer",
    "SparseAutoencoder",
    "capture",
    "load_sae",
    "save_sae",
]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
