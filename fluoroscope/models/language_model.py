"""LanguageModel: a network and its tokenizer, read and written at any hook point.

    model = LanguageModel.load("gpt2")
    with model.hooked({HookPoint("6.resid_post"): lambda x: x * 0.5}):
        logits = model.forward(tokens)

Rows are independent: padding, on either side, and batch mates change nothing but rounding.
Shapes: `batch` rows, `pos` positions, `vocab` tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fluoroscope.core.errors import ModelError
from fluoroscope.models.attention import use_exact_softcap
from fluoroscope.models.families import Family, find_family
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.hooking import Hook, HookedNetwork
from fluoroscope.models.identity import ModelIdentity, Source, hash_tensors, hash_tokenizer
from fluoroscope.models.loading import load_parts
from fluoroscope.models.passes import Intervention, Pass, check_fired

_SOFTMAX_NUMBERS = 1 << 24
"""Logits that are turned into scores at once: 64 MiB in float32."""

Tokens = Int[Tensor, "batch pos"]
Mask = Integer[Tensor, "batch pos"] | Bool[Tensor, "batch pos"]


class TokenBatch(NamedTuple):
    """Texts as one rectangle of tokens; `attention_mask` is 0 on padding."""

    tokens: Tokens
    attention_mask: Mask


class LanguageModel:
    """A decoder (next-token) or encoder (masked-token) model of a known family, or of one that is
    given.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        source: Source,
        family: Family | None = None,
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.name = source.id
        self.family: Family = family or find_family(network.config.model_type, source.id)
        self._source = source
        self.interventions: list[Intervention] = []
        """What edits activations at the moment; see `intervened`."""

        self._hooked = HookedNetwork(network, self.family)
        use_exact_softcap(network)

    @classmethod
    def load(
        cls,
        name_or_folder: str,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        revision: str | None = None,
    ) -> "LanguageModel":
        """A model of the hub or of a folder, for reading: its weights take no gradients.

        A folder is read without any network access; code that comes with a model is never run.
        """
        return cls(*load_parts(name_or_folder, dtype, device, revision))

    @classmethod
    def from_network(
        cls, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str
    ) -> "LanguageModel":
        """Wraps a network built in memory, and switches it to evaluation (no dropout)."""
        return cls(
            network.eval(),
            tokenizer,
            Source(
                id=name,
                revision=None,
                weights_sha256=lambda: hash_tensors(network.state_dict()),
                tokenizer_sha256=lambda: hash_tokenizer(tokenizer),
            ),
        )

    @cached_property
    def identity(self) -> ModelIdentity:
        """Hashes the weights when first asked for."""
        return self._source.identity()

    @property
    def n_layers(self) -> int:
        return len(self._hooked.blocks)

    @property
    def d_model(self) -> int:
        return self.network.config.hidden_size

    def width(self, point: HookPoint) -> int:
        """The last axis of a stream: `d_model`, but for embeddings that are projected up."""
        if point.stream != "embed":
            return self.d_model
        table = self._hooked.base.get_submodule(self.family.embed)
        return next(table.parameters()).shape[-1]

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks in the order they run; ALBERT's single block appears many times."""
        return self._hooked.blocks

    @property
    def vocab_size(self) -> int:
        return self.network.config.vocab_size

    @property
    def context_length(self) -> int:
        """The most positions a row may have."""
        config = self.network.config
        return config.max_position_embeddings - self.family.position_offset(config)

    @property
    def n_slots(self) -> int | None:
        """Positions of its streams where these are no tokens; None where there is one a token."""
        return None

    def check_positions_are_tokens(self, what: str) -> None:
        """Raises `ModelError` unless the positions of streams are the tokens that `what` is of."""
        if self.n_slots is not None:
            raise ModelError(
                f"{what} goes by the tokens of a text, and the positions of {self.name} are its "
                f"{self.n_slots} slots, which are no tokens. Read its streams with capture."
            )

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype

    def __repr__(self) -> str:
        return (
            f"LanguageModel({self.name!r}, {self.family.model_type}, {self.n_layers} layers, "
            f"d_model {self.d_model}, {self.dtype}, {self.device})"
        )

    def encode(self, text: str) -> list[int]:
        """A text with the tokenizer's own special tokens."""
        return self.tokenizer(text)["input_ids"]

    def tokenize(
        self, texts: Sequence[str], *, padding_side: Literal["left", "right"] | None = None
    ) -> TokenBatch:
        """Texts with the tokenizer's own special tokens, padded to the longest."""
        rows = [self.encode(text) for text in texts]
        width = max(map(len, rows), default=0)
        tokens = torch.full((len(rows), width), self.pad_token_id)
        mask = torch.zeros_like(tokens)
        is_left = (padding_side or self.tokenizer.padding_side) == "left"
        for i, row in enumerate(rows):
            place = slice(width - len(row), width) if is_left else slice(0, len(row))
            tokens[i, place] = torch.tensor(row, dtype=tokens.dtype)
            mask[i, place] = 1
        return TokenBatch(tokens, mask)

    @property
    def bos_token_id(self) -> int | None:
        """The token that starts a text (the CLS token of an encoder), if there is one."""
        candidates = [self.tokenizer.bos_token_id, self.tokenizer.cls_token_id]
        return next((token for token in candidates if isinstance(token, int)), None)

    @property
    def pad_token_id(self) -> int:
        """The tokenizer's padding token; any token does, as padding is masked."""
        candidates = [self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0]
        return next(token for token in candidates if isinstance(token, int))

    def forward(
        self, tokens: Tokens, attention_mask: Mask | None = None
    ) -> Float[Tensor, "batch pos vocab"]:
        """Logits: of the next token for a decoder, of the token itself for an encoder."""
        self.check_has_head()
        inputs = self._inputs(tokens, attention_mask)
        with self._announced(tokens, attention_mask):
            return self.network(**inputs).logits

    @property
    def predicts_next_tokens(self) -> bool:
        """Whether it is a decoder with a head."""
        return self.family.kind == "decoder" and self.network is not self._hooked.base

    def check_has_head(self) -> None:
        """Raises `ModelError` where there are no weights to make logits of."""
        if self.network is self._hooked.base:
            raise ModelError(
                f"{self.name} has no weights for a language-modelling head, so it gives no "
                "logits. Its streams can be read and written all the same."
            )

    def token_scores(
        self, tokens: Tokens, attention_mask: Mask | None = None
    ) -> Float[Tensor, "batch next"]:
        """Log-probability (nats) of token i + 1 given those up to i; 0 where either is padding."""
        if self.family.kind != "decoder":
            raise ModelError(
                f"{self.name} is an {self.family.kind}: it does not predict next tokens."
            )
        logits = self.forward(tokens, attention_mask)[:, :-1]
        targets = tokens[:, 1:].to(logits.device, torch.int64)
        # Some positions at a time: a softmax of them all would take the logits' memory twice more.
        width = max(1, _SOFTMAX_NUMBERS // (logits.shape[0] * logits.shape[2]))
        parts = zip(logits.split(width, dim=1), targets.split(width, dim=1), strict=True)
        scores = torch.cat([_scored(*part) for part in parts], dim=1)
        return scores * _both_real(tokens, attention_mask).to(scores)

    def loss(self, tokens: Tokens, attention_mask: Mask | None = None) -> Float[Tensor, ""]:
        """Mean of -log p over the predicted tokens, in nats."""
        n_predicted = int(_both_real(tokens, attention_mask).sum())
        if n_predicted == 0:
            raise ModelError("No token follows another in these rows: there is nothing to predict.")
        return -self.token_scores(tokens, attention_mask).sum() / n_predicted

    @contextmanager
    def hooked(self, hooks: Mapping[HookPoint, Hook]) -> Iterator[None]:
        """Inside the `with` block each hook sees its stream whenever it is computed.

        A hook gets `[batch, pos, d_model]` and returns a replacement of that shape, or None to
        only look. It holds for every forward pass of the network, also those of `generate`.
        """
        with self._hooked.attached(hooks):
            yield

    def run_until(
        self,
        hooks: Mapping[HookPoint, Hook],
        tokens: Tokens,
        attention_mask: Mask | None = None,
    ) -> None:
        """A forward pass without gradients that ends once the deepest hook was called.

        Later blocks, the final norm and the head cost nothing.
        """
        if not hooks:
            return
        deepest = max(hooks)

        def call_and_end(value: Tensor) -> None:
            hooks[deepest](value)
            raise _DeepestReached

        inputs = self._inputs(tokens, attention_mask)
        ending = {**hooks, deepest: call_and_end}
        with (
            torch.no_grad(),
            self._announced(tokens, attention_mask, deepest),
            self.hooked(ending),
            suppress(_DeepestReached),
        ):
            self.network(**inputs)

    @contextmanager
    def intervened(self, intervention: Intervention) -> Iterator[None]:
        """Inside the `with` block every pass is edited; what was not edited as it should have
        been is an `InterventionError`.
        """
        with self.hooked(intervention.hooks):
            self.interventions.append(intervention)
            try:
                yield
            finally:
                self.interventions.remove(intervention)

    @contextmanager
    def _announced(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None,
        deepest: HookPoint | None = None,
        requests: Sequence[int] | None = None,
    ) -> Iterator[Pass | None]:
        """Says to what is active which positions come, and checks that they were edited. Rows
        serve the requests 0, 1, ... unless others are named.
        """
        if not self.interventions:
            yield None
            return
        mask = torch.ones_like(tokens) if attention_mask is None else attention_mask
        rows = [row[kept] for row, kept in zip(tokens.cpu(), mask.cpu().bool(), strict=True)]
        prompts = tuple(tuple(row.tolist()) for row in rows)
        mask = mask.to(self.device, torch.int64)
        a_pass = Pass(
            requests=tuple(range(len(tokens)) if requests is None else requests),
            prompts=prompts,
            positions=self._positions(mask),
            fired=torch.zeros(len(tokens), dtype=torch.int64, device=self.device),
        )
        for intervention in self.interventions:
            intervention.begin(a_pass)
        yield a_pass
        check_fired(self.interventions, a_pass, deepest)

    def _positions(self, mask: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch own"]:
        """As `Pass.positions`, on the device of `mask`."""
        return torch.where(mask.bool(), mask.cumsum(-1) - 1, -1)

    def _inputs(self, tokens: Tensor, attention_mask: Tensor | None) -> dict[str, object]:
        self._check(tokens, attention_mask)
        tokens = tokens.to(self.device, torch.int64)
        inputs: dict[str, object] = {"input_ids": tokens}
        if self.family.kind == "decoder":
            inputs["use_cache"] = False
        is_padded = attention_mask is not None and not bool(attention_mask.all())
        offset = self.family.position_offset(self.network.config)
        # Unpadded rows go without a mask, which lets attention use its fastest kernels.
        if is_padded and attention_mask is not None:
            mask = attention_mask.to(self.device, torch.int64)
            inputs["attention_mask"] = mask
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0) + offset
        elif offset:
            positions = torch.arange(tokens.shape[1], device=tokens.device) + offset
            inputs["position_ids"] = positions.expand_as(tokens)
        return inputs

    def _check(self, tokens: Tensor, attention_mask: Tensor | None) -> None:
        if tokens.ndim != 2 or 0 in tokens.shape:
            raise ModelError(
                f"Tokens must be [batch, position], neither of them 0; got {tuple(tokens.shape)}."
            )
        if tokens.shape[1] > self.context_length:
            raise ModelError(
                f"{self.name} reads at most {self.context_length} positions, got "
                f"{tokens.shape[1]}. Cut the text into shorter windows."
            )
        if attention_mask is not None and attention_mask.shape != tokens.shape:
            raise ModelError(
                f"The attention mask must have the shape of the tokens, {tuple(tokens.shape)}; "
                f"got {tuple(attention_mask.shape)}."
            )
        low, high = (int(bound) for bound in tokens.aminmax())
        if low < 0 or high >= self.vocab_size:
            raise ModelError(
                f"{self.name} has tokens 0 to {self.vocab_size - 1}, got {low} to {high}. "
                "Was the text cut by the tokenizer of another model?"
            )


class _DeepestReached(Exception):  # noqa: N818  # not an error: it ends a forward pass early
    """Raised and caught by `run_until`."""


def _scored(logits: Tensor, targets: Tensor) -> Tensor:
    # Sums over a vocabulary need float32 at least.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return -functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")


def _both_real(tokens: Tensor, attention_mask: Tensor | None) -> Tensor:
    if attention_mask is None:
        return torch.ones_like(tokens[:, 1:])
    return attention_mask[:, 1:] * attention_mask[:, :-1]
