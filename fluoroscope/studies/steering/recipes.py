"""Recipe: how a steering vector is made, as settings; this module is free of torch."""

from typing import Literal

from pydantic import Field, PositiveInt

from fluoroscope.core.config import Config

Action = Literal["add", "clamp"]
"""`add` adds the same everywhere (CorrSteer); `clamp` moves a latent, or the component along a
direction, towards the value aimed at, and leaves alone what is there already."""


class Recipe(Config):
    """One way to steer, and what it is compared by."""

    name: str = Field(min_length=1, pattern=r"\S")
    """Names it in tables; unique in a run."""

    method: str
    """`corrsteer-s`, `corrsteer-a`, `corrsteer-p`, `caa`, `probe`..."""

    action: Action = "add"

    pool: Literal["max", "mean", "last"] = "max"
    """Which pooled latents r is of."""

    sign: Literal["positive", "negative", "either"] = "positive"
    """Which latents may be picked: those that go along with success (as in the paper), with
    failure (to be steered away from), or either."""

    coefficient: Literal["positive", "active", "difference", "quantile"] = "positive"
    """What a latent's amount is taken from; see `features/correlation_selection.py`."""

    layers: list[str] | None = None
    """Hook points that it may use; all, if not given."""

    samples: PositiveInt | None = None
    """Training samples that it may look at, the first by seed; all, if not given."""

    strength: float | None = Field(default=None, allow_inf_nan=False)
    """Times the amounts; searched on the validation side, if not given."""

    control: bool = False
    """Whether it stands there to be beaten."""

    varied: bool = False
    """Whether it is the main recipe with one setting changed, judged on the main task alone."""
