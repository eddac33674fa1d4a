import random

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, T5TokenizerFast

from fluoroscope.core.errors import ConfigError, CorpusError, ModelError
from fluoroscope.data.questions.question import Question
from fluoroscope.data.questions.tokenizer import (
    load_tokenizer,
    text_tokenizer,
    tokenizer_of,
    trained_tokenizer,
)
from fluoroscope.data.questions.tokenizer_config import TokenizerConfig

TEXTS = [
    "solve: Ann has 12 apples and 3 bags.",
    "solve: Ben has 12 bags; how many are red?",
    "follow: n0 > n2 ; n2 > n0 . from n0 next",
] * 4


def question(source, target, hops=()):
    return Question("q", "g", "train", source, target, depth=len(hops) or None, hops=hops)


@pytest.fixture(scope="module")
def bpe():
    return trained_tokenizer(TEXTS, "bpe", 320)


@pytest.fixture(scope="module")
def words():
    return trained_tokenizer(TEXTS, "words", 100)


def test_special_tokens_come_first_and_ids_are_below_the_size(bpe, words):
    for one in (bpe, words):
        assert (one.pad_id, one.eos_id, one.unk_id) == (0, 1, 2)
        assert one.vocab_size == len(one.network)
        assert max(max(ids) for ids in one.encode(TEXTS)) < one.vocab_size
    assert bpe.vocab_size <= 320


@pytest.mark.parametrize(
    "text", ["Ann has 12 apples.", "never seen before: 7,089 + x²?", "日本 and <pad> too"]
)
def test_bpe_gives_back_whatever_it_reads(bpe, text):
    assert bpe.decode(bpe.encode([text])[0]) == text


def test_words_give_back_the_words_that_they_know(words):
    [ids] = words.encode(["from n2 next > next zebra"])
    assert words.decode(ids) == "from n2 next > next <unk>"
    assert len(ids) == 6


def test_an_answer_is_the_same_token_as_in_the_question(bpe):
    [inside, alone] = bpe.encode(["how many bags", "bags"])
    assert inside[-len(alone) :] == alone


def test_every_digit_is_a_token_of_bpe(bpe):
    blank = bpe.encode(["x 1"])[0][-2]
    assert bpe.encode(["x 1212"])[0][-5:] == [
        blank,
        *(bpe.encode([f"x {digit}"])[0][-1] for digit in "1212"),
    ]


def test_decoding_ends_at_the_end_and_hides_padding_alone(words):
    [ids] = words.encode(["from n2"])
    assert words.decode([words.pad_id, *ids, words.eos_id, *ids]) == "from n2"
    assert words.decode([words.unk_id, *ids]) == "<unk> from n2"
    assert words.decode([]) == ""


def test_special_tokens_in_a_text_are_text(bpe, words):
    assert not {bpe.eos_id, bpe.pad_id} & set(bpe.encode(["a <eos> b <pad>"])[0])
    assert not {words.eos_id, words.pad_id} & set(words.encode(["a <eos> b <pad>"])[0])


@pytest.mark.parametrize("kind", ["bpe", "words"])
def test_the_same_texts_give_the_same_file_in_any_order(kind, tmp_path):
    turned = random.Random(0).sample(TEXTS, len(TEXTS))
    for folder, texts in (("one", TEXTS), ("two", turned)):
        trained_tokenizer(texts, kind, 320).save(tmp_path / folder)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


@pytest.mark.parametrize("kind", ["bpe", "words"])
def test_a_saved_tokenizer_is_one_that_any_library_reads(kind, tmp_path):
    saved = trained_tokenizer(TEXTS, kind, 320)
    saved.save(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.hash == saved.hash
    assert loaded.encode(TEXTS) == saved.encode(TEXTS)
    assert (loaded.pad_id, loaded.eos_id, loaded.vocab_size) == (0, 1, saved.vocab_size)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    assert plain(TEXTS[0], add_special_tokens=False)["input_ids"] == saved.encode(TEXTS[:1])[0]


def test_it_is_trained_on_the_questions_it_is_given_with_answers_and_hops(tmp_path):
    train = [question("from n1 next next", "n3", ("n2", "n3"))]

    def tokenizer(source="trained", is_made=True):
        return text_tokenizer(TokenizerConfig(source=source), train, is_made=is_made)

    found = tokenizer()
    assert found.decode(found.encode(["n1 n2 n3 n4"])[0]) == "n1 n2 n3 <unk>"
    parts = tokenizer(is_made=False)
    assert parts.decode(parts.encode(["n1 n4"])[0]) == "n1 n4"
    found.save(tmp_path)
    again = tokenizer(source=str(tmp_path))
    assert again.hash == found.hash
    assert again.source == str(tmp_path)


def test_gaps_of_t5_are_not_part_of_its_vocabulary():
    pieces = ["<pad>", "</s>", "<unk>", "▁", "▁yes", "▁no", *"<>_abcdefghijklmnopqrstuvwxyz0123"]
    network = T5TokenizerFast(vocab=[(piece, -float(i)) for i, piece in enumerate(pieces)])
    assert len(network) == len(pieces) + 100
    found = tokenizer_of(network, "t5")
    assert (found.pad_id, found.eos_id, found.unk_id) == (0, 1, 2)
    assert found.vocab_size == len(pieces)
    ids = found.encode(["yes <extra_id_0> no"])[0]
    assert max(ids) < found.vocab_size
    assert found.decode([*found.encode(["yes no"])[0], found.eos_id]) == "yes no"


def test_a_tokenizer_without_padding_or_end_is_refused():
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    network = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="a")
    with pytest.raises(ModelError, match="needs a token for padding"):
        tokenizer_of(network, "mine")


def test_what_cannot_be_trained_or_opened_is_named(tmp_path):
    with pytest.raises(ConfigError, match="vocab_size must be 259 at least"):
        trained_tokenizer(TEXTS, "bpe", 100)
    with pytest.raises(CorpusError, match="and it is empty"):
        text_tokenizer(TokenizerConfig(), [], is_made=True)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="could not be opened"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("answer", ["0.5", "-7", "don't"])
def test_answers_that_words_cannot_write_are_refused(answer):
    asked = [question("how many are left?", "some"), question("how many?", answer)]
    with pytest.raises(ConfigError, match=r"could never be right.*kind=bpe"):
        text_tokenizer(TokenizerConfig(kind="words"), asked, is_made=False)
    bpe = text_tokenizer(TokenizerConfig(kind="bpe"), asked, is_made=False)
    assert bpe.decode(bpe.encode([answer])[0]) == answer
