"""What a user says of the gambling study; this module is free of torch."""

from typing import Any

from pydantic import Field, NonNegativeInt, PositiveInt

from fluoroscope.core.config import Config
from fluoroscope.models.model_spec import ModelSpec
from fluoroscope.steps.saes_spec import SAEsSpec
from fluoroscope.studies.gambling.settings import (
    ContrastSettings,
    GamesSettings,
    PatchSettings,
    PathwaySettings,
    PlaySettings,
    RecordSettings,
    WordSettings,
)


class GameSpec(Config):
    """Which game; a bare text is the `name`."""

    bare = "name"

    name: str = "slot_machine"
    """`slot_machine`, `investment`, `coin_flip`, `mystery_wheel` or `blackjack`."""

    rules: dict[str, Any] = Field(default_factory=dict)  # Any: what the game's rules allow.
    """Settings of the game (`game.rules.win_probability=0.3`), checked by it."""

    conditions: list[str] | None = None
    """Conditions that are played, such as `variable-GM`; all of the game's, if not given."""


class GamblingSpec(Config):
    """`fluoro run gambling`: play games, find the latents that go with bankruptcy, and test by
    patching which of them cause the decision.
    """

    model: ModelSpec | None = None
    """The model that plays; `model=organism`, a folder, or a hub id. Not given where an endpoint
    plays (`play.endpoint`)."""

    saes: SAEsSpec = SAEsSpec()

    game: GameSpec = GameSpec()

    play: PlaySettings = PlaySettings()

    record: RecordSettings = RecordSettings()

    contrast: ContrastSettings = ContrastSettings()

    patch: PatchSettings = PatchSettings()

    games: GamesSettings = GamesSettings()

    pathway: PathwaySettings = PathwaySettings()

    words: WordSettings = WordSettings()

    seed: NonNegativeInt = 0
    """Of luck, of tokens, of splits, controls and intervals."""

    threads: PositiveInt = 1
    """Threads of each worker; part of what is hashed, as it decides how sums round."""
