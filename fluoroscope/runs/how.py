"""How a run is worked on: nothing here changes a result, so it may differ at every start."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from fluoroscope.core.config import Config, how


class How(Config):
    executor: Literal["local", "processes", "ray"] = how("local")
    """Who does the shards: this process, worker processes, or a Ray cluster."""

    workers: PositiveInt | None = how(None)
    """Workers at once; by default one for every `threads` cores, or one a GPU: several where a
    study's small trainings fit on one together."""

    devices: str = how("auto")
    """`auto` (all GPUs, else the CPU), `cpu`, or a list such as `cuda:0,cuda:1`."""

    ray_address: str | None = how(None)
    """Address of a Ray cluster to join; by default a local one is started."""

    checkpoint_s: PositiveFloat = how(60.0)
    """Seconds between two checkpoints of a long loop."""

    retries: NonNegativeInt = how(1)
    """How often a shard that failed is tried again."""

    check_fit: bool = how(True)
    """Refuse to start what the plan says memory or disk cannot hold."""

    verify: bool = how(True)
    """Check the SHA-256 of what was finished before going on; off, only that it is there."""
