"""How the next token is drawn, as settings; this module is free of torch."""

from pydantic import Field, PositiveInt

from fluoroscope.core.config import Config


class SamplingConfig(Config):
    """The default is the model's own distribution."""

    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Logits are divided by it; 0 takes the likeliest token."""

    top_k: PositiveInt | None = None
    """Only the k likeliest tokens; of equally likely ones the first."""

    top_p: float | None = Field(default=None, gt=0, le=1)
    """Only the likeliest tokens that together reach this probability (Holtzman et al. 2020)."""
