"""A trained slot network as a `LanguageModel`: hooks, edits and SAEs on its steps of thought.

    model = SlotLanguageModel.of(network, tokenizer, name="slots")
    with steer(model, {"2.resid_post": SetLatent(sae, 7, 3.0)}, slots([0])):
        (answer,) = generate(model, ["Anna is in the kitchen. Where is Anna?"])

Tokens are those of the *text*, with EOS behind it as in training; what is written stands behind
them in no row, and has logits and scores of its own (`answer_scores`). Layers are steps and
positions are *slots*, `[batch, slot, d_model]` whatever the texts' lengths; which streams there are
is in `slot_module`. Whatever asks for the position of a token is refused.

All steps are done for all texts, and hooks see all rows in each. A text that has stopped keeps its
states: an edit of these (`resid_pre`, `resid_post`) holds and reaches its answer, one of what it
hears (`attn_out`, `mlp_out`) is thrown away with the step. It is not woken by an edit; a text that
goes on decides by its states as they were edited whether it stops.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fluoroscope.core.errors import InterventionError, ModelError
from fluoroscope.data.questions.tokenizer import TextTokenizer, tokenizer_of
from fluoroscope.interventions.row_edits import RowEdits
from fluoroscope.models.identity import Source, hash_tokenizer
from fluoroscope.models.language_model import LanguageModel, Mask, Tokens
from fluoroscope.models.loading import check_device, find_dtype
from fluoroscope.models.passes import Intervention
from fluoroscope.models.requests import prepare
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.texts import Capture, Generation, Request
from fluoroscope.studies.connection.network.slot_network import SlotNetwork
from fluoroscope.studies.connection.slot_folder import read_slots, slots_hash, write_slots
from fluoroscope.studies.connection.slot_module import SlotsForAnswers, slot_family
from fluoroscope.studies.connection.slot_writing import AnswerWriter, EditedThought


class SlotLanguageModel(LanguageModel):
    """Made by `of` or `load`."""

    def __init__(
        self, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: Source
    ) -> None:
        thinking = _slots_of(network, source.id).thinking
        self.slot_network, self.n_steps = thinking.slots, thinking.n_steps
        """Steps that every text is thought about; None where each stops by itself."""

        self.text_tokenizer = tokenizer_of(tokenizer, source.id)
        _check_tokenizer(self.slot_network, self.text_tokenizer, source.id)
        super().__init__(network, tokenizer, source, slot_family(self.slot_network.config))

    @classmethod
    def of(
        cls,
        network: SlotNetwork,
        tokenizer: TextTokenizer,
        *,
        name: str,
        n_steps: int | None = None,
    ) -> "SlotLanguageModel":
        """The network itself and not a copy, switched to evaluation. `n_steps` is how often every
        text is thought about, whatever halting says: that is what `thinking.steps=all` is trained
        for. A gated network can be asked for more steps than it was trained for.
        """
        return cls.from_network(SlotsForAnswers(network, n_steps), tokenizer.network, name=name)

    @classmethod
    def from_network(
        cls, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str
    ) -> "SlotLanguageModel":
        thinking = _slots_of(network, name).thinking
        source = Source(
            id=name,
            revision=None,
            weights_sha256=lambda: slots_hash(thinking.slots, thinking.n_steps),
            tokenizer_sha256=lambda: hash_tokenizer(tokenizer),
        )
        return cls(network.eval(), tokenizer, source)

    @classmethod
    def load(
        cls,
        name_or_folder: str,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        revision: str | None = None,
    ) -> "SlotLanguageModel":
        """What `save` wrote, for reading: its weights take no gradients. Weights of another
        network than the folder's are a `MismatchError`.
        """
        if revision is not None:
            raise ModelError(
                f"Slot networks are read from folders, which have no revision; got {revision!r}."
            )
        target, precision = check_device(device), find_dtype(dtype)
        read = read_slots(Path(name_or_folder))
        network = SlotsForAnswers(read.network, read.n_steps)
        nn.Module.to(network, target, precision)
        source = Source(
            id=read.name,
            revision=None,
            weights_sha256=lambda: read.weights_sha256,
            tokenizer_sha256=lambda: hash_tokenizer(read.tokenizer.network),
        )
        return cls(network.eval().requires_grad_(False), read.tokenizer.network, source)

    def save(self, folder: Path) -> None:
        """Settings, weights and tokenizer; opened again it has the same logits and identity."""
        write_slots(folder, self.name, self.slot_network, self.n_steps, self.text_tokenizer)

    @property
    def n_slots(self) -> int:
        return self.slot_network.config.n_slots

    def encode(self, text: str) -> list[int]:
        """As in training: no special token but EOS, which ends texts and answers alike."""
        return [*self.text_tokenizer.encode([text])[0], self.text_tokenizer.eos_id]

    def forward(
        self,
        tokens: Tokens,
        attention_mask: Mask | None = None,
        target_in: Int[Tensor, "batch written"] | None = None,
    ) -> Float[Tensor, "batch written vocab"]:
        """Logits of each token of answers, given the text and the ones before: `target_in` is
        padding, then the answer without its last token. Without it, of an answer's first token.
        """
        inputs = self._inputs(tokens, attention_mask)
        if target_in is not None:
            inputs["target_in"] = target_in.to(self.device, torch.int64)
        with self._announced(tokens, attention_mask):
            return self.network(**inputs).logits

    def think(
        self,
        tokens: Tokens,
        attention_mask: Mask | None = None,
        requests: Sequence[int] | None = None,
    ) -> EditedThought:
        """What becomes of texts before answers are written. Rows serve the requests 0, 1, ...
        unless others are named.
        """
        inputs = self._inputs(tokens, attention_mask)
        with self._announced(tokens, attention_mask, requests=requests) as a_pass:
            thought = self._hooked.base(**inputs)
        n_edits = [0] * len(tokens) if a_pass is None else a_pass.fired.tolist()
        return EditedThought(thought, n_edits)

    def answer_scores(
        self,
        tokens: Tokens,
        attention_mask: Mask | None,
        answers: Int[Tensor, "batch written"],
        answers_mask: Int[Tensor, "batch written"] | None = None,
    ) -> Float[Tensor, "batch written"]:
        """Log-probability (nats) of each token of answers, as `tokenize` makes them, given the
        text and the ones before; 0 at padding.
        """
        mask = torch.ones_like(answers) if answers_mask is None else answers_mask
        answers, is_token, order = _padded_behind(answers.to(self.device), mask.to(self.device))
        pad_id = self.slot_network.pad_id
        before = answers.masked_fill(~is_token, pad_id)[:, :-1]
        target_in = torch.cat([torch.full_like(answers[:, :1], pad_id), before], dim=1)
        logits = self.forward(tokens, attention_mask, target_in)
        # Sums over a vocabulary need float32 at least.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = functional.cross_entropy(logits.transpose(1, 2), answers, reduction="none")
        scores = -losses * is_token
        return torch.zeros_like(scores).scatter(1, order, scores)

    def token_scores(
        self, tokens: Tokens, attention_mask: Mask | None = None
    ) -> Float[Tensor, "batch next"]:
        raise ModelError(
            f"{self.name} writes answers to texts, and has no scores of a text's own tokens. "
            "Use answer_scores."
        )

    def write_texts(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        max_rows: int,
        logprobs: bool,
        captures: Mapping[str, Capture],
    ) -> Iterator[Generation]:
        """Answers, for `generate`. By default EOS ends one; it may have `max_target` tokens,
        however long its text.
        """
        if captures:
            raise ModelError(
                "A capture of generate is of the positions whose logits drew tokens, and the "
                f"positions of {self.name} are its {self.n_slots} slots, which are no tokens. Read "
                "its streams with capture."
            )
        ends = (self.text_tokenizer.eos_id,)
        given = [r if r.stop_tokens is not None else replace(r, stop_tokens=ends) for r in requests]
        prepared = prepare(self, given, room=self.slot_network.max_target)
        writer = AnswerWriter(
            self.slot_network, self.text_tokenizer, self.think, sampling, logprobs
        )
        return writer.write(prepared, max_rows)

    @contextmanager
    def intervened(self, intervention: Intervention) -> Iterator[None]:
        # Its positions were compared with what this model's are when it was made.
        if not isinstance(intervention, RowEdits):
            raise InterventionError(
                f"{type(intervention).__name__} goes by the tokens of a text, and the positions of "
                f"{self.name} are its {self.n_slots} slots. Use steer or row_edits."
            )
        with super().intervened(intervention):
            yield

    def _inputs(self, tokens: Tensor, attention_mask: Tensor | None) -> dict[str, object]:
        self._check(tokens, attention_mask)
        mask = torch.ones_like(tokens) if attention_mask is None else attention_mask
        ids, is_token, _ = _padded_behind(tokens.to(self.device), mask.to(self.device))
        empty = (~is_token[:, 0]).nonzero().flatten().tolist()
        if empty:
            raise ModelError(
                f"Row {empty[0]} of the tokens is padding and nothing else; a text has a token."
            )
        return {"ids": ids, "mask": is_token}

    def _positions(self, mask: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch own"]:
        return torch.arange(self.n_slots, device=mask.device).expand(len(mask), -1)


def _slots_of(network: PreTrainedModel, name: str) -> SlotsForAnswers:
    if not isinstance(network, SlotsForAnswers):
        raise ModelError(
            f"A SlotLanguageModel is made of a slot network, {name} is a "
            f"{type(network).__name__}. Use LanguageModel."
        )
    return network


def _padded_behind(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens and where they are, with all padding behind them, and where each column was."""
    order = (~mask.bool()).to(torch.int8).argsort(dim=1, stable=True)
    return tokens.long().gather(1, order), mask.bool().gather(1, order), order


def _check_tokenizer(network: SlotNetwork, tokenizer: TextTokenizer, name: str) -> None:
    has = network.vocab_size, network.pad_id
    knows = tokenizer.vocab_size, tokenizer.pad_id
    if has != knows:
        raise ModelError(
            f"The network {name} has {has[0]} tokens and pads with {has[1]}, its tokenizer has "
            f"{knows[0]} and pads with {knows[1]}. Take the one that it was trained with."
        )
