"""Pointer chasing: every node points to one; where does a walk of `depth` hops end?

The task whose depth is known exactly: a hop is a step, and what a reasoner holds after step `t`
can be compared with the node after hop `t`. A text that says its depth by words says `stop` from
there on, so that texts of all depths are as long and no place in a text is new to the test side.

`IN_TEXT` (pointer_text): each question has a graph of its own, told in the text edge by edge in a
random order; no two sides share a graph. `FIXED` (pointer_fixed): one graph, drawn by the seed,
which the text does not tell and the weights must hold. There are only `n_nodes` questions of each
depth. Those of depth 1 are the graph itself and are all trained on; of each other depth a quarter
are tested on and an eighth validated on, and of depths beyond training all are tested on. So test
and validation begin at depth 2, and training questions are repeated until there are `n_train`; of
fewer than `n_nodes` of each depth edges are missing, which is said.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import factorial

import numpy as np

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream
from fluoroscope.data.corpus_config import SPLITS, Split
from fluoroscope.data.questions.generated_config import PointerConfig
from fluoroscope.data.questions.made import DrawnSet, MadeDraft, MadeSet, depths_of
from fluoroscope.data.questions.question import Question

_HOP, _STOP = "next", "stop"
_TEST_PART, _VALIDATION_PART = 4, 8


def node(place: int) -> str:
    return f"n{place}"


def draw_graph(kind: str, n: int, luck: np.random.Generator) -> list[int]:
    """Where each node points, of a kind of `PointerConfig.graph`."""
    if kind == "function":
        return luck.integers(n, size=n).tolist()
    order = luck.permutation(n).tolist()
    if kind == "permutation":
        return order
    points_to = [0] * n
    for one, following in pairwise([*order, order[0]]):
        points_to[one] = following
    return points_to


def walk(points_to: Sequence[int], start: int, depth: int) -> list[int]:
    """The node after each hop."""
    found, at = [], start
    for _ in range(depth):
        at = points_to[at]
        found.append(at)
    return found


def edge(config: PointerConfig, one: int, other: int) -> str:
    if config.says_edges == "one_word":
        return f"{node(one)}to{other}"
    return f"{node(one)} > {node(other)}"


def asked(config: PointerConfig, start: int, depth: int) -> str:
    match config.says_depth:
        case "repeated":
            said = " ".join([_HOP] * depth + [_STOP] * (config.test_depth - depth))
        case "number":
            said = f"{_HOP} {depth}"
        case "not":
            said = _HOP
    return f"from {node(start)} {said}"


class PointerSet(MadeSet):
    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(map(node, range(self.config.n_nodes)))

    @property
    def config(self) -> PointerConfig:
        return self.generated.pointer


@dataclass(frozen=True, kw_only=True)
class PointersInText(PointerSet, DrawnSet):
    @property
    def says_depth(self) -> bool:
        return self.config.says_depth != "not"

    def depths(self, split: Split) -> Sequence[int]:
        return depths_of(self.config, split)

    def draft(self, luck: np.random.Generator, depth: int, number: int) -> MadeDraft | None:
        n = self.config.n_nodes
        points_to = draw_graph(self.config.graph, n, luck)
        order, starts = luck.permutation(n).tolist(), luck.permutation(n).tolist()
        start = next((s for s in starts if walk(points_to, s, depth)[-1] == number % n), None)
        if start is None:
            return None
        told = [edge(self.config, one, points_to[one]) for one in order]
        edges = (" " if self.config.says_edges == "one_word" else " ; ").join(told)
        hops = tuple(map(node, walk(points_to, start, depth)))
        source = f"follow: {edges} . {asked(self.config, start, depth)}"
        return MadeDraft(str(points_to), node(start), source, hops)

    def item_space(self) -> int:
        """Graphs, starts and depths, whichever order edges are told in."""
        n = self.config.n_nodes
        match self.config.graph:
            case "cycle":
                n_graphs = factorial(n - 1)
            case "permutation":
                n_graphs = factorial(n)
            case "function":
                n_graphs = n**n
        return n_graphs * n * self.config.test_depth


@dataclass(frozen=True, kw_only=True)
class FixedPointers(PointerSet):
    def depths(self, split: Split) -> Sequence[int]:
        return depths_of(self.config, split, first=1 if split == "train" else 2)

    def questions(self, seed: int) -> Iterator[Question]:
        config = self.config
        if config.train_depth < 2:
            raise ConfigError(
                f"{self.name} holds questions of depth 2 and more back from training; "
                f"train_depth must be 2 at least, got {config.train_depth}."
            )
        points_to = draw_graph(config.graph, config.n_nodes, stream(seed, self.name, "graph"))
        for split in SPLITS:
            for depth in self.depths(split):
                starts = self._starts(seed, split, depth)
                # What is judged by is not repeated.
                n = self.n_each(split)
                for number in range(n if split == "train" else min(n, len(starts))):
                    copy, place = divmod(number, len(starts))
                    start = starts[place]
                    draft = MadeDraft(
                        group=f"{start} {depth}",
                        asks=node(start),
                        source=f"follow: {asked(config, start, depth)}",
                        hops=tuple(map(node, walk(points_to, start, depth))),
                    )
                    says_depth = config.says_depth != "not"
                    yield self.made(draft, split, depth, copy + 1, says_depth)

    def item_space(self) -> int:
        return self.config.n_nodes * self.config.test_depth

    @property
    def n_walks(self) -> int:
        """Training questions with which each walk of a trained depth is there once."""
        return self.config.n_nodes * len(self.depths("train"))

    def notes(self) -> tuple[str, ...]:
        n, deepest, trained = self.config.n_nodes, self.config.test_depth, self.config.train_depth
        n_test, n_validation = self._n_held()
        n_edges = min(n, self.n_each("train"))
        edges = (
            "all of depth 1 are trained on"
            if n_edges == n
            else f"{n_edges} of depth 1 are trained on, and the other edges of the graph nothing "
            f"tells (raise n_train to {self.n_walks})"
        )
        return (
            f"There are {self.item_space():,} different questions of this graph ({n} starts, depths"
            f" 1 to {deepest}): {edges}, and of each depth from 2 to "
            f"{trained} {n_test} are tested on and {n_validation} validated on; of deeper ones all "
            "are tested on; those of training are repeated",
        )

    def _n_held(self) -> tuple[int, int]:
        """Held back for test and validation, of a depth that is trained."""
        n = self.config.n_nodes
        return max(1, n // _TEST_PART), max(1, n // _VALIDATION_PART)

    def _starts(self, seed: int, split: Split, depth: int) -> list[int]:
        """Of the questions of a depth that a side has, whichever sizes are asked for."""
        order = stream(seed, self.name, "sides", depth).permutation(self.config.n_nodes).tolist()
        n_test, n_validation = self._n_held()
        if split == "test":
            return order[:n_test] if depth <= self.config.train_depth else order
        if split == "validation":
            return order[n_test : n_test + n_validation]
        return order if depth == 1 else order[n_test + n_validation :]


IN_TEXT = PointersInText(name="pointer_text")
FIXED = FixedPointers(name="pointer_fixed")
