"""A labelled set: classes, where its texts are, and its sides.

A set is a file of its own and one line in `LABELLED`; `file:PATH` is a set too, of whatever table
is there. Labels are indices into `classes`, whichever numbers a file or the hub writes.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fluoroscope.core.errors import CorpusError
from fluoroscope.core.registry import Registry
from fluoroscope.data.corpus_config import HUB_PREFIX, SPLITS, Split
from fluoroscope.data.labelled.example import Example, Splitting, Task
from fluoroscope.data.labelled.sampling import some_groups
from fluoroscope.data.rows import Gathered, folder_below, hub_commit

FILE_PREFIX = "file:"
"""Begins the name of a set that is a table of the user's own."""

_HERE = "fluoroscope.data.labelled"
_ORGANISM = "fluoroscope.organism.labelled_sets"
LABELLED: "Registry[LabelledSet]" = Registry(
    "Labelled set",
    {
        "agnews": f"{_HERE}.agnews:AGNEWS",
        "cola": f"{_HERE}.cola:COLA",
        "cr": f"{_HERE}.cr:CR",
        "imdb": f"{_HERE}.imdb:IMDB",
        "imdb_cad": f"{_HERE}.imdb:IMDB_CAD",
        "mnli": f"{_HERE}.inference:MNLI",
        "mr": f"{_HERE}.mr:MR",
        "organism_inference": f"{_ORGANISM}:INFERENCE",
        "organism_reviews": f"{_ORGANISM}:REVIEWS",
        "snli": f"{_HERE}.inference:SNLI",
        "snli_cad": f"{_HERE}.inference:SNLI_CAD",
        "sst2": f"{_HERE}.sst2:SST2",
        "subj": f"{_HERE}.subj:SUBJ",
        "trec": f"{_HERE}.trec:TREC",
        "tweet_offensive": f"{_HERE}.tweets:OFFENSIVE",
        "tweet_sentiment_binary": f"{_HERE}.tweets:SENTIMENT",
    },
)

_TABLES: "Registry[Callable[[str], LabelledSet]]" = Registry(
    "Labelled set", {FILE_PREFIX: f"{_HERE}.table:table_at"}
)

Origin = Literal["own", "drawn"]


@dataclass(frozen=True)
class GatheredExamples(Gathered[Example]):
    """What was read of a set, with what only reading tells."""

    classes: tuple[str, ...] = ()
    origins: Mapping[Split, Origin] = field(default_factory=dict)
    """Whether a side is the set's own, or drawn by us."""

    task: Task = "classification"
    """Of what was read; only a table's columns tell its own."""

    def side(self, split: Split) -> list[Example]:
        return [one for one in self.items if one.split == split]

    def counts(self) -> dict[Split, dict[str, int]]:
        """Side -> class -> examples."""
        found = Counter((one.split, one.label) for one in self.items)
        return {
            side: {name: found[side, label] for label, name in enumerate(self.classes)}
            for side in SPLITS
        }


class LabelledSet(ABC):
    name: str
    task: Task
    classes: tuple[str, ...]
    """Empty where only reading tells them (`file:`)."""

    aliases: tuple[str, ...] = ()
    """Folders below the data's that hold it, besides one of its own name."""

    needs_place = True
    """False where it is made and not read."""

    @property
    def hub_id(self) -> str | None:
        """The repository of the hub that it is usually read from."""
        return None

    def task_at(self, place: Path | str | None = None) -> Task:
        """The task of what `read` would read; only a table of the user's own is looked at."""
        return self.task

    @abstractmethod
    def read(
        self, place: Path | str | None = None, *, seed: int = 0, splitting: Splitting = "sound"
    ) -> GatheredExamples:
        """`place` is a file, a folder, `hf:NAME` or `hf:NAME@REVISION`. `seed` is of the sides
        that are drawn.

        Every side has two classes at least, or this is a CorpusError.
        """


def labelled_set(name: str) -> LabelledSet:
    """A set by its name, or `file:PATH`."""
    if name.startswith(FILE_PREFIX):
        return _TABLES.load(FILE_PREFIX)(name.removeprefix(FILE_PREFIX))
    return LABELLED.load(name)


def labelled_place(name: str, data_dir: Path | str | None = None) -> str:
    """Where a set is read from: below `data_dir` or else $FLUOROSCOPE_DATA, if either has a folder
    for it; else the hub. Empty for a set that is made.
    """
    if name.startswith(FILE_PREFIX):
        return name.removeprefix(FILE_PREFIX)
    known = labelled_set(name)
    if not known.needs_place:
        return ""
    return folder_below(data_dir, name, *known.aliases) or HUB_PREFIX


def labelled_commit(name: str, data_dir: Path | str | None = None) -> str | None:
    """The newest commit of a set that is read from the hub; `hf:@COMMIT` is a place that pins it.
    None for what is not read from there, or where the hub does not say it.
    """
    hub_id = labelled_set(name).hub_id
    if hub_id is None or labelled_place(name, data_dir) != HUB_PREFIX:
        return None
    return hub_commit(hub_id)


def check_classes(examples: Sequence[Example], classes: Sequence[str], name: str) -> None:
    """Refuses a side that is empty or has one class, and a label that no class has."""
    for side in SPLITS:
        counts = Counter(one.label for one in examples if one.split == side)
        if not counts:
            raise CorpusError(
                f"{name} has nothing on its {side} side. Give more examples, or sides of its own."
            )
        unknown = sorted(label for label in counts if not 0 <= label < len(classes))
        if unknown:
            raise CorpusError(
                f"{name} has the label {unknown[0]} on its {side} side, and {len(classes)} classes."
            )
        if len(counts) < 2:
            raise CorpusError(
                f"All {counts.total()} examples on the {side} side of {name} are "
                f"{classes[next(iter(counts))]!r}. A classifier needs two classes on every side."
            )


def limited(examples: Sequence[Example], n: int, seed: int) -> list[Example]:
    """At most `n` examples of one side, in the order of their ids: whole groups, each class with
    about its share. With groups of one, exactly `n` and exact shares. The order of rows plays no
    part.
    """
    if n < 1:
        raise CorpusError(f"A side needs one example at least, got a limit of {n}.")
    ordered = sorted(examples, key=lambda one: (one.id, one.label))
    if n >= len(ordered):
        return ordered
    taken = some_groups(ordered, n, seed, "limited")
    if not taken:
        raise CorpusError(
            f"No group of examples fits a limit of {n}: groups are kept whole. Raise the limit."
        )
    return [one for one in ordered if one.group_id in taken]
