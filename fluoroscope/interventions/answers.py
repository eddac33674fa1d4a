"""The allowed answers to a prompt as a tree of tokens, and their exact probabilities."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import InterventionError
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.row_cache import RowCache

Answer = str | tuple[int, ...]
"""A text, or the tokens of one."""

ReadOn = Callable[[Tensor, Sequence[int], int, RowCache], Tensor]
"""Which rows, their tokens, how far behind the prompt, and the cache that they stand in; gives
the probabilities of the next token."""


@dataclass
class _Node:
    token: int
    children: dict[int, "_Node"] = field(default_factory=dict)
    answers: list[int] = field(default_factory=list)


class AnswerTree:
    """Answers that begin alike share their beginning."""

    def __init__(
        self,
        model: LanguageModel,
        prompt: str | tuple[int, ...],
        answers: Sequence[Answer],
    ) -> None:
        self._root = _Node(-1)
        self.n_answers = len(answers)
        if isinstance(answers, str):
            raise InterventionError(f"Answers are a list of texts; write [{answers!r}].")
        if not answers:
            raise InterventionError("No answer was given; name at least one.")
        for number, answer in enumerate(answers):
            node = self._root
            for token in answer_tokens(model, prompt, answer):
                node = node.children.setdefault(token, _Node(token))
            if node.answers:
                raise InterventionError(f"The answer {answer!r} is given twice.")
            node.answers.append(number)
        levels = self._levels()
        self.depth = len(levels) - 1
        """Tokens of the longest answer but the last."""

        self.width = max(len(level) for level in levels)
        """Beginnings that are read side by side."""

    def probabilities(
        self, first: Float[Tensor, "rows vocab"], cache: RowCache, read_on: ReadOn
    ) -> Float[Tensor, "rows answers"]:
        """`first` is the distribution behind the prompt, `cache` has a row for each of its rows."""
        n = len(first)
        found = first.new_zeros(n, self.n_answers)
        nodes, shares = [self._root], first.new_ones(n, 1)
        following = first[:, None]
        for place in range(self.depth + 1):
            # [rows, nodes of this level, vocab] -> the children that are read on or end here.
            parents, children = self._children(nodes)
            tokens = torch.tensor([child.token for child in children], device=first.device)
            reached = shares[:, parents] * following[:, parents, tokens]
            for column, child in enumerate(children):
                for answer in child.answers:
                    found[:, answer] = reached[:, column]
            kept = [i for i, child in enumerate(children) if child.children]
            if not kept:
                return found
            nodes, shares = [children[i] for i in kept], reached[:, kept]
            behind = [parents[i] for i in kept]
            following, cache = self._read_level(
                n, nodes, behind, place, cache, read_on, first.device
            )
            self._take_longer(found, nodes, shares, following)
        return found

    def _take_longer(
        self, found: Tensor, nodes: Sequence[_Node], shares: Tensor, following: Tensor
    ) -> None:
        """An answer that goes on to a longer one is not that answer."""
        for column, node in enumerate(nodes):
            on = following[:, column, list(node.children)].sum(dim=-1)
            for answer in node.answers:
                found[:, answer] = shares[:, column] * (1 - on)

    def _read_level(
        self,
        n: int,
        nodes: Sequence[_Node],
        parents: Sequence[int],
        place: int,
        cache: RowCache,
        read_on: ReadOn,
        device: torch.device,
    ) -> tuple[Float[Tensor, "rows nodes vocab"], RowCache]:
        width = cache.n_rows // n
        rows = torch.arange(n, device=device).repeat_interleave(len(nodes))
        behind = torch.tensor(parents, device=device).repeat(n)
        grown = RowCache(n * len(nodes), cache.n_columns)
        everywhere = torch.arange(len(rows), device=device)
        grown.copy_from(cache, rows * width + behind, everywhere, place + 1)
        tokens = [node.token for node in nodes] * n
        found = read_on(rows, tokens, place + 1, grown)
        return found.unflatten(0, (n, len(nodes))), grown

    def _children(self, nodes: Sequence[_Node]) -> tuple[list[int], list[_Node]]:
        pairs = [(i, child) for i, node in enumerate(nodes) for child in node.children.values()]
        return [parent for parent, _ in pairs], [child for _, child in pairs]

    def _levels(self) -> list[list[_Node]]:
        """The nodes that have children, level by level."""
        levels = [[self._root]]
        while True:
            children = [child for node in levels[-1] for child in node.children.values()]
            inner = [child for child in children if child.children]
            if not inner:
                return levels
            levels.append(inner)


def answer_tokens(model: LanguageModel, prompt: str | tuple[int, ...], answer: Answer) -> list[int]:
    """What the tokenizer adds for an answer behind the prompt."""
    if not isinstance(answer, str):
        check_tokens(model, answer, f"The answer {answer!r}")
        return list(answer)
    if not isinstance(prompt, str):
        raise InterventionError(
            f"The prompt is given as tokens, so the answer {answer!r} must be as well: how a text "
            "is cut into tokens depends on what stands before it."
        )
    before = list(model.tokenizer(prompt)["input_ids"])
    both = list(model.tokenizer(prompt + answer)["input_ids"])
    if both[: len(before)] != before or len(both) == len(before):
        raise InterventionError(
            f"The answer {answer!r} does not begin a new token behind the prompt. Begin it with "
            "what stands between them, such as a space, or give its tokens as a tuple."
        )
    return both[len(before) :]


def check_tokens(model: LanguageModel, tokens: Sequence[int], name: str) -> None:
    """Raises `InterventionError` where there is no token, or one that the model does not have."""
    if len(tokens) == 0:
        raise InterventionError(f"{name} has no token; give at least one.")
    wrong = next((token for token in tokens if not 0 <= token < model.vocab_size), None)
    if wrong is not None:
        raise InterventionError(
            f"{name} has the token {wrong}; {model.name} has tokens 0 to {model.vocab_size - 1}."
        )
