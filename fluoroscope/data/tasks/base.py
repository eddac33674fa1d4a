"""Task: samples with an answer key, the form of their prompts, and the scorer of what is replied.

A task is a file of its own and one line in `TASKS`. A score is a number in [0, 1] where 1 is what
is wanted: the right answer, the refusal that is due, the sentence without a stereotype. So the
share of stereotypes is 1 minus the mean score of the tasks that measure it.

Samples of one group are on one side of the split, whatever the set's own split says.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fluoroscope.core.errors import CorpusError
from fluoroscope.core.registry import Registry
from fluoroscope.data.corpus_config import Split
from fluoroscope.data.rows import Gathered, Hub, LeftOut, Row, UnusableRowError, counted, rows_at
from fluoroscope.data.tasks.samples import Sample, Scorer
from fluoroscope.data.tasks.splits import Found, Splitting, split_of_name, split_samples

Kind = Literal["choice", "number", "short answer", "refusal", "pairs", "judged"]
"""What a reply is judged by: an option, a number, words, a refusal, two sentences, a judge."""

_HERE = "fluoroscope.data.tasks"
_ORGANISM = "fluoroscope.organism.task_sets"
TASKS: "Registry[Task]" = Registry(
    "Task",
    {
        "bbq-ambiguous": f"{_HERE}.bbq:AMBIGUOUS",
        "bbq-disambiguated": f"{_HERE}.bbq:DISAMBIGUATED",
        "commonsenseqa": f"{_HERE}.commonsenseqa:COMMONSENSEQA",
        "crows-pairs": f"{_HERE}.crows_pairs:CROWS_PAIRS",
        "emgsd": f"{_HERE}.emgsd:EMGSD",
        "gsm8k": f"{_HERE}.gsm8k:GSM8K",
        "mmlu": f"{_HERE}.mmlu:MMLU",
        "organism-bias": f"{_ORGANISM}:BIAS",
        "organism-facts": f"{_ORGANISM}:FACTS",
        "organism-reviews": f"{_ORGANISM}:REVIEWS",
        "simpleqa": f"{_HERE}.simpleqa:SIMPLEQA",
        "stereoset": f"{_HERE}.stereoset:BOTH",
        "stereoset-intersentence": f"{_HERE}.stereoset:INTERSENTENCE",
        "stereoset-intrasentence": f"{_HERE}.stereoset:INTRASENTENCE",
        "xstest": f"{_HERE}.xstest:XSTEST",
    },
)


class Task(ABC):
    name: str
    kind: Kind
    group: str
    """What is kept on one side of a split."""

    prompt: str
    """The form of a prompt, for people to read."""

    max_tokens: int
    stop: tuple[str, ...]
    """Texts that end a reply; they are no part of it."""

    @abstractmethod
    def read(
        self, place: Path | str | None = None, *, seed: int = 0, splitting: Splitting = "own"
    ) -> Gathered[Sample]:
        """`place` is a file, a folder, `hf:NAME`, or None where the task needs none. `seed` is of
        the split, which follows the set's own where it has one unless it is to be "drawn".
        """

    @abstractmethod
    def scorer(self, place: Path | str | None = None) -> Scorer:
        """`place` is looked at by tasks whose scorer is learnt from the data (`judged`)."""


@dataclass(frozen=True, kw_only=True)
class FileTask(Task):
    """Read from files or the hub; how it is scored is left to its kind."""

    name: str
    kind: Kind
    group: str
    prompt: str
    max_tokens: int
    stop: tuple[str, ...]
    hubs: tuple[Hub, ...]
    files: tuple[str, ...]
    """What to look for in a folder; the first pattern that any file meets is read."""

    columns: Mapping[str, tuple[str, ...]]
    """Our name of a column -> the names it goes by, in files and on the hub."""

    samples: Callable[[Row], Iterable[Sample | LeftOut]]
    """What a row gives; it may raise `UnusableRowError`."""

    own_splits: Mapping[str, Split] = field(default_factory=dict)
    """Word in a file's name, or the hub's split -> its side; empty where the set has none."""

    def read(
        self, place: Path | str | None = None, *, seed: int = 0, splitting: Splitting = "own"
    ) -> Gathered[Sample]:
        if place is None:
            raise CorpusError(f"{self.name} needs a file, a folder, or hf: for the hub's copy.")
        found: list[Found] = []
        left_out: list[LeftOut] = []
        for row in rows_at(str(place), self.hubs, self.files, self.columns, self.name):
            side = split_of_name(row.stem, self.own_splits)
            try:
                for item in self.samples(row):
                    if isinstance(item, LeftOut):
                        left_out.append(item)
                    else:
                        found.append(Found(row.where, side, checked(item, self.kind)))
            except UnusableRowError as error:
                left_out.append(LeftOut(row.where, str(error)))
        kept, repeated = _without_repeats(found)
        split, crossing = split_samples(kept, splitting, seed)
        gathered = Gathered(self.name, tuple(split), (*left_out, *repeated, *crossing))
        check_usable(gathered, str(place))
        return gathered


@dataclass(frozen=True, kw_only=True)
class ScoredTask(FileTask):
    """With a scorer that needs no data."""

    scores_by: Scorer

    def scorer(self, place: Path | str | None = None) -> Scorer:
        return self.scores_by


def checked(sample: Sample, kind: Kind) -> Sample:
    """The sample if it has what its kind is judged by."""
    match kind:
        case "choice":
            has_key = bool(sample.right)
        case "pairs":
            has_key = {"stereotype", "anti-stereotype"} <= set(sample.roles)
        case "judged":
            has_key = True
        case _:
            has_key = any(reference.strip() for reference in sample.references)
    if not has_key:
        raise UnusableRowError("it has no answer key")
    return sample


def check_usable(gathered: Gathered[Sample], place: str) -> None:
    if gathered.items:
        return
    why = " None of its rows is of this task's kind."
    if gathered.left_out:
        first = gathered.left_out[0]
        why = f" Left out: {counted(gathered.left_out)} (first: {first.where}, {first.reason})."
    raise CorpusError(f"{place} gives nothing that {gathered.name} could use.{why}")


def _without_repeats(
    found: list[Found],
) -> tuple[list[Found], list[LeftOut]]:
    """Each prompt once, and none of those whose key is said in two ways."""
    keys: dict[str, set[tuple[object, ...]]] = {}
    for _, _, sample in found:
        keys.setdefault(sample.id, set()).add(_key(sample))
    kept, left_out, seen = [], [], set()
    for one in found:
        where, _, sample = one
        if len(keys[sample.id]) > 1:
            left_out.append(LeftOut(where, "the same prompt has two answer keys"))
        elif sample.id in seen:
            left_out.append(LeftOut(where, "the same prompt came before"))
        else:
            kept.append(one)
        seen.add(sample.id)
    return kept, left_out


def _key(sample: Sample) -> tuple[object, ...]:
    return sample.right, sample.references, sample.roles
