"""What a user says of a sweep; this module is free of torch."""

from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from fluoroscope.core.config import Config
from fluoroscope.models.model_spec import ModelSpec
from fluoroscope.steps.sweep_settings import SweepControls, SweepTexts


class PromptsSpec(Config):
    """Which prompts; a bare text or list is the `source`."""

    bare = "source"

    source: str | list[str]
    """A list of texts; a .txt (a prompt a line), .jsonl, .csv or .parquet file with a column
    `text` and perhaps `id`; or `organism:risk` (known, bias, sentiment)."""

    n: PositiveInt | None = None
    """How many of them are used; all of a file or list, 20 of the organism's, if not given."""

    @field_validator("source")
    @classmethod
    def _looks_like_prompts(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, list) or value.startswith("organism:"):
            return value
        if not Path(value).suffix:
            raise ValueError(
                f"{value!r} is no file of prompts; give texts as a list: "
                'prompts=["Once upon a time"].'
            )
        return value


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

    positions: str = "LAST | GENERATED"
    """Where edits act: PROMPT, LAST, GENERATED, ALL, at(0,-1), after(TEXT), joined by |."""

    prompts: PromptsSpec
    """What the model goes on from; `prompts=FILE` is short for `prompts.source=FILE`."""

    texts: SweepTexts = SweepTexts()

    controls: SweepControls = SweepControls()

    outcomes: dict[str, str] = Field(default_factory=dict)
    """Name -> a regular expression that is looked for in each text, such as
    `outcomes.stop="^ ?Stop"`; their shares are compared with the baseline's."""

    seed: NonNegativeInt = 0
    """Of all texts."""

    threads: PositiveInt = 1
    """Threads of each worker; part of what is hashed, as it decides how sums round."""
