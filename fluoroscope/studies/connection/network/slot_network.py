"""SlotNetwork: tokens are routed into slots, slots think in steps, an output writes of them.

    X = E[ids] + P       S_0 = routed(X)       S_t = step(S_(t-1), heard(S_(t-1)))       logits(S_K)

Two generations of the plan (seed 003) are settings of it. In G1, the plan's text, pairs of slots
hear each other by bilinear maps and `slots_to_sequence` writes; projections begin Xavier-uniform.
In G2, its last code, pairs have a scalar and a decoder writes; projections and the head begin
orthogonal. Embeddings begin N(0, 0.02^2) in both, connections as they say themselves.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fluoroscope.core.errors import ModelError
from fluoroscope.core.seeding import derive_seed, torch_stream
from fluoroscope.studies.connection.network.blocks import DecoderCache, EncoderBlock, noisy
from fluoroscope.studies.connection.network.connections.base import make_connection
from fluoroscope.studies.connection.network.embedding import (
    Embedding,
    Neighbours,
    spread_embeddings,
)
from fluoroscope.studies.connection.network.halting import HALTING
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.network.outputs import OUTPUTS
from fluoroscope.studies.connection.network.outputs.decoder import Decoder
from fluoroscope.studies.connection.network.outputs.slots_to_sequence import SlotsToSequence
from fluoroscope.studies.connection.network.reasoner import Ids, Mask, Reasoner, Thought, Writing
from fluoroscope.studies.connection.network.routing import Reading, Routed, SlotRouting
from fluoroscope.studies.connection.network.steps import STEPS
from fluoroscope.studies.connection.network.steps.base import Hears, Moved

STEPS_BETWEEN_LOOKS = 4
"""A look at the device, whether all texts have stopped, makes the host wait for it."""


class SlotNetwork(Reasoner):
    """Drawn from torch's generator; `new_network` is the same from a seed."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.pad_id, self.vocab_size = config.pad_id, config.vocab_size
        self.max_source, self.max_target = config.max_source, config.max_target
        self.max_steps = config.max_steps

        self.checkpoints_steps = False
        """Whether steps are done a second time for gradients, which then need the memory of one
        step and of the states between; nothing else changes."""

        is_first = config.output.name == "slots_to_sequence"
        n_places = config.max_source + (config.max_target if is_first else 0)
        d_model, n_heads = config.d_model, config.output.n_heads
        self.embedding = Embedding(
            config.vocab_size, d_model, n_places, config.pad_id, config.dropout
        )
        self.neighbours = Neighbours(d_model, config.neighbours) if config.neighbours else None
        self.source = nn.ModuleList(
            EncoderBlock(d_model, n_heads, dropout=config.dropout)
            for _ in range(config.n_source_layers)
        )
        self.source_norm = nn.LayerNorm(d_model) if config.n_source_layers else nn.Identity()
        self.routing = SlotRouting(d_model, config.n_slots, config.routing)
        draw = nn.init.xavier_uniform_ if is_first else nn.init.orthogonal_
        for linear in (self.routing.query, self.routing.key, self.routing.value):
            draw(linear.weight)
        self.connection = make_connection(d_model, config.n_slots, config.connection)
        self.step = STEPS.load(config.step)(config)
        self.halting = HALTING.load(config.halting.name)(d_model, config.halting)
        self.output = OUTPUTS.load(config.output.name)(config)
        spread_embeddings(self, config.spread)

    def think(
        self,
        ids: Ids,
        mask: Mask,
        n_steps: int | Int[Tensor, " b"] | None = None,
        *,
        ends_early: bool = True,
    ) -> Thought:
        """As `Reasoner.think`. In training all steps are done on the device and stopped texts are
        kept as they are; in evaluation it ends when all have stopped, and looks every few steps,
        unless steps are looked at from outside and `ends_early` is False.
        """
        most = self.most_steps(n_steps)
        reading = self.routing.reading(self._read(ids, mask), mask)
        found, routing = self.routing.first(reading)
        trace, changes, halt_logits = [self._noisy(found)], [], []
        hears = self.connection.operator()
        goes_on = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
        taken = torch.zeros(len(ids), dtype=torch.int64, device=ids.device)
        for index in range(most):
            if isinstance(n_steps, Tensor):
                goes_on = n_steps > index
            elif n_steps is None and ends_early and self._has_ended(goes_on, index):
                break
            before = found
            found, update, routed = self(trace[-1], trace[0], reading, hears, index, goes_on)
            if routed is not None:
                routing = torch.where(goes_on[:, None, None], routed, routing)
            # Of what steps find: noise, which only training adds, would never come to rest.
            change = relative_change(before, found)
            halt = self.halting(Moved(found, update), change)
            taken = taken + goes_on
            trace.append(torch.where(goes_on[:, None, None], self._noisy(found), found))
            if n_steps is None:
                goes_on = goes_on & ~halt.stops
            changes.append(change)
            halt_logits.append(halt.logits)
        return Thought(
            states=trace,
            mask=torch.ones(found.shape[:2], dtype=torch.bool, device=ids.device),
            n_steps=taken,
            changes=torch.stack(changes) if changes else found.new_zeros(0, len(ids)),
            halt_logits=_stacked(halt_logits),
            routing=routing,
            tokens=reading.tokens,
            tokens_mask=mask,
        )

    def forward(
        self,
        states: Float[Tensor, "b m d"],
        first: Float[Tensor, "b m d"],
        reading: Reading,
        hears: Hears,
        index: int,
        goes_on: Bool[Tensor, " b"],
    ) -> tuple[Float[Tensor, "b m d"], Float[Tensor, "b m d"], Float[Tensor, "b s m"] | None]:
        """One step of thought of all texts, kept by those that go on: the states after it, what
        was heard, and the routing where slots read again. That the network is called once a step
        makes it a tied block to hooks, whose first argument and first result are the states.
        """
        routed, moved = self._one_step(states, first, reading, hears, index)
        kept = torch.where(goes_on[:, None, None], moved.states, states)
        return kept, moved.update, routed

    def logits(
        self, thought: Thought, target_in: Int[Tensor, "b t"], after: int | None = None
    ) -> Float[Tensor, "b t v"]:
        states = thought.states[-1] if after is None else self._states_after(thought, after)
        return self.output(thought, states, target_in, self.embedding)

    def begin(self, thought: Thought) -> Writing:
        return Writing(thought, DecoderCache())

    def write(self, writing: Writing, last: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        logits = self.output.write(writing, last, self.embedding)
        writing.n_written += 1
        return logits

    def say(self, thought: Thought) -> Float[Tensor, "b s v"]:
        """Logits at the text's own places, as the plan has them; only of `slots_to_sequence`."""
        if not isinstance(self.output, SlotsToSequence):
            raise ModelError(
                f"output.name={self.config.output.name} has no logits at the places of a text; "
                "give output.name=slots_to_sequence, or ask for those of an answer."
            )
        assert isinstance(thought.tokens, Tensor), "a slot network says what it read"
        return self.output.say(thought.tokens, thought.states[-1])

    def _read(self, ids: Ids, mask: Mask) -> Float[Tensor, "b s d"]:
        if ids.shape[1] > self.max_source:
            raise ModelError(
                f"Texts have at most {self.max_source} tokens, got {ids.shape[1]}; cut the text, "
                "or give a larger max_source."
            )
        x = self.embedding(ids)
        if self.neighbours is not None:
            x = self.neighbours(x, mask)
        for block in self.source:
            x = block(x, mask)
        return self.source_norm(x)

    def _noisy(self, states: Float[Tensor, "b m d"]) -> Float[Tensor, "b m d"]:
        return noisy(states, self.config.noise) if self.training else states

    def _one_step(
        self,
        states: Float[Tensor, "b m d"],
        first: Float[Tensor, "b m d"],
        reading: Reading,
        hears: Hears,
        index: int,
    ) -> tuple[Float[Tensor, "b s m"] | None, Moved]:
        """The routing of this step, where it reads again, and where it went."""

        def step(states: Tensor) -> tuple[Routed | None, Moved]:
            reads = self.routing.reads_every_step
            routed = self.routing.again(states, reading) if reads else None
            at = states if routed is None else routed.states
            return routed, self.step(at, first, hears, index)

        if self.checkpoints_steps and torch.is_grad_enabled():
            routed, moved = checkpoint(step, states, use_reentrant=False)
        else:
            routed, moved = step(states)
        return None if routed is None else routed.routing, moved

    def most_steps(self, n_steps: int | Int[Tensor, " b"] | None) -> int:
        """Steps of the text that is thought about longest; raises `ModelError` where there are not
        so many.
        """
        if n_steps is None:
            return self.max_steps
        # One look at the device for the whole thought.
        fewest, most = (
            (int(n_steps.min()), int(n_steps.max()))
            if isinstance(n_steps, Tensor)
            else (n_steps, n_steps)
        )
        if fewest < 0:
            raise ModelError(f"Steps of thought are 0 or more, got {fewest}.")
        if self.step.most is not None and most > self.step.most:
            raise ModelError(
                f"step={self.config.step} has a norm for each of its {self.step.most} steps, so "
                f"{most} cannot be done; train with a larger max_steps, or with step=gated, which "
                "can be done more often than it was trained."
            )
        return most

    def _has_ended(self, goes_on: Bool[Tensor, " b"], index: int) -> bool:
        if self.training or not self.halting.can_stop or index == 0:
            return False
        is_cheap = goes_on.device.type == "cpu" or index % STEPS_BETWEEN_LOOKS == 0
        return is_cheap and not bool(goes_on.any())

    def _states_after(self, thought: Thought, after: int) -> Float[Tensor, "b m d"]:
        n_done = len(thought.states) - 1
        most = max(n_done, self.max_steps)
        if not 0 <= after <= most:
            raise ModelError(f"There are states after 0 to {most} steps, not after {after}.")
        # Where all texts stopped before, what they had then is what they have.
        return thought.states[min(after, n_done)]


@torch.no_grad()
def relative_change(
    before: Float[Tensor, "b m d"], after: Float[Tensor, "b m d"]
) -> Float[Tensor, " b"]:
    """`norm(after - before) / norm(before)` of each text, over all its states together."""
    norms = [torch.linalg.vector_norm(x, dim=(1, 2)) for x in (after - before, before)]
    return norms[0] / norms[1].clamp(min=torch.finfo(norms[1].dtype).tiny)


def new_network(config: NetworkConfig, seed: int) -> SlotNetwork:
    """A network on the CPU, the same for the same seed; torch's generators stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "connection", "network"))
        return SlotNetwork(config)


@torch.no_grad()
def warm_start(network: SlotNetwork, embeddings: Float[Tensor, "words width"], seed: int) -> None:
    """Tokens begin as the rows of a pretrained table, as the plan's begin as those of T5.

    Of tables of another width the block of the first entries is taken; the rest stays as drawn.
    Text and answer begin with the same rows for their places, drawn anew from `seed`; they learn
    apart. The row of padding is zero.
    """
    n_words, width = embeddings.shape
    if n_words < network.vocab_size:
        raise ModelError(
            f"The table must have a row for each of the {network.vocab_size} tokens, got "
            f"{n_words}; take the one of the tokenizer that the texts are encoded with."
        )
    embedded = [network.embedding]
    if isinstance(network.output, Decoder):
        embedded.append(network.output.decoder.embedding)
    n_places = max(each.places.num_embeddings for each in embedded)
    d_model = network.config.d_model
    stream = torch_stream(seed, "connection", "places")
    places = network.config.spread * torch.randn(n_places, d_model, generator=stream)
    n_shared = min(width, d_model)
    for each in embedded:
        each.tokens.weight[:, :n_shared] = embeddings[: network.vocab_size, :n_shared].to(
            each.tokens.weight
        )
        each.zero_padding()
        each.places.weight.copy_(places[: each.places.num_embeddings])


def _stacked(logits: list[Float[Tensor, " b"] | None]) -> Float[Tensor, "steps b"] | None:
    given = [each for each in logits if each is not None]
    return torch.stack(given) if given else None
