"""The plan's output: every place of a sequence looks at the slots, and says a token.

    q = X Wq    k = S Wk    v = S Wv    logits = (softmax over slots of q k^T / sqrt(d)) v W_vocab

A single head, without residual, feed-forward part or norm; the map to the vocabulary has no bias
and is not the embedding. The plan's queries `X` are the embeddings of the text itself, so that it
says one token for each of the text's (`say`), and none behind them.

To be a Reasoner it goes on where the text ends: a query for an answer is the embedding of the token
before, as a token of the text, at the place behind the text's own last one. That is the length of
the text, not of its padding. A place hears of the answer so far by that one token alone, as there
is no self-attention among places, and of the text by the slots alone. So there must be
`max_source + max_target` places, as many rows more than in the plan as answers are long.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from fluoroscope.core.errors import ModelError
from fluoroscope.studies.connection.network.embedding import Embedding
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.network.outputs.base import SlotOutput
from fluoroscope.studies.connection.network.reasoner import Thought, Writing


class SlotsToSequence(SlotOutput):
    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        d_model = config.d_model
        self.max_target = config.max_target
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(d_model, config.vocab_size, bias=False)
        for linear in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(linear.weight)
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(
        self,
        thought: Thought,
        states: Float[Tensor, "b m d"],
        target_in: Int[Tensor, "b t"],
        source: Embedding,
    ) -> Float[Tensor, "b t v"]:
        self._check_room(target_in.shape[1])
        return self.say(source(target_in, first=_lengths(thought)), states)

    def say(
        self, queries: Float[Tensor, "b t d"], states: Float[Tensor, "b m d"]
    ) -> Float[Tensor, "b t v"]:
        """Logits at places whose embeddings are `queries`."""
        return self._say(queries, self.key(states), self.value(states))

    def write(
        self, writing: Writing, last: Int[Tensor, " b"], source: Embedding
    ) -> Float[Tensor, "b v"]:
        self._check_room(writing.n_written + 1)
        known = writing.cache.memory
        if 0 not in known:
            states = writing.thought.states[-1]
            known[0] = self.key(states), self.value(states)
        queries = source(last[:, None], first=_lengths(writing.thought) + writing.n_written)
        return self._say(queries, *known[0])[:, 0]

    def _say(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        scores = self.query(queries) @ keys.transpose(-1, -2) / keys.shape[-1] ** 0.5
        return self.head(self.dropout(scores.softmax(dim=-1) @ values))

    def _check_room(self, n_tokens: int) -> None:
        if n_tokens > self.max_target:
            raise ModelError(
                f"Answers have at most {self.max_target} tokens, got {n_tokens}; cut the answer, "
                "or give a larger max_target."
            )


def _lengths(thought: Thought) -> Int[Tensor, " b"]:
    assert isinstance(thought.tokens_mask, Tensor), "a slot network says what it read"
    return thought.tokens_mask.sum(dim=1)
