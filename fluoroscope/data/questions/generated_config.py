"""How question sets are made that are made and not read; this module is free of torch."""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from fluoroscope.core.config import Config
from fluoroscope.data.corpus_config import Split

N_KINDS = 48
"""Words for kinds that `deduction` has."""

_MOST_NODES_OF_EDGES = 64


class DepthConfig(Config):
    """How many steps an answer takes; every depth has as many questions."""

    train_depth: PositiveInt = 6
    """Of training and validation at most."""

    test_depth: PositiveInt = 12
    """Of the test side at most."""

    @model_validator(mode="after")
    def _test_is_as_deep(self) -> "DepthConfig":
        if self.test_depth < self.train_depth:
            raise ValueError(
                f"test_depth={self.test_depth} is below train_depth={self.train_depth}; what is "
                "trained on is tested too."
            )
        return self


class PointerConfig(DepthConfig):
    """Walks: from a node, hop by hop, to where each node points (`pointer_*`)."""

    n_nodes: int = Field(default=16, ge=3, le=100)

    graph: Literal["cycle", "permutation", "function"] = "cycle"
    """Where nodes point: on one cycle through all, so that no walk comes back; on cycles of any
    length; or anywhere, so that walks run together and few nodes are the answer of most."""

    says_edges: Literal["words", "one_word"] = "words"
    """`pointer_text`: how the text tells an edge: by three words, whose reader must first learn
    what stands next to what, or by one, so that what is asked is the walk alone."""

    says_depth: Literal["repeated", "number", "not"] = "repeated"
    """How the text says its depth: by a word for every hop, filled up to as many words at every
    depth; by a number (which is a word that no training text has, if it is deeper than these); or
    not, where the model is told otherwise."""

    @model_validator(mode="after")
    def _edges_are_few_words(self) -> "PointerConfig":
        if self.says_edges == "one_word" and self.n_nodes > _MOST_NODES_OF_EDGES:
            raise ValueError(
                f"says_edges=one_word has a word for each of the n_nodes^2 edges; n_nodes must be "
                f"{_MOST_NODES_OF_EDGES} at most, got {self.n_nodes}. Take says_edges=words."
            )
        return self

    @model_validator(mode="after")
    def _walks_do_not_come_back(self) -> "PointerConfig":
        if self.graph == "cycle" and self.test_depth >= self.n_nodes:
            raise ValueError(
                f"on a cycle of n_nodes={self.n_nodes} a walk of test_depth={self.test_depth} "
                "comes back; test_depth must be below n_nodes."
            )
        return self


class DeductionConfig(DepthConfig):
    """What holds of all of a kind holds of each of it, over several kinds (`deduction`)."""

    train_depth: int = Field(default=3, ge=2)
    """Of training and validation at most; a person of a kind that something holds of is 2."""

    test_depth: int = Field(default=6, ge=2)
    n_chains: int = Field(default=3, ge=2, le=6)
    """Persons, each of other kinds; only one is asked about."""

    @model_validator(mode="after")
    def _there_are_enough_kinds(self) -> "DeductionConfig":
        needed = self.n_chains * (self.test_depth - 1) + 1
        if needed > N_KINDS:
            raise ValueError(
                f"n_chains={self.n_chains} of test_depth={self.test_depth} need {needed} kinds, "
                f"and there are words for {N_KINDS}."
            )
        return self


class GraphConfig(DepthConfig):
    """Undirected graphs in words: are two nodes linked, and how far are they (`graph_*`)."""

    train_depth: PositiveInt = 3
    """`graph_reach`: of training and validation at most."""

    test_depth: PositiveInt = 6
    """`graph_reach`: of the test side at most."""

    n_nodes: int = Field(default=16, ge=4, le=100)

    n_extra_edges: int = Field(default=3, ge=0)
    """At most, besides those that a tree has, of each part."""

    max_distance: PositiveInt = 5
    """`graph_distance`: on every side, as an answer that was never trained cannot be given."""

    @model_validator(mode="after")
    def _both_parts_are_deep_enough(self) -> "GraphConfig":
        if self.n_nodes < 2 * (self.test_depth + 1):
            raise ValueError(
                f"two parts that are test_depth={self.test_depth} deep have "
                f"{2 * (self.test_depth + 1)} nodes at least, n_nodes is {self.n_nodes}."
            )
        return self


class StoryConfig(Config):
    """Persons who go to places and carry things (`babi*`)."""

    shortest: PositiveInt = 4
    """Sentences of a story at least."""

    longest: PositiveInt = 10
    """Sentences of a story at most."""

    @model_validator(mode="after")
    def _lengths_are_in_order(self) -> "StoryConfig":
        if self.longest < self.shortest:
            raise ValueError(f"longest={self.longest} is below shortest={self.shortest}.")
        return self


class GeneratedConfig(Config):
    """Sizes of the sets that are made, and what each kind of them is like."""

    n_train: PositiveInt = 4000
    """Questions; a few less where depths would not have as many each."""

    n_validation: PositiveInt = 500
    n_test: PositiveInt = 1000
    pointer: PointerConfig = PointerConfig()
    story: StoryConfig = StoryConfig()
    deduction: DeductionConfig = DeductionConfig()
    graph: GraphConfig = GraphConfig()

    def n_of(self, split: Split) -> int:
        return {"train": self.n_train, "validation": self.n_validation, "test": self.n_test}[split]
