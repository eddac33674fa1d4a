"""What all baselines share: how they read, repeat and write."""

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fluoroscope.core.errors import ModelError
from fluoroscope.studies.connection.baselines.baseline_config import (
    BaselineConfig,
    LoopedConfig,
    PerceiverConfig,
)
from fluoroscope.studies.connection.network.answer_decoder import AnswerDecoder
from fluoroscope.studies.connection.network.blocks import DecoderCache, EncoderBlock, noisy
from fluoroscope.studies.connection.network.embedding import (
    Embedding,
    Neighbours,
    spread_embeddings,
)
from fluoroscope.studies.connection.network.reasoner import (
    Ids,
    Mask,
    Reasoner,
    Thought,
    Writing,
)

States = Float[Tensor, "b m d"]
Text = Float[Tensor, "b s d"]


class DecodedReasoner(Reasoner):
    """A reasoner whose answers a decoder writes that reads states."""

    max_steps = 0

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.vocab_size, self.pad_id = config.vocab_size, config.pad_id
        self.max_source, self.max_target = config.max_source, config.max_target
        self.source = Embedding(
            config.vocab_size, config.d_model, config.max_source, config.pad_id, config.dropout
        )
        n = config.neighbours
        self.neighbours = Neighbours(config.d_model, n) if n else None
        self.decoder = AnswerDecoder(
            config.vocab_size,
            config.d_model,
            config.n_decoder_layers,
            config.n_heads,
            config.max_target,
            config.pad_id,
            config.dropout,
        )
        # As that of a slot network with a decoder.
        nn.init.orthogonal_(self.decoder.head.weight)
        spread_embeddings(self, config.spread)

    def text(self, ids: Ids, mask: Mask) -> Text:
        """The text's tokens, before anything is done with them."""
        x = self.source(ids)
        return x if self.neighbours is None else self.neighbours(x, mask)

    def logits(
        self, thought: Thought, target_in: Int[Tensor, "b t"], after: int | None = None
    ) -> Float[Tensor, "b t v"]:
        n_done = len(thought.states) - 1
        most = max(n_done, self.max_steps)
        if after is not None and not 0 <= after <= most:
            raise ModelError(f"There are states after 0 to {most} steps, not after {after}.")
        # Where all texts stopped before, what they had then is what they have.
        states = thought.states[n_done if after is None else min(after, n_done)]
        return self.decoder(target_in, states, self._memory_mask(thought))

    def begin(self, thought: Thought) -> Writing:
        return Writing(thought, DecoderCache())

    def write(self, writing: Writing, last: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        thought = writing.thought
        logits = self.decoder.write(
            last,
            writing.n_written,
            thought.states[-1],
            self._memory_mask(thought),
            writing.cache,
        )
        writing.n_written += 1
        return logits

    def _memory_mask(self, thought: Thought) -> Bool[Tensor, "b m"] | None:
        return thought.mask


class RepeatingReasoner(DecodedReasoner):
    """One step for all steps; no step knows its number, so more can be done than were trained."""

    def __init__(self, config: PerceiverConfig | LoopedConfig) -> None:
        super().__init__(config)
        self.max_steps, self.noise = config.max_steps, config.noise

        self.checkpoints_steps = False
        """As in a slot network: steps are done a second time for gradients, to save memory."""

        self.text_norm = nn.LayerNorm(config.d_model)
        self.blocks = nn.ModuleList(encoder_blocks(config, config.n_layers))
        self.norm = nn.LayerNorm(config.d_model)

    @abstractmethod
    def start(self, text: Text, mask: Mask) -> States:
        """The states before the first step."""

    @abstractmethod
    def step(self, states: States, text: Text, mask: Mask) -> States:
        """The states after one more step; `mask` is the text's."""

    @abstractmethod
    def read(self, states: States) -> States:
        """What a decoder is given of states."""

    def states_mask(self, mask: Mask) -> Bool[Tensor, "b m"]:
        """Which states may be read, of a text's mask."""
        return mask

    def think(
        self, ids: Ids, mask: Mask, n_steps: int | Int[Tensor, " b"] | None = None
    ) -> Thought:
        wanted = self.max_steps if n_steps is None else n_steps
        states_mask = self.states_mask(mask)
        text = self.text_norm(self.text(ids, mask))
        states = self.start(text, mask)
        if self.training:
            states = noisy(states, self.noise)
        seen, changes = [self.read(states)], []
        for t in range(_most(wanted)):
            after = self._one_step(states, text, mask)
            if isinstance(wanted, Tensor):
                # A text that has done its steps waits for its batch mates as it is.
                after = torch.where((t < wanted)[:, None, None], after, states)
            states = after
            seen.append(self.read(states))
            changes.append(relative_change(seen[-2], seen[-1], states_mask))
        return Thought(
            states=seen,
            mask=states_mask,
            n_steps=torch.zeros_like(ids[:, 0]) + wanted,
            changes=torch.stack(changes) if changes else text.new_zeros(0, len(ids)),
        )

    def _one_step(self, states: States, text: Text, mask: Mask) -> States:
        def step(states: States) -> States:
            after = self.step(states, text, mask)
            return noisy(after, self.noise) if self.training else after

        if self.checkpoints_steps and torch.is_grad_enabled():
            return checkpoint(step, states, use_reentrant=False)
        return step(states)


def encoder_blocks(config: BaselineConfig, n: int) -> list[EncoderBlock]:
    return [
        EncoderBlock(config.d_model, config.n_heads, config.d_hidden, config.dropout)
        for _ in range(n)
    ]


@torch.no_grad()
def relative_change(before: States, after: States, mask: Mask) -> Float[Tensor, " b"]:
    """`norm(after - before) / norm(before)` of each text, over the states that `mask` has."""
    kept = mask[..., None]
    norms = [torch.linalg.vector_norm(x * kept, dim=(1, 2)) for x in (after - before, before)]
    return norms[0] / norms[1].clamp(min=torch.finfo(norms[1].dtype).tiny)


def _most(wanted: int | Int[Tensor, " b"]) -> int:
    fewest, most = (
        (int(wanted.min()), int(wanted.max())) if isinstance(wanted, Tensor) else (wanted, wanted)
    )
    if fewest < 0:
        raise ModelError(f"Steps of thought are 0 or more, got {fewest}.")
    return most
