"""An ordinary Transformer decoder that reads slots, and the text's tokens beside them if asked."""

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fluoroscope.studies.connection.network.answer_decoder import AnswerDecoder, joined_memory
from fluoroscope.studies.connection.network.embedding import Embedding
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.network.outputs.base import SlotOutput
from fluoroscope.studies.connection.network.reasoner import Thought, Writing


class Decoder(SlotOutput):
    """Embeddings of the answer are its own."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.reads_tokens = config.output.reads_tokens
        self.decoder = AnswerDecoder(
            config.vocab_size,
            config.d_model,
            config.output.n_layers,
            config.output.n_heads,
            config.max_target,
            config.pad_id,
            config.dropout,
        )
        nn.init.orthogonal_(self.decoder.head.weight)

    def forward(
        self,
        thought: Thought,
        states: Float[Tensor, "b m d"],
        target_in: Int[Tensor, "b t"],
        source: Embedding,
    ) -> Float[Tensor, "b t v"]:
        memory, mask = self._memory(thought, states)
        return self.decoder(target_in, memory, mask)

    def write(
        self, writing: Writing, last: Int[Tensor, " b"], source: Embedding
    ) -> Float[Tensor, "b v"]:
        memory, mask = self._memory(writing.thought, writing.thought.states[-1])
        return self.decoder.write(last, writing.n_written, memory, mask, writing.cache)

    def _memory(
        self, thought: Thought, states: Float[Tensor, "b m d"]
    ) -> tuple[Float[Tensor, "b all d"], Bool[Tensor, "b all"] | None]:
        if not self.reads_tokens:
            # All slots may be read; attention is faster without a mask.
            return states, None
        return joined_memory(states, thought.mask, thought.tokens, thought.tokens_mask)
