from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from fluoroscope.core.errors import ConfigError
from fluoroscope.data.labelled import encoding
from fluoroscope.data.labelled.encoding import encode
from fluoroscope.data.labelled.example import Example, example_id, group_of

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "soup", "was", "good", "not"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    file = tmp_path_factory.mktemp("bert") / "vocab.txt"
    file.write_text("\n".join(WORDS))
    return BertTokenizerFast(str(file))


@pytest.fixture(scope="module")
def bare():
    """As GPT-2's: it adds nothing and has no token for padding."""
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<eos>", *WORDS[5:], "\n"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


def examples(*texts, pairs=None):
    pairs = pairs or [None] * len(texts)
    return [
        Example(example_id("set", text, pair), text, pair, i % 2, "train", group_of(text))
        for i, (text, pair) in enumerate(zip(texts, pairs, strict=True))
    ]


TEXTS = ("the soup was good", "good", "the soup was not good", "not the soup")
PAIRS = ["the soup", "not good the soup was", "good", "was not the soup good"]


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_a_batch_is_what_the_tokenizer_pads_itself(bert, pairs):
    rows = np.array([2, 0, 3])
    batch = encode(examples(*TEXTS, pairs=pairs), bert, 8).batch(rows, pad_id=0)
    expected = bert(
        [TEXTS[row] for row in rows],
        pairs and [pairs[row] for row in rows],
        truncation="longest_first",
        max_length=8,
        padding=True,
        return_tensors="pt",
    )
    assert torch.equal(batch.tokens, expected["input_ids"])
    assert torch.equal(batch.attention_mask, expected["attention_mask"])
    assert torch.equal(batch.segments, expected["token_type_ids"])
    assert batch.labels.tolist() == [0, 0, 1]


def test_the_second_text_is_told_from_the_first_and_neither_is_cut_away(bert):
    long = " ".join(["soup"] * 50)
    batch = encode(examples("the " + long, pairs=["good " + long]), bert, 11).batch(
        np.array([0]), pad_id=0
    )
    assert (
        bert.decode(batch.tokens[0]) == "[CLS] the soup soup soup [SEP] good soup soup soup [SEP]"
    )
    assert batch.segments.tolist() == [[0] * 6 + [1] * 5]


def test_padding_goes_to_the_right_up_to_what_is_asked(bert):
    encoded = encode(examples(*TEXTS), bert, 32)
    batch = encoded.batch(np.array([1]), pad_id=9, pad_to=6)
    assert batch.tokens.tolist() == [[2, 8, 3, 9, 9, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0, 0, 0]]
    assert encoded.lengths.tolist() == [6, 3, 7, 5]
    assert batch.to("cpu").tokens.tolist() == batch.tokens.tolist()
    with pytest.raises(ConfigError, match="at least 7, the longest row; got 6"):
        encoded.batch(np.array([1, 2]), pad_id=0, pad_to=6)


def test_a_tokenizer_that_adds_nothing_is_padded_and_never_gives_an_empty_row(bare):
    encoded = encode(examples("", "the soup"), bare, 4)
    batch = encoded.batch(np.array([0, 1]), pad_id=1)
    assert batch.tokens.tolist() == [[1, 1], [2, 3]]
    assert batch.attention_mask.tolist() == [[1, 0], [1, 1]]
    assert batch.segments is None


def test_a_decoders_pair_begins_a_new_line_where_it_puts_nothing_between(bare):
    encoded = encode(examples("soup", pairs=[" good"]), bare, 8)
    assert encoded.tokens.tolist() == [3, 7, 5]


def test_a_decoders_pair_begins_with_its_first_token_and_is_cut_to_the_length(organism_model):
    tokenizer = organism_model.tokenizer
    some = examples("the soup was good.", pairs=["the bread was bad."])
    encoded = encode(some, tokenizer, 64)
    assert tokenizer.decode(encoded.tokens) == "<bos>the soup was good.\nthe bread was bad."
    assert encode(some, tokenizer, 6).lengths.tolist() == [6]
    assert encode(some, tokenizer, 6).tokens[0] == encoded.tokens[0]


def test_pairs_and_single_texts_are_not_mixed(bert):
    with pytest.raises(ConfigError, match="1 of 2 examples are pairs"):
        encode(examples("good", "soup", pairs=["good", None]), bert, 8)
    with pytest.raises(ConfigError, match="max_length must be above 4"):
        encode(examples("good", pairs=["good"]), bert, 4)
    with pytest.raises(ConfigError, match="max_length must be above 2"):
        encode(examples("good"), bert, 2)


def test_no_examples_are_no_rows(bert):
    encoded = encode([], bert, 8)
    assert len(encoded) == 0
    assert encoded.lengths.tolist() == []


def test_the_cache_gives_the_same_and_is_another_file_for_whatever_matters(
    bert, bare, tmp_path, monkeypatch
):
    fresh = encode(examples(*TEXTS), bert, 8)

    def files(*, some=(), tokenizer=bert, max_length=8, tokenizer_id=""):
        encode(
            some or examples(*TEXTS),
            tokenizer,
            max_length,
            cache=tmp_path,
            tokenizer_id=tokenizer_id,
        )
        return len(list(tmp_path.iterdir()))

    assert files() == 1
    assert files(max_length=7) == 2
    assert files(tokenizer=bare) == 3
    assert files(tokenizer_id="revision 2") == 4
    assert files(some=examples(*TEXTS[::-1])) == 5
    assert files(some=examples(*TEXTS, pairs=PAIRS)) == 6
    assert files() == 6

    def fail(*_):
        raise AssertionError("it is remembered")

    monkeypatch.setattr(encoding, "_tokenized", fail)
    again = encode(examples(*TEXTS), bert, 8, cache=tmp_path)
    for name in ("tokens", "starts", "segments", "labels"):
        assert np.array_equal(getattr(again, name), getattr(fresh, name))
    assert again.ids == fresh.ids


def test_labels_are_those_of_the_examples_and_not_of_the_cache(bert, tmp_path):
    first, second = examples("good", "soup")
    encode([first, second], bert, 8, cache=tmp_path)
    turned = [replace(first, label=1), second]
    assert encode(turned, bert, 8, cache=tmp_path).labels.tolist() == [1, 1]


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_cache_is_made_again(bert, tmp_path, damage):
    fresh = encode(examples(*TEXTS), bert, 8, cache=tmp_path)
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:40] if damage == "cut" else whole[:-1] + bytes([whole[-1] ^ 1]))
    again = encode(examples(*TEXTS), bert, 8, cache=tmp_path)
    assert np.array_equal(again.tokens, fresh.tokens)
    assert np.array_equal(again.segments, fresh.segments)
    assert file.read_bytes() == whole
