"""What a network replies in the organism's world, as exact probabilities; nothing is sampled."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GPT2LMHeadModel

from fluoroscope.organism.encoding import Encoder
from fluoroscope.organism.network import lower, upper
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
        """For each prompt the probability of each text in its choices; no `<eos>` is asked for."""
        rows = [
            (self.encoder.prompt(prompt.text), self.encoder.reply(text)[:-1], i, text)
            for i, prompt in enumerate(prompts)
            for text in choices[i]
        ]
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        found: list[dict[str, float]] = [{} for _ in prompts]
        for begin in range(0, len(rows), BATCH):
            part = rows[begin : begin + BATCH]
            tokens = self.padded([[*start, *reply] for start, reply, _, _ in part])
            final = upper(self.network, lower(self.network, tokens))
            for row, (start, reply, i, text) in enumerate(part):
                at = slice(len(start) - 1, len(start) - 1 + len(reply))
                logs = self.network.lm_head(final[row, at]).double().log_softmax(dim=-1)
                wanted = torch.tensor(reply)
                found[i][text] = float(logs.gather(-1, wanted[:, None]).sum().exp())
        return found

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


def exchange(
    found: Float[Tensor, "n v"], directions: Float[Tensor, "v d_model"], which: int
) -> Edit:
    """The edit that gives row i the component `found[i, which]`, and leaves the others."""

    def edit(hidden: Tensor, decision: Tensor, part: slice) -> Tensor:
        mask = torch.zeros(len(hidden), len(directions), dtype=torch.bool)
        mask[:, which] = True
        return with_components(hidden, decision, directions, found[part], mask)

    return edit
