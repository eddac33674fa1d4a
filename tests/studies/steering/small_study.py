"""The whole steering study at a size for tests: two layers, few samples and methods."""

from fluoroscope.core.config import build
from fluoroscope.studies.steering.spec import SteeringSpec

SMALL = {
    "model": "organism",
    "saes": {"source": "organism:batch_topk", "hook_points": "2-3.resid_post"},
    "task": {"name": "organism-bias", "limit": 40},
    "against": ["caa", "random-latents"],
    "steer": {"action": "clamp", "sign": "either", "coefficient": "active"},
    "collect": {"samples_per_shard": 16, "shuffles": 20, "resamples": 5, "min_active": 4},
    "strength": {"towards": 0.5, "grid": [1.0], "refinements": 0, "n_texts": 4},
    "evaluate": {"within": "is_biased", "ablations": False, "draws": 1, "sweep": [2.0]},
}


def small_spec(**changes: object) -> SteeringSpec:
    return build(SteeringSpec, {**SMALL, **changes})
