"""A question set that is made: a pure function of its settings and a seed.

Every depth of a side has as many questions, and answers take turns. A group (a graph, a story) has
a home side that a hash of it and the seed tells, so that no two sides share one; within a side no
question is there twice.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import derive_seed, stream
from fluoroscope.data.corpus_config import SPLITS, Split
from fluoroscope.data.documents import text_id
from fluoroscope.data.labelled.base import Origin
from fluoroscope.data.questions.base import SEED, GatheredQuestions, QuestionSet, check_sides
from fluoroscope.data.questions.generated_config import DepthConfig, GeneratedConfig
from fluoroscope.data.questions.question import Kind, Question, question_id

_HOMES: Sequence[Split] = ("train", "train", "validation", "test")
_MOST_IN_VAIN = 5000


class MadeDraft(NamedTuple):
    group: str
    """What no two sides share, however it is told in the text."""

    asks: str
    """What is asked of the group; nothing is asked twice of it at one depth."""

    source: str
    hops: tuple[str, ...]
    """The last is the answer."""


@dataclass(frozen=True, kw_only=True)
class MadeSet(QuestionSet):
    name: str
    generated: GeneratedConfig = field(default_factory=GeneratedConfig)
    kind: Kind = "choice"
    is_made: bool = True

    def with_settings(self, generated: GeneratedConfig) -> Self:
        return replace(self, generated=generated)

    @abstractmethod
    def depths(self, split: Split) -> Sequence[int]: ...

    @abstractmethod
    def questions(self, seed: int) -> Iterator[Question]:
        """With their sides."""

    def item_space(self) -> int | None:
        """How many different questions there are on all sides; None where nobody counted."""
        return None

    def notes(self) -> tuple[str, ...]:
        n = self.item_space()
        return () if n is None else (f"There are {n:,} different questions of this kind",)

    def read(self, place: Path | str | None = None, *, seed: int = SEED) -> GatheredQuestions:
        if place:
            raise ConfigError(
                f"{self.name} is made and read from nowhere, got {place}. Leave the path out."
            )
        items = tuple(self.questions(seed))
        check_sides(items, self.name)
        origins: dict[Split, Origin] = dict.fromkeys(SPLITS, "drawn")
        return GatheredQuestions(
            self.name, items, (), self.kind, self.choices, origins, self.notes()
        )

    def n_each(self, split: Split) -> int:
        """Questions of each depth."""
        n, depths = self.generated.n_of(split), self.depths(split)
        if n < len(depths):
            raise ConfigError(
                f"n_{split}={n} questions of {self.name} cannot be of {len(depths)} depths; one "
                "each at least."
            )
        return n // len(depths)

    def made(
        self, draft: MadeDraft, split: Split, depth: int, copy: int = 1, says_depth: bool = True
    ) -> Question:
        """`copy` numbers questions that are there several times."""
        name = question_id(self.name, draft.source, None if says_depth else depth)
        return Question(
            id=name if copy == 1 else f"{name}-{copy}",
            group_id=text_id(draft.group),
            split=split,
            source=draft.source,
            target=draft.hops[-1],
            choices=self.choices,
            depth=depth,
            hops=draft.hops,
        )


class DrawnSet(MadeSet):
    """Of which there are so many that each question is drawn anew."""

    @abstractmethod
    def draft(self, luck: np.random.Generator, depth: int, number: int) -> MadeDraft | None:
        """A question of this depth, the `number`-th, which says whose turn it is among answers;
        None where this time there is none.
        """

    def questions(self, seed: int) -> Iterator[Question]:
        seen: set[tuple[str, str, int]] = set()
        for split in SPLITS:
            n = self.n_each(split)
            for depth in self.depths(split):
                for number in range(n):
                    draft = self._new(seed, split, depth, number, seen)
                    seen.add((draft.group, draft.asks, depth))
                    yield self.made(draft, split, depth, says_depth=self.says_depth)

    def _new(
        self, seed: int, split: Split, depth: int, number: int, seen: set[tuple[str, str, int]]
    ) -> MadeDraft:
        luck = stream(seed, self.name, split, depth, number)
        for _ in range(_MOST_IN_VAIN):
            draft = self.draft(luck, depth, number)
            if draft is None or home(draft.group, seed) != split:
                continue
            if (draft.group, draft.asks, depth) not in seen:
                return draft
        raise ConfigError(
            f"{self.name} finds no new question of depth {depth} for its {split} side after "
            f"{number} of them and {_MOST_IN_VAIN:,} trials. Ask for fewer, or for larger ones."
        )

    @property
    def says_depth(self) -> bool:
        """Whether the text of a question tells its depth."""
        return True


def home(group: str, seed: int) -> Split:
    """The side of a group: half of all are trained on."""
    return _HOMES[derive_seed(seed, "home", group) % len(_HOMES)]


def depths_of(config: DepthConfig, split: Split, first: int = 1) -> range:
    return range(first, (config.test_depth if split == "test" else config.train_depth) + 1)
