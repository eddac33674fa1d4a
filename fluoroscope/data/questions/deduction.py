"""Deduction, as bAbI's task 15 (arXiv:1502.05698) and deeper: of what kind is somebody, and what
holds of that kind?

`Max is a wug. Each wug is a blick. Each blick fears cats.` Several persons are told of, each with
kinds of their own and as many of them, in a random order of sentences; one is asked about. The hops
are the kinds on the way, and what is feared. Words for kinds are made up and mean nothing. Other
kinds, of which nobody is, make texts of all depths as long.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fluoroscope.data.corpus_config import Split
from fluoroscope.data.questions.made import DrawnSet, MadeDraft, depths_of

PEOPLE = ("Max", "Ida", "Tom", "Eva", "Ben", "Lea")
FEARED = ("cats", "dogs", "mice", "wolves", "snakes", "sheep")
_SYLLABLES = (("wu", "bli", "da", "zo", "fe", "ki", "lo", "va"), ("g", "ck", "x", "rp", "p", "sh"))
KINDS = tuple(first + last for first in _SYLLABLES[0] for last in _SYLLABLES[1])


@dataclass(frozen=True, kw_only=True)
class DeductionSet(DrawnSet):
    @property
    def choices(self) -> tuple[str, ...]:
        return FEARED

    def depths(self, split: Split) -> Sequence[int]:
        return depths_of(self.generated.deduction, split, first=2)

    def draft(self, luck: np.random.Generator, depth: int, number: int) -> MadeDraft | None:
        n, deepest = self.generated.deduction.n_chains, self.generated.deduction.test_depth
        people = [PEOPLE[i] for i in luck.permutation(len(PEOPLE))[:n]]
        some = luck.permutation(len(KINDS))
        kinds = some[: n * (depth - 1)].reshape(n, depth - 1).tolist()
        rest = some[n * (depth - 1) : n * (deepest - 1) + 1].tolist()
        wanted = number % len(FEARED)
        others = [i for i in luck.permutation(len(FEARED)).tolist() if i != wanted]
        sentences = [f"Each {KINDS[a]} is a {KINDS[b]}." for a, b in pairwise(rest)]
        for person, places, feared in zip(people, kinds, [wanted, *others], strict=False):
            chain = [KINDS[i] for i in places]
            sentences.append(f"{person} is a {chain[0]}.")
            sentences += [f"Each {a} is a {b}." for a, b in pairwise(chain)]
            sentences.append(f"Each {chain[-1]} fears {FEARED[feared]}.")
        order = luck.permutation(len(sentences)).tolist()
        told = " ".join(sentences[i] for i in order)
        hops = (*(KINDS[i] for i in kinds[0]), FEARED[wanted])
        source = f"story: {told} Question: What does {people[0]} fear?"
        return MadeDraft(" ".join(sorted(sentences)), people[0], source, hops)


DEDUCTION = DeductionSet(name="deduction")
