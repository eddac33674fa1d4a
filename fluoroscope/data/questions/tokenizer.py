"""The tokens of questions and answers: a tokenizer trained here, or somebody else's.

What is trained here has seen the training side alone: a word that only tests have is unknown, or
made of parts, as it will be in use. The same texts give the same file, in whichever order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from fluoroscope.core.errors import ConfigError, CorpusError, ModelError
from fluoroscope.data.questions.question import Question
from fluoroscope.data.questions.tokenizer_config import TRAINED, TokenizerConfig
from fluoroscope.data.tokenizing import encode, special_token, tokenizer_hash

_SPECIAL: Final = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
"""In the order of their ids, from 0."""

_SENTINEL = "<extra_id_"
"""Begins tokens of T5 that stand for gaps; no question and no answer has any."""

_N_BYTES = 256


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer with what a model needs to know of it."""

    network: PreTrainedTokenizerBase
    source: str
    pad_id: int
    eos_id: int
    unk_id: int | None
    vocab_size: int
    """Ids are below it; T5's gaps are behind it and not counted."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Without special tokens; a text that looks like one is read as text."""
        return encode(self.network, list(texts))

    def decode(self, ids: Sequence[int]) -> str:
        """Up to the end of the answer, without padding; what is unknown stays visible."""
        kept: list[int] = []
        for one in ids:
            if one == self.eos_id:
                break
            if one != self.pad_id:
                kept.append(one)
        said = self.network.decode(
            kept, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        assert isinstance(said, str), "one row is one text"
        return said.strip()

    @property
    def hash(self) -> str:
        """SHA-256 of how it cuts text."""
        return tokenizer_hash(self.network)

    def save(self, folder: Path) -> None:
        """As any library reads it."""
        self.network.save_pretrained(folder)


def text_tokenizer(
    config: TokenizerConfig, train: Sequence[Question], *, is_made: bool
) -> TextTokenizer:
    """As the settings say; `is_made` tells of the set whether it is made and not read."""
    if config.source != TRAINED:
        return load_tokenizer(config.source, config.revision)
    auto = "words" if is_made else "bpe"
    kind = auto if config.kind == "auto" else config.kind
    texts = [text for one in train for text in (one.source, one.target, *one.hops)]
    tokenizer = trained_tokenizer(texts, kind, config.vocab_size)
    if kind == "words":
        _check_can_be_written(tokenizer, {one.target for one in train})
    return tokenizer


def _check_can_be_written(tokenizer: TextTokenizer, answers: Iterable[str]) -> None:
    """Words are cut at signs and written with blanks between, so `0.5` would never be right."""
    texts = sorted(answers)
    for text, ids in zip(texts, tokenizer.encode(texts), strict=True):
        said = tokenizer.decode(ids)
        if tokenizer.unk_id not in ids and said != " ".join(text.split()):
            raise ConfigError(
                f"The answer {text!r} is written as {said!r} by a tokenizer of words, and could "
                "never be right. Take data.tokenizer.kind=bpe."
            )


def trained_tokenizer(
    texts: Iterable[str], kind: Literal["bpe", "words"], vocab_size: int
) -> TextTokenizer:
    """Of any texts; padding is token 0. Every digit is a token of BPE's, and words begin with a
    blank wherever they stand, so that an answer is the same token as in the question.
    """
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise CorpusError("A tokenizer is trained on the training side, and it is empty.")
    if vocab_size < _least(kind):
        raise ConfigError(
            f"vocab_size must be {_least(kind)} at least for a tokenizer of {kind}, "
            f"got {vocab_size}."
        )
    backend = _bpe(texts, vocab_size) if kind == "bpe" else _words(texts, vocab_size)
    return tokenizer_of(PreTrainedTokenizerFast(tokenizer_object=backend, **_SPECIAL), TRAINED)


def load_tokenizer(source: str, revision: str | None = None) -> TextTokenizer:
    """A hub id, or the folder of a tokenizer; data know nothing of `models`, which has one too."""
    folder = Path(source).expanduser()
    try:
        network = AutoTokenizer.from_pretrained(
            str(folder) if folder.is_dir() else source, revision=revision, trust_remote_code=False
        )
    except Exception as error:  # The libraries below have no common error.
        raise ModelError(
            f"The tokenizer {source!r} (revision {revision or 'newest'}) could not be opened: "
            f"{error} Give a folder or a hub id such as google-t5/t5-base, or {TRAINED!r}."
        ) from error
    return tokenizer_of(network, source)


def tokenizer_of(network: PreTrainedTokenizerBase, source: str) -> TextTokenizer:
    """Any tokenizer that has a token for padding and one for the end (SEP is one)."""
    pad_id = special_token(network, "pad")
    eos_id = special_token(network, "eos", "sep")
    if pad_id is None or eos_id is None or pad_id == eos_id:
        raise ModelError(
            f"The tokenizer {source!r} needs a token for padding and another one for the end of "
            f"an answer, it has {pad_id} and {eos_id}. Take T5's, or train one: {TRAINED!r}."
        )
    network.split_special_tokens = True
    vocabulary = network.get_vocab()
    kept = [place for token, place in vocabulary.items() if not token.startswith(_SENTINEL)]
    return TextTokenizer(
        network,
        source,
        pad_id,
        eos_id,
        special_token(network, "unk"),
        # A gap's id between others is an id all the same.
        max(kept) + 1,
    )


def _least(kind: Literal["bpe", "words"]) -> int:
    return len(_SPECIAL) + (_N_BYTES if kind == "bpe" else 1)


def _bpe(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    backend = Tokenizer(models.BPE(unk_token=_SPECIAL["unk_token"]))
    split = pre_tokenizers.Split(Regex(r"\d"), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.ByteLevel(add_prefix_space=True), split]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(_SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def _words(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    backend = Tokenizer(models.WordLevel(unk_token=_SPECIAL["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocab_size, special_tokens=list(_SPECIAL.values()), show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return backend
