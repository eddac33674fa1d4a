import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from fluoroscope.core.errors import CorpusError
from fluoroscope.data.documents import Document
from fluoroscope.data.tokenizing import (
    StartTokens,
    encode,
    start_tokens,
    tokenized,
    tokenizer_hash,
)


def word_tokenizer(**special: str) -> PreTrainedTokenizerBase:
    backend = Tokenizer(models.WordLevel({"a": 0, "<s>": 1, "</s>": 2, "<unk>": 3}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def test_encoding_a_batch_equals_the_tokenizer_one_by_one(
    tokenizer: PreTrainedTokenizerBase, story_texts: list[str]
):
    singly = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in story_texts]
    assert encode(tokenizer, story_texts) == singly


def test_padding_and_truncation_of_an_earlier_call_do_not_reach_the_corpus(
    tokenizer: PreTrainedTokenizerBase,
):
    before = tokenizer_hash(tokenizer)
    tokenizer(["a", "long text"], padding="max_length", truncation=True, max_length=4)
    assert tokenizer_hash(tokenizer) == before
    assert [len(ids) for ids in encode(tokenizer, ["a", "long text"])] == [1, 9]
    assert tokenizer_hash(tokenizer) == before


def test_documents_keep_their_tokens_and_order(
    tokenizer: PreTrainedTokenizerBase, story_texts: list[str]
):
    documents = [Document(index, text) for index, text in enumerate(story_texts)]
    pairs = list(tokenized(documents, tokenizer))
    assert [document for document, _ in pairs] == documents
    assert [list(ids) for _, ids in pairs] == encode(tokenizer, story_texts)


def test_auto_does_what_the_tokenizer_does(tokenizer: PreTrainedTokenizerBase):
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert start_tokens(tokenizer, "auto") == StartTokens(bos, bos)
    assert start_tokens(tokenizer, "never") == StartTokens(eos, None)


def test_documents_are_separated_where_the_tokenizer_starts_no_text():
    adds_none = word_tokenizer(bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    assert start_tokens(adds_none, "auto") == StartTokens(2, None)
    assert start_tokens(adds_none, "always") == StartTokens(1, 1)


def test_always_needs_a_token_to_put():
    with pytest.raises(CorpusError, match="bos=always"):
        start_tokens(word_tokenizer(unk_token="<unk>"), "always")


def test_another_vocabulary_is_another_tokenizer(tokenizer: PreTrainedTokenizerBase):
    assert tokenizer_hash(word_tokenizer(unk_token="<unk>")) != tokenizer_hash(tokenizer)
