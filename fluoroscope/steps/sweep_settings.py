"""Settings of a sweep that users and steps share; this module is free of torch."""

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from fluoroscope.core.config import Config
from fluoroscope.models.sampling_config import SamplingConfig


class SweepTexts(Config):
    """How the texts of a cell are written."""

    trials: PositiveInt = 10
    """Texts a cell; trial t of a prompt draws by the same luck in every cell."""

    max_tokens: PositiveInt = 20
    """Tokens of a text, at most."""

    stop: list[str] = Field(default_factory=list)
    """A text ends before the first of these strings."""

    may_echo: bool = False
    """Allows a stop string that the prompt itself begins with."""

    sampling: SamplingConfig = SamplingConfig()

    tile: PositiveInt = 1024
    """Texts that are decoded together and kept together; part of what is hashed, as it decides
    how floating point rounds."""

    @model_validator(mode="after")
    def _trials_differ(self) -> "SweepTexts":
        is_fixed = self.sampling.temperature == 0 or self.sampling.top_k == 1
        if is_fixed and self.trials > 1:
            raise ValueError(
                f"without chance all {self.trials} trials of a cell would be one text, counted as "
                "many; set texts.trials=1"
            )
        return self


class SweepControls(Config):
    """Edits that an effect of latents must exceed."""

    reconstruction: bool = True
    """The SAE's reconstruction in place of the activation, no latent edited."""

    n_random: NonNegativeInt = 20
    """For so many latents of each SAE, as much change along the decoder of another."""
