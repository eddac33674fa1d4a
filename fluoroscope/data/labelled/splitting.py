"""Which side an example is on: the set's own where it has one, else drawn.

`sound`: a text said to be of two classes is left out; a group that crosses the set's own sides
stays on the later one (test, then validation); a text is there once. A set without a training side
is drawn anew as a whole. A missing test side is a fifth of what there is to train on, then a
missing validation side a tenth: whole groups, each class with its share.

`paper`, as PiFi (arXiv:2506.07424) has it: nothing is left out or kept together, and a missing
validation side is a fifth of the training rows, whatever their classes. Its code drew them with
the state that a global generator happened to be in; here they depend on the seed alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from fluoroscope.core.seeding import stream
from fluoroscope.data.corpus_config import SPLITS, Split
from fluoroscope.data.labelled.example import Example, Splitting
from fluoroscope.data.labelled.sampling import some_groups
from fluoroscope.data.rows import LeftOut

TEST_SHARE = 0.2
VALIDATION_SHARE: Mapping[Splitting, float] = {"sound": 0.1, "paper": 0.2}


class Found(NamedTuple):
    """An example with where it is from, and the side that the set has it on."""

    where: str
    own: Split | None
    example: Example


@dataclass(frozen=True)
class PaperSides:
    """Where the paper's sides of a set are not what is said above."""

    n_last: int = 0
    """Rows at the end of the training side that are its validation side."""

    test_parts: tuple[str, ...] | None = None
    """The parts of the test side that are read; None is all."""


class Sides(NamedTuple):
    examples: list[Example]
    left_out: list[LeftOut]
    origins: dict[Split, Literal["own", "drawn"]]


def split_examples(
    found: Sequence[Found], splitting: Splitting, seed: int, paper: PaperSides | None = None
) -> Sides:
    """Every example with its side; what is on none is handed back with the reason."""
    own = {one.own for one in found}
    if None in own or "train" not in own:
        found, own = [one._replace(own="train") for one in found], set()
    if splitting == "paper":
        kept, left_out = _of_paper(found, paper or PaperSides())
        own |= {one.own for one in kept} if own else set()
    else:
        kept, left_out = _sound(found)
    examples = [replace(one.example, split=one.own or "train") for one in kept]
    if "test" not in own:
        examples = _drawn(examples, "test", TEST_SHARE, seed)
    if "validation" not in own:
        share = VALIDATION_SHARE[splitting]
        draw = _drawn_rows if splitting == "paper" else _drawn
        examples = draw(examples, "validation", share, seed)
    return Sides(examples, left_out, {side: "own" if side in own else "drawn" for side in SPLITS})


def _sound(found: Sequence[Found]) -> tuple[list[Found], list[LeftOut]]:
    labels: dict[str, set[int]] = {}
    for _, _, example in found:
        labels.setdefault(example.id, set()).add(example.label)
    agreed = [one for one in found if len(labels[one.example.id]) == 1]
    home: dict[str, Split] = {}
    for side in SPLITS:
        # From the first side to the last: the last one that a group is on stays.
        home |= {one.example.group_id: side for one in agreed if one.own == side}
    kept: list[Found] = []
    left_out: list[LeftOut] = []
    seen: set[str] = set()
    for one in found:
        where, side, example = one
        if len(labels[example.id]) > 1:
            left_out.append(LeftOut(where, "the same text has two labels"))
        elif side != home[example.group_id]:
            left_out.append(
                LeftOut(where, f"its group is on the {home[example.group_id]} side too")
            )
        elif example.id in seen:
            left_out.append(LeftOut(where, "the same text came before"))
        else:
            kept.append(one)
            seen.add(example.id)
    return kept, left_out


def _of_paper(found: Sequence[Found], paper: PaperSides) -> tuple[list[Found], list[LeftOut]]:
    train = [place for place, one in enumerate(found) if one.own == "train"]
    last = set(train[len(train) - paper.n_last :])
    kept: list[Found] = []
    left_out: list[LeftOut] = []
    for place, one in enumerate(found):
        part = one.example.part
        if one.own == "test" and paper.test_parts is not None and part not in paper.test_parts:
            left_out.append(LeftOut(one.where, f"the paper does not test on the part {part!r}"))
        else:
            kept.append(one._replace(own="validation") if place in last else one)
    return _numbered(kept), left_out


def _numbered(found: Sequence[Found]) -> list[Found]:
    """With ids of their own for texts that are there more than once: the number of each behind it,
    counted over sides and labels and not over rows, which may come in any order.
    """
    counts: Counter[str] = Counter()
    named: dict[int, Found] = {}
    order = sorted(
        range(len(found)),
        key=lambda place: (found[place].own or "", found[place].example.part,
                           found[place].example.label),
    )  # fmt: skip
    for place in order:
        one = found[place].example
        counts[one.id] += 1
        suffix = f"-{counts[one.id]}" if counts[one.id] > 1 else ""
        named[place] = found[place]._replace(example=replace(one, id=f"{one.id}{suffix}"))
    return [named[place] for place in range(len(found))]


def _drawn(examples: list[Example], side: Split, share: float, seed: int) -> list[Example]:
    train = [one for one in examples if one.split == "train"]
    taken = some_groups(train, round(share * len(train)), seed, f"labelled {side}")
    return [
        replace(one, split=side) if one.split == "train" and one.group_id in taken else one
        for one in examples
    ]


def _drawn_rows(examples: list[Example], side: Split, share: float, seed: int) -> list[Example]:
    train = sorted(one.id for one in examples if one.split == "train")
    order = stream(seed, f"labelled rows {side}").permutation(len(train))
    taken = {train[place] for place in order[: round(share * len(train))].tolist()}
    return [
        replace(one, split=side) if one.split == "train" and one.id in taken else one
        for one in examples
    ]
