"""What a network replies in the organism's world, as exact probabilities; nothing is sampled."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GPT2LMHeadModel

from fluoroscope.organism.encoding import Encoder
from fluoroscope.organism.network import causal_mask, embedded, lower, through, upper
from fluoroscope.organism.planting import components, with_components
from fluoroscope.organism.prompts import Prompt

BATCH = 64

Edit = Callable[[Float[Tensor, "n pos d_model"], Int[Tensor, " n"], slice], Tensor]
"""Gets the planted layer's stream, the decisions and which prompts these rows are; returns it
changed."""


class Readout:
    """A network on the CPU with its encoder."""

    def __init__(self, network: GPT2LMHeadModel, encoder: Encoder) -> None:
        self.network, self.encoder = network, encoder

    @torch.no_grad()
    def outcomes(
        self, prompts: Sequence[Prompt], edit: Edit | None = None
    ) -> Float[np.ndarray, " n"]:
        """The probability of each prompt's `outcome`, after the edit if there is one."""
        found = np.zeros(len(prompts))
        for part, tokens, decision in self.batches(prompts):
            hidden = lower(self.network, tokens)
            if edit is not None:
                hidden = edit(hidden, decision, part)
            last = upper(self.network, hidden)[torch.arange(len(tokens)), decision]
            shares = self.network.lm_head(last).double().softmax(dim=-1)
            for row, prompt in enumerate(prompts[part]):
                found[part.start + row] = float(shares[row, self.outcome_tokens(prompt)].sum())
        return found

    @torch.no_grad()
    def components(
        self, prompts: Sequence[Prompt], directions: Float[Tensor, "v d_model"]
    ) -> Float[Tensor, "n v"]:
        """At the decision of each prompt, along each direction."""
        return torch.cat(
            [
                components(lower(self.network, tokens), decision, directions)
                for _, tokens, decision in self.batches(prompts)
            ]
        )

    @torch.no_grad()
    def replies(
        self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]
    ) -> list[dict[str, float]]:
        """For each prompt the probability of each text in its choices; no `<eos>` is asked for.

        A prompt is read once: its choices follow as branches that do not see each other.
        """
        found: list[dict[str, float]] = [{} for _ in prompts]
        trees = [
            _Tree(self.encoder.prompt(prompt.text), [self.encoder.reply(t)[:-1] for t in texts])
            for prompt, texts in zip(prompts, choices, strict=True)
        ]
        order = sorted(range(len(prompts)), key=lambda i: len(trees[i].tokens))
        for begin in range(0, len(order), BATCH):
            part = order[begin : begin + BATCH]
            final = self._through_trees([trees[i] for i in part])
            for i, states in zip(part, final, strict=True):
                logs = self.network.lm_head(states[trees[i].before]).double().log_softmax(dim=-1)
                read = logs.gather(-1, torch.tensor(trees[i].targets)[:, None])[:, 0]
                pieces = read.split([len(reply) for reply in trees[i].replies])
                shares = (float(piece.sum().exp()) for piece in pieces)
                found[i] = dict(zip(choices[i], shares, strict=True))
        return found

    def _through_trees(self, trees: Sequence["_Tree"]) -> Float[Tensor, "n pos d_model"]:
        tokens = self.padded([tree.tokens for tree in trees])
        positions, branch = torch.zeros_like(tokens), torch.full_like(tokens, -1)
        for row, tree in enumerate(trees):
            positions[row, : len(tree.tokens)] = torch.tensor(tree.positions)
            branch[row, : len(tree.tokens)] = torch.tensor(tree.branch)
        hidden = embedded(self.network, tokens, positions)
        sees = (branch[:, None] == 0) | (branch[:, None] == branch[..., None])
        lowest = torch.finfo(torch.float32).min
        mask = causal_mask(hidden).minimum(torch.where(sees, 0.0, lowest)[:, None])
        for block in self.network.transformer.h:
            hidden = through(block, hidden, mask)
        return self.network.transformer.ln_f(hidden)

    def outcome_tokens(self, prompt: Prompt) -> list[int]:
        """The first tokens by which the outcome is told from all other replies."""
        first: dict[bool, set[int]] = {True: set(), False: set()}
        for text in prompt.replies():
            first[prompt.outcome({text: 1.0}) == 1.0].add(self.encoder.reply(text)[0])
        assert not first[True] & first[False], "the outcome shows in the first token"
        return sorted(first[True])

    def batches(self, prompts: Sequence[Prompt]) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Which prompts, their tokens padded on the right, and the position of each decision."""
        for begin in range(0, len(prompts), BATCH):
            part = slice(begin, min(begin + BATCH, len(prompts)))
            ids = [self.encoder.prompt(prompt.text) for prompt in prompts[part]]
            yield part, self.padded(ids), torch.tensor([len(one) - 1 for one in ids])

    def padded(self, rows: Sequence[Sequence[int]]) -> Int[Tensor, "n pos"]:
        """On the right."""
        tokens = torch.full((len(rows), max(map(len, rows))), self.encoder.pad)
        for row, ids in enumerate(rows):
            tokens[row, : len(ids)] = torch.tensor(ids)
        return tokens


class _Tree:
    """A prompt and its replies in one row."""

    def __init__(self, prompt: Sequence[int], replies: Sequence[Sequence[int]]) -> None:
        self.tokens, self.replies = list(prompt), replies
        self.positions = list(range(len(prompt)))
        self.branch = [0] * len(prompt)
        """0 for the prompt, then one number a reply."""
        self.before: list[int] = []
        """Where each token of each reply is predicted."""
        self.targets: list[int] = []
        for number, reply in enumerate(replies, start=1):
            own = range(len(self.tokens), len(self.tokens) + len(reply) - 1)
            self.before += [len(prompt) - 1, *own]
            self.targets += reply
            self.tokens += reply
            self.positions += range(len(prompt), len(prompt) + len(reply))
            self.branch += [number] * len(reply)


def exchange(
    found: Float[Tensor, "n v"], directions: Float[Tensor, "v d_model"], which: int
) -> Edit:
    """The edit that gives row i the component `found[i, which]`, and leaves the others."""

    def edit(hidden: Tensor, decision: Tensor, part: slice) -> Tensor:
        mask = torch.zeros(len(hidden), len(directions), dtype=torch.bool)
        mask[:, which] = True
        return with_components(hidden, decision, directions, found[part], mask)

    return edit
