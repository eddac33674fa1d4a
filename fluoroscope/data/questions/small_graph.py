"""Small undirected graphs in words: are two nodes linked (REACH), and how far are they (DISTANCE)?

REACH: a graph of two parts of one size and make; the goal is in the part of the start or in the
other. Both parts are layers around a node, `depth` deep, the start being that node of its own part
and the goal in the last layer of its part, so that a graph tells nothing of its answer but by its
links, and no less than `depth` steps tell it. A hop is what so many steps tell: `no` until the goal
is met. DISTANCE: a tree with a few more edges and two nodes that are `depth` apart; a hop is
`farther` until it is the answer. No two sides share a graph.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fluoroscope.data.corpus_config import Split
from fluoroscope.data.questions.generated_config import GraphConfig
from fluoroscope.data.questions.made import DrawnSet, MadeDraft, depths_of
from fluoroscope.data.questions.pointer_chasing import node

Edge = tuple[int, int]


def distances(edges: Iterable[Edge], start: int) -> dict[int, int]:
    """Node -> steps from `start`, of the nodes that are linked with it."""
    beside: dict[int, list[int]] = {}
    for a, b in edges:
        beside.setdefault(a, []).append(b)
        beside.setdefault(b, []).append(a)
    found, layer = {start: 0}, [start]
    while layer:
        layer = [b for b in dict.fromkeys(b for a in layer for b in beside.get(a, ()))
                 if b not in found]  # fmt: skip
        found |= dict.fromkeys(layer, max(found.values()) + 1)
    return found


def layered(nodes: Sequence[int], depth: int, n_extra: int, luck: np.random.Generator) -> set[Edge]:
    """Edges of a part around `nodes[0]`, whose farthest nodes are `depth` steps away."""
    layer = {nodes[i]: i for i in range(depth + 1)}
    edges = {(nodes[i], nodes[i + 1]) for i in range(depth)}
    for one in nodes[depth + 1 :]:
        inner = [other for other in layer if layer[other] < depth]
        beside = inner[luck.integers(len(inner))]
        layer[one] = layer[beside] + 1
        edges.add((beside, one))
    # Between neighbouring layers, where an edge makes no way shorter.
    free = [
        (a, b) for a in layer for b in layer
        if a < b and abs(layer[a] - layer[b]) <= 1 and not {(a, b), (b, a)} & edges
    ]  # fmt: skip
    taken = luck.permutation(len(free))[:n_extra].tolist()
    return edges | {free[place] for place in taken}


def told(edges: Iterable[Edge], luck: np.random.Generator) -> str:
    """The edges in a random order, and each from either end."""
    known = sorted(edges)
    parts: list[str] = []
    for place in luck.permutation(len(known)).tolist():
        ends = known[place] if luck.random() < 0.5 else known[place][::-1]
        parts.append(f"{node(ends[0])} - {node(ends[1])}")
    return " ; ".join(parts)


def _group(edges: Iterable[Edge]) -> str:
    return str(sorted(tuple(sorted(edge)) for edge in edges))


class GraphSet(DrawnSet):
    @property
    def config(self) -> GraphConfig:
        return self.generated.graph


@dataclass(frozen=True, kw_only=True)
class ReachSet(GraphSet):
    @property
    def choices(self) -> tuple[str, ...]:
        return ("yes", "no")

    def depths(self, split: Split) -> Sequence[int]:
        return depths_of(self.config, split)

    def draft(self, luck: np.random.Generator, depth: int, number: int) -> MadeDraft | None:
        nodes = luck.permutation(self.config.n_nodes).tolist()
        half = len(nodes) // 2
        parts = [nodes[:half], nodes[half : 2 * half]]
        some = [layered(part, depth, self.config.n_extra_edges, luck) for part in parts]
        edges, start = some[0] | some[1], nodes[0]
        answer = self.choices[number % 2]
        part = 0 if answer == "yes" else 1
        away = distances(some[part], parts[part][0])
        last = sorted(one for one, steps in away.items() if steps == depth)
        goal = last[luck.integers(len(last))]
        asks = f"is {node(start)} linked to {node(goal)} ?"
        source = f"path: {told(edges, luck)} . {asks}"
        return MadeDraft(_group(edges), asks, source, (*["no"] * (depth - 1), answer))


@dataclass(frozen=True, kw_only=True)
class DistanceSet(GraphSet):
    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(map(str, range(1, self.config.max_distance + 1)))

    def depths(self, split: Split) -> Sequence[int]:
        return range(1, self.config.max_distance + 1)

    def draft(self, luck: np.random.Generator, depth: int, number: int) -> MadeDraft | None:
        nodes = luck.permutation(self.config.n_nodes).tolist()
        edges = {(nodes[luck.integers(i)], nodes[i]) for i in range(1, len(nodes))}
        for _ in range(int(luck.integers(self.config.n_extra_edges + 1))):
            a, b = luck.permutation(nodes)[:2].tolist()
            edges |= set() if (b, a) in edges else {(a, b)}
        start = nodes[luck.integers(len(nodes))]
        goals = sorted(one for one, steps in distances(edges, start).items() if steps == depth)
        if not goals:
            return None
        goal = goals[luck.integers(len(goals))]
        asks = f"how far is {node(start)} from {node(goal)} ?"
        source = f"path: {told(edges, luck)} . {asks}"
        return MadeDraft(_group(edges), asks, source, (*["farther"] * (depth - 1), str(depth)))


REACH = ReachSet(name="graph_reach")
DISTANCE = DistanceSet(name="graph_distance")
