"""The organism: a small language model whose inside is known, and the world it lives in.

`load()` gives the model, its SAEs, its world and its truth; the names are loaded when first used.
"""

from typing import TYPE_CHECKING

from fluoroscope.core.lazy_names import lazy_names

if TYPE_CHECKING:
    from fluoroscope.organism.shipping import Organism, load, load_truth
    from fluoroscope.organism.trials import Score, Trials
    from fluoroscope.organism.truth import Candidate, Truth, direction, latents
    from fluoroscope.organism.world import World

_HOMES = {
    "Candidate": "fluoroscope.organism.truth",
    "Organism": "fluoroscope.organism.shipping",
    "Score": "fluoroscope.organism.trials",
    "Trials": "fluoroscope.organism.trials",
    "Truth": "fluoroscope.organism.truth",
    "World": "fluoroscope.organism.world",
    "direction": "fluoroscope.organism.truth",
    "latents": "fluoroscope.organism.truth",
    "load": "fluoroscope.organism.shipping",
    "load_truth": "fluoroscope.organism.shipping",
}

__all__ = [
    "Candidate",
    "Organism",
    "Score",
    "Trials",
    "Truth",
    "World",
    "direction",
    "latents",
    "load",
    "load_truth",
]


__getattr__ = lazy_names(__name__, _HOMES)
