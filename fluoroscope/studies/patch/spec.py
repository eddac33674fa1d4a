"""What a user says of a sweep; this module is free of torch."""

from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt, field_validator

from fluoroscope.core.config import Config
from fluoroscope.models.model_spec import ModelSpec
from fluoroscope.models.sampling_config import SamplingConfig


class PatchSpec(Config):
    """`fluoro sweep patch`: set each of many latents to each of some values, and let the model
    write.

    The grid is latent x value x prompt x trial. Every cell of it is a few texts, kept as they
    are in `sweep/cells.parquet`; what they mean is read from them afterwards (`outcomes`).
    """

    model: ModelSpec
    """The model that writes; `model=organism`, a folder, or a hub id."""

    sae: str | list[str]
    """A folder with an SAE or with several (a dictionary run, by name or folder), a list of such,
    or `organism:batch_topk`."""

    hook_points: str | list[str] | None = None
    """Which SAEs of those are used: `3.resid_post`; all that are found, if not given."""

    latents: str | list[int] = "all"
    """Latents of every SAE (`0-299`, `[3, 17]`, `all`), or a csv file with the columns
    `hook_point` and `latent`, and one more for every value that latents have of their own."""

    values: str | list[str | float] | None = None
    """What each latent is set to (`[0, 4, 8]`), or multiplied with where there is a `*` before the
    number (`"*2"`); or the names of such columns of the csv file, by default all of them."""

    prompts: str | list[str]
    """A list of texts; a .txt (a prompt a line), .jsonl, .csv or .parquet file with a column
    `text` and perhaps `id`; or `organism:risk` (known, bias, sentiment)."""

    n_prompts: PositiveInt | None = None
    """How many of them are used; all of a file or list, 20 of the organism's, if not given."""

    trials: PositiveInt = 10
    """Texts a cell."""

    sampling: SamplingConfig = SamplingConfig()

    max_tokens: PositiveInt = 20

    stop: list[str] = []
    """A text ends before the first of these strings."""

    may_echo: bool = False
    """Allows a stop string that the prompt itself begins with."""

    positions: str = "LAST | GENERATED"
    """Where edits act: PROMPT, LAST, GENERATED, ALL, at(0,-1), after(TEXT), joined by |."""

    reconstruction: bool = True
    """Control: the SAE's reconstruction in place of the activation, no latent edited."""

    n_random: NonNegativeInt = 20
    """Control: for so many latents of each SAE, as much change along the decoder of another."""

    outcomes: dict[str, str] = {}
    """Name -> a regular expression that is looked for in each text, such as
    `outcomes.stop="^ ?Stop"`; their shares are compared with the baseline's."""

    seed: NonNegativeInt = 0
    """Of all texts; a prompt's trial draws the same luck in every cell."""

    tile: PositiveInt = 1024
    """Texts that are decoded together and kept together; part of what is hashed, as it decides
    how floating point rounds."""

    threads: PositiveInt = 1
    """Threads of each worker."""

    @field_validator("prompts")
    @classmethod
    def _prompts_are_there(cls, value: str | list[str]) -> str | list[str]:
        is_file = isinstance(value, str) and not value.startswith("organism:")
        if is_file and not Path(value).suffix:
            raise ValueError(
                f"{value!r} is no file of prompts; give texts as a list: "
                'prompts=["Once upon a time"].'
            )
        return value
