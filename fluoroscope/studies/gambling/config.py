"""A gambling study as it is worked on: the spec with what only the model and the SAEs know."""

from typing import Any

from fluoroscope.core.config import Config, build
from fluoroscope.core.errors import ConfigError
from fluoroscope.models.shape import ModelShape
from fluoroscope.steps.models import ModelConfig
from fluoroscope.steps.sae_sources import SAEChoice
from fluoroscope.studies.gambling.games import GAMES
from fluoroscope.studies.gambling.games.base import Game, Rules
from fluoroscope.studies.gambling.settings import (
    ContrastSettings,
    GamesSettings,
    PatchSettings,
    PathwaySettings,
    PlaySettings,
    RecordSettings,
    WordSettings,
)


class Subject(Config):
    """What is looked into."""

    model: ModelConfig | None
    """None where an endpoint or a log plays."""

    shape: ModelShape | None
    saes: list[SAEChoice]


class Table(Config):
    """The game and the conditions that are played."""

    game: str
    rules: dict[str, Any]  # Any: what the game's rules allow.
    conditions: list[str]
    """Names, in the order of the game's design; a mapping would lose its order in JSON."""

    prompt_tokens: int
    """Of the longest prompt of a first decision; what costs are reckoned with."""

    def checked_rules(self) -> Rules:
        return build(GAMES.load(self.game).rules_type, self.rules, at="game.rules.")

    def factors(self) -> list[str]:
        """Names of what conditions consist of."""
        known = GAMES.load(self.game).conditions(self.checked_rules())
        return list(known[self.conditions[0]])

    def games(self) -> dict[str, Game]:
        """Condition -> the game in it."""
        kind, rules = GAMES.load(self.game), self.checked_rules()
        known = kind.conditions(rules)
        return {name: kind(rules, known[name]) for name in self.conditions}


class GamblingConfig(Config):
    """A `GamblingSpec` with everything filled in."""

    subject: Subject
    table: Table
    play: PlaySettings
    record: RecordSettings
    contrast: ContrastSettings
    patch: PatchSettings
    games: GamesSettings
    pathway: PathwaySettings
    words: WordSettings
    seed: int
    threads: int

    @property
    def model(self) -> ModelConfig:
        if self.subject.model is None:
            raise ConfigError("No model was named (model=...), so nothing can be read inside it.")
        return self.subject.model

    @property
    def shape(self) -> ModelShape:
        if self.subject.shape is None:
            raise ConfigError("No model was named (model=...), so nothing can be read inside it.")
        return self.subject.shape

    @property
    def hook_points(self) -> list[str]:
        return [sae.hook_point for sae in self.subject.saes]

    def sae_at(self, hook_point: str) -> SAEChoice:
        return next(sae for sae in self.subject.saes if sae.hook_point == hook_point)
