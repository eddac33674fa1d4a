from dataclasses import replace

import numpy as np
import pytest
import torch

from fluoroscope.core.errors import ConfigError
from fluoroscope.data.questions import encoding
from fluoroscope.data.questions.encoding import encode_questions
from fluoroscope.data.questions.question import Question
from fluoroscope.data.questions.tokenizer import trained_tokenizer


def question(source, target, hops=(), name="q"):
    depth = len(hops) or None
    return Question(f"{name} {source}", "g", "train", source, target, depth=depth, hops=hops)


QUESTIONS = [
    question("from a next next", "c", ("b", "c")),
    question("from b", "c d e"),
    question("from c next", "d", ("d",)),
]


@pytest.fixture(scope="module")
def words():
    """`<pad>` 0, `<eos>` 1, `<unk>` 2, and then by frequency and the alphabet."""
    texts = [text for one in QUESTIONS for text in (one.source, one.target)]
    found = trained_tokenizer(texts, "words", 30)
    assert found.encode(["c from next d a b e"]) == [[3, 4, 5, 6, 7, 8, 9]]
    return found


@pytest.fixture(scope="module")
def encoded(words):
    return encode_questions(QUESTIONS, words, 8, 8)


def test_a_batch_is_padded_on_the_right_and_ends_with_eos(encoded):
    batch = encoded.batch(np.array([1, 0]))
    assert batch.ids.tolist() == [[4, 8, 1, 0, 0], [4, 7, 5, 5, 1]]
    assert batch.mask.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert batch.labels.tolist() == [[3, 6, 9, 1], [3, 1, -100, -100]]
    assert batch.target_in.tolist() == [[0, 3, 6, 9], [0, 3, 1, 0]]
    assert [tensor.dtype for tensor in batch] == [torch.int64, torch.bool, torch.int64, torch.int64]
    assert all(map(torch.equal, batch.to("cpu"), batch))


def test_what_is_read_back_is_the_answer_one_token_later(encoded):
    batch = encoded.batch(np.arange(3))
    follows = batch.labels[:, 1:] != -100
    assert torch.equal(batch.target_in[:, 1:][follows], batch.labels[:, :-1][follows])
    assert (batch.target_in[:, 0] == 0).all()


def test_padding_goes_up_to_what_is_asked(encoded):
    batch = encoded.batch(np.array([2]), pad_source_to=8, pad_target_to=4)
    assert batch.ids.tolist() == [[4, 3, 5, 1, 0, 0, 0, 0]]
    assert batch.labels.tolist() == [[6, 1, -100, -100]]
    with pytest.raises(ConfigError, match="at least 4, the longest row; got 3"):
        encoded.batch(np.array([2]), pad_source_to=3)


def test_a_row_is_the_same_alone_and_among_others(encoded):
    whole = encoded.batch(np.arange(3), pad_source_to=8, pad_target_to=6)
    for row in range(3):
        alone = encoded.batch(np.array([row]), pad_source_to=8, pad_target_to=6)
        assert all(torch.equal(a[row], b[0]) for a, b in zip(whole, alone, strict=True))


def test_hops_are_what_is_to_be_written_on_the_way(encoded):
    def labels(hop, rows):
        written = encoded.hop_batch(np.array(rows), hop)
        assert (written.target_in[:, 0] == 0).all()
        return written.labels.tolist()

    assert labels(1, [0, 2]) == [[8, 1], [6, 1]]
    # The second of one hop is the first still; a question without hops has its answer.
    assert labels(2, [0, 2]) == [[3, 1], [6, 1]]
    assert labels(1, [0, 1, 2]) == [[8, 1, -100, -100], [3, 6, 9, 1], [6, 1, -100, -100]]
    assert labels(5, [0, 1]) == [[3, 1, -100, -100], [3, 6, 9, 1]]
    assert labels(9, [1]) == [[3, 6, 9, 1]]
    assert encoded.depths.tolist() == [2, -1, 1]
    with pytest.raises(ConfigError, match="counted from 1, got 0"):
        encoded.hop_batch(np.array([0]), 0)


@pytest.mark.parametrize(("cut", "kept"), [("end", [4, 7, 1]), ("start", [5, 5, 1])])
def test_long_questions_are_cut_and_counted_and_never_dropped(words, cut, kept):
    encoded = encode_questions(QUESTIONS, words, 3, 3, cut=cut)
    assert len(encoded) == 3
    assert encoded.batch(np.array([0])).ids.tolist() == [kept]
    assert encoded.batch(np.array([1])).labels.tolist() == [[3, 6, 1]]
    assert encoded.lengths.tolist() == [3, 3, 3]
    assert encoded.is_source_cut.tolist() == [True, False, True]
    assert encoded.is_target_cut.tolist() == [False, True, False]
    assert encoded.cut_rates == {"source": pytest.approx(2 / 3), "target": pytest.approx(1 / 3)}
    with pytest.raises(ConfigError, match="max_target must be 2 at least"):
        encode_questions(QUESTIONS, words, 3, 1)


def test_words_that_training_never_had_are_counted(words):
    encoded = encode_questions([question("from zebra", "c")], words, 8, 8)
    assert encoded.batch(np.array([0])).ids.tolist() == [[4, 2, 1]]
    assert encoded.unknown_rate == pytest.approx(1 / 3)


def test_no_questions_are_no_rows(words):
    encoded = encode_questions([], words, 8, 8)
    assert len(encoded) == 0
    assert encoded.cut_rates == {"source": 0.0, "target": 0.0}
    assert encoded.unknown_rate == 0.0


def test_the_cache_gives_the_same_and_is_another_file_for_whatever_matters(
    words, encoded, tmp_path, monkeypatch
):
    other = trained_tokenizer(["from a b c d e next"], "words", 30)

    def files(questions=QUESTIONS, tokenizer=words, lengths=(8, 8), cut="end"):
        encode_questions(questions, tokenizer, *lengths, cut=cut, cache=tmp_path)
        return len(list(tmp_path.iterdir()))

    assert files() == 1
    assert files(lengths=(7, 8)) == 2
    assert files(lengths=(8, 7)) == 3
    assert files(cut="start") == 4
    assert files(tokenizer=other) == 5
    assert files(questions=QUESTIONS[::-1]) == 6
    assert files(questions=[QUESTIONS[0], QUESTIONS[1], replace(QUESTIONS[2], hops=())]) == 7
    assert files() == 7

    def fail(*_):
        raise AssertionError("it is remembered")

    monkeypatch.setattr(encoding, "_tokenized", fail)
    again = encode_questions(QUESTIONS, words, 8, 8, cache=tmp_path)
    rows = np.arange(3)
    assert all(map(torch.equal, again.batch(rows), encoded.batch(rows)))
    assert all(map(torch.equal, again.hop_batch(rows, 1), encoded.hop_batch(rows, 1)))
    assert again.unknown_rate == encoded.unknown_rate


def test_a_damaged_cache_is_made_again(words, encoded, tmp_path):
    encode_questions(QUESTIONS, words, 8, 8, cache=tmp_path)
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:40])
    again = encode_questions(QUESTIONS, words, 8, 8, cache=tmp_path)
    assert torch.equal(again.batch(np.arange(3)).ids, encoded.batch(np.arange(3)).ids)
    assert file.read_bytes() == whole
