"""Encoder: the body of a pretrained network, made to be trained under a head of one's own.

A body is the network without the head it was pretrained with, and without a pooler: that would
be trained by nothing, or be a second head. It learns, and keeps its own dropout while it is in
training mode. Decoders are encoders too: their last hidden states, behind the final norm.
Padding is on the right. Shapes: `batch` rows, `pos` positions, `d_model` features.
"""

from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from fluoroscope.core.errors import ModelError
from fluoroscope.models.attention import use_exact_softcap
from fluoroscope.models.encoder_names import encoder_source, packaged_name
from fluoroscope.models.families import Family, Kind, find_family
from fluoroscope.models.hub import SHIPPED, find_config, find_model, tokenizer_files, weight_files
from fluoroscope.models.identity import (
    ModelIdentity,
    hash_files,
    hash_tensors,
    hash_tokenizer,
)
from fluoroscope.models.loading import load_tokenizer, quiet

Tokens = Int64[Tensor, "batch pos"]


class Encoder(nn.Module):
    """Tokens in, the last hidden states out; made by `load_encoder` or `encoder_from`."""

    def __init__(
        self, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, identity: ModelIdentity
    ) -> None:
        super().__init__()
        body = network.base_model
        if not isinstance(body, PreTrainedModel):
            raise ModelError(f"{identity.id} has no body below its head that can be called.")
        if getattr(body, "pooler", None) is not None:
            body.register_module("pooler", None)
        self.network = body.requires_grad_(True)
        self.tokenizer = tokenizer
        self.identity = identity
        """Of the weights it started with; training does not change it."""

        self.family: Family = find_family(body.config.model_type, identity.id)
        use_exact_softcap(self.network)

    @property
    def kind(self) -> Kind:
        """Whether a token sees both sides, or what is before it alone."""
        return self.family.kind

    @property
    def d_model(self) -> int:
        """The width of the last hidden states."""
        config = self.network.config
        # OPT-350m projects its last states down again, to the width of its embeddings.
        return getattr(config, "word_embed_proj_dim", None) or config.hidden_size

    @property
    def context_length(self) -> int:
        """The most positions a row may have."""
        config = self.network.config
        return config.max_position_embeddings - self.family.position_offset(config)

    @property
    def pad_id(self) -> int:
        """The tokenizer's padding token; any token does, as padding is masked."""
        candidates = [self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0]
        return next(token for token in candidates if isinstance(token, int))

    @property
    def has_segments(self) -> bool:
        """Whether the tokenizer tells the two texts of a pair apart, and the network hears it."""
        says = "token_type_ids" in self.tokenizer.model_input_names
        return says and (getattr(self.network.config, "type_vocab_size", None) or 0) > 1

    def forward(
        self, tokens: Tokens, attention_mask: Tokens, segments: Tokens | None = None
    ) -> Float[Tensor, "batch pos d_model"]:
        """The last hidden states, also at padding, where they mean nothing.

        Segments count where `has_segments`; without them all tokens are of the first text. Rows
        longer than `context_length` are a `ModelError`.
        """
        if tokens.shape[1] > self.context_length:
            raise ModelError(
                f"{self.identity.id} reads at most {self.context_length} positions, got "
                f"{tokens.shape[1]}. Set max_length={self.context_length} or less."
            )
        inputs: dict[str, object] = {"input_ids": tokens, "attention_mask": attention_mask}
        if self.kind == "decoder":
            inputs["use_cache"] = False
        if self.has_segments and segments is not None:
            inputs["token_type_ids"] = segments
        offset = self.family.position_offset(self.network.config)
        if offset:
            # Of the mask and not of the tokens: a text may hold the padding token's own words.
            inputs["position_ids"] = attention_mask.cumsum(-1) * attention_mask + offset - 1
        return self.network(**inputs).last_hidden_state


def load_encoder(source: str, *, revision: str | None = None) -> Encoder:
    """The encoder of a key (`encoder_names`), folder or hub id: float32, on the CPU, to be trained.

    It is in evaluation mode, as loaded networks are. `ModelError` where a weight of the body is
    missing. A folder is read without a network; code that comes with a model is never run.
    """
    place = encoder_source(source)
    folder, commit = find_model(place, revision)
    weights, words = weight_files(folder), tokenizer_files(folder)
    config = find_config(str(folder))
    tokenizer = load_tokenizer(str(folder))
    network = _load_body(folder)
    name = place if commit is not None or place in SHIPPED else packaged_name(folder)
    identity = ModelIdentity(
        name or folder.resolve().name, commit, hash_files([*weights, config]), hash_files(words)
    )
    return Encoder(network, tokenizer, identity)


def encoder_from(
    network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str
) -> Encoder:
    """Wraps a network built in memory, with or without a head; its body is used as it is."""
    words = hash_tokenizer(tokenizer)
    body = network.base_model
    return Encoder(
        network, tokenizer, ModelIdentity(name, None, hash_tensors(body.state_dict()), words)
    )


def _load_body(folder: Path) -> PreTrainedModel:
    find_family(_config(folder).model_type, folder.name)
    try:
        with quiet():
            network, loaded = AutoModel.from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # The libraries below have no common error.
        raise ModelError(f"The weights in {folder} cannot be read: {error}") from error
    # A pooler is left out anyway, so it need not be in the file.
    missing = sorted(name for name in loaded["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ModelError(
            f"The weights in {folder} are not whole: {len(missing)} tensors of its config.json "
            f"are missing, the first is {missing[0]}."
        )
    return network


def _config(folder: Path) -> PretrainedConfig:
    path = find_config(str(folder))
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # The libraries below have no common error.
        raise ModelError(f"{path} is not a model's configuration: {error}") from error
