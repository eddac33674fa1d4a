"""Which side a sample is on: the set's own, or drawn; a group is never on two.

A set's own split is kept where what is read of it has a train and a test side. A group that
crosses it stays on the later side (test, then validation) and the rest is handed back, and where
there is no validation side a tenth of the training groups becomes it, as in CorrSteer
(arXiv:2508.12535). Everything else is drawn: half to learn from, a fifth to choose by, the rest
to judge on; CorrSteer keeps 3 % to choose by, which is 12 samples of a set of 400.

What group is where depends on the groups, their categories and the seed, not on the order of rows.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream
from fluoroscope.data.corpus_config import SPLITS, Split
from fluoroscope.data.rows import LeftOut
from fluoroscope.data.tasks.samples import Sample

Splitting = Literal["own", "drawn"]
"""Whether a set's own split is kept where it has one."""


class Found(NamedTuple):
    """A sample with where it is from, and the side that the set has it on."""

    where: str
    own: Split | None
    sample: Sample


DRAWN: Mapping[Split, float] = {"train": 0.5, "validation": 0.2, "test": 0.3}
CARVED: Mapping[Split, float] = {"train": 0.9, "validation": 0.1}
"""Of an own training side, where the set has no validation side."""


def split_of_name(stem: str, own_splits: Mapping[str, Split]) -> Split | None:
    """The side that a file's name (`anatomy_test`) or the hub's split says, if any."""
    words = re.split(r"[_\-. ]+", stem.casefold())
    return next((side for word, side in own_splits.items() if word in words), None)


def split_samples(
    found: Sequence[Found], splitting: Splitting, seed: int
) -> tuple[list[Sample], list[LeftOut]]:
    """The samples, each with its side, and those of groups that were on another side already."""
    samples, own = [one.sample for one in found], [one.own for one in found]
    if splitting == "drawn" or None in own or not {"train", "test"} <= set(own):
        sides = drawn_sides(samples, DRAWN, seed)
        return [replace(one, split=sides[one.group_id]) for one in samples], []
    home: dict[str, Split] = {}
    for side in SPLITS:
        # From the first side to the last: the last one that a group is on stays.
        home |= {one.sample.group_id: side for one in found if one.own == side}
    left_out = [
        LeftOut(where, f"its group is on the {home[sample.group_id]} side too")
        for where, side, sample in found
        if side != home[sample.group_id]
    ]
    kept = [s for s, side in zip(samples, own, strict=True) if side == home[s.group_id]]
    if "validation" not in own:
        learnt = [sample for sample in kept if home[sample.group_id] == "train"]
        home |= drawn_sides(learnt, CARVED, seed)
    return [replace(sample, split=home[sample.group_id]) for sample in kept], left_out


def drawn_sides(
    samples: Sequence[Sample], shares: Mapping[Split, float], seed: int
) -> dict[str, Split]:
    """Group -> side, with about these shares of the samples; categories are spread evenly."""
    sizes = Counter(sample.group_id for sample in samples)
    category: dict[str, str] = {}
    for sample in sorted(samples, key=lambda one: one.id):
        category.setdefault(sample.group_id, sample.category)
    members: dict[str, list[str]] = {}
    for group in sorted(sizes):
        members.setdefault(category[group], []).append(group)
    sides: dict[str, Split] = {}
    have: dict[Split, int] = dict.fromkeys(shares, 0)
    for name in sorted(members):
        groups = members[name]
        for place in stream(seed, "task split", name).permutation(len(groups)).tolist():
            group = groups[place]
            total = sum(have.values()) + sizes[group]
            # The side that is furthest behind its share.
            side = max(have, key=lambda one: shares[one] * total - have[one])
            sides[group], have[side] = side, have[side] + sizes[group]
    return sides


def check_apart(samples: Sequence[Sample]) -> None:
    """Refuses samples of one group on two sides."""
    sides: dict[str, set[Split]] = {}
    for sample in samples:
        sides.setdefault(sample.group_id, set()).add(sample.split)
    both = sorted(group for group, found in sides.items() if len(found) > 1)
    if both:
        raise ConfigError(
            f"{len(both)} groups have samples on two sides of the split, the first of them "
            f"{both[0]!r}. Split with Task.read, or by group."
        )
