import numpy as np
import pytest

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.word_counts import ENGLISH_STOP_WORDS, NUMBER, WordCounts, tokenise_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I'll BET, don’t stop!", ["i'll", "bet", "don't", "stop"]),
        ("Bet $1,000.50 or 10%. Option 2.", ["bet", NUMBER, "or", NUMBER, "option", NUMBER]),
        ("배팅 10원, 그만!", ["배팅", NUMBER, "원", "그만"]),
        ("all-in x_y 'quoted'", ["all", "in", "x", "y", "quoted"]),
        ("e\u0301cole ÉCOLE हिन्दी", ["école", "école", "हिन्दी"]),
        ("\uff12\uff10 ¥", [NUMBER]),
        (" ?!\n", []),
    ],
)
def test_words_are_lower_cased_runs_of_letters_of_any_script_and_numbers_are_one(text, words):
    assert tokenise_words(text) == words


def test_words_that_are_one_in_two_spellings_of_unicode_are_one_word():
    decomposed = "\u1100\u1173\u1106\u1161\u11ab"
    assert tokenise_words(decomposed) == ["그만"]


def test_a_text_counts_a_word_once_however_often_it_says_it():
    words = WordCounts.of(["bet bet bet stop", "bet", ""], min_documents=1)
    assert words.words == ("bet", "stop")
    assert words.counts.toarray().tolist() == [[3, 1], [1, 0], [0, 0]]
    assert words.presence.toarray().tolist() == [[1, 1], [1, 0], [0, 0]]
    assert words.document_frequency.tolist() == [2, 1]
    assert words.n_texts == 3


def test_rare_words_are_left_out_and_stop_words_only_when_asked_for():
    texts = ["the bet", "the bet", "the stop"]
    assert WordCounts.of(texts, min_documents=2).words == ("bet", "the")
    assert WordCounts.of(texts, 2, without=ENGLISH_STOP_WORDS).words == ("bet",)


def test_equal_texts_have_one_rank_in_any_order():
    texts = ["b", "a", "b", "c"]
    assert WordCounts.of(texts, 1).text_rank.tolist() == [1, 0, 1, 2]
    back = WordCounts.of(texts[::-1], 1).text_rank
    np.testing.assert_array_equal(back[::-1], [1, 0, 1, 2])


def test_texts_without_words_say_so():
    with pytest.raises(ConfigError, match="none came"):
        WordCounts.of([])
    with pytest.raises(ConfigError, match="No word is in 1 or more of the 2 texts"):
        WordCounts.of(["", "?"], min_documents=1)
    with pytest.raises(ConfigError, match="smaller min_documents"):
        WordCounts.of(["bet", "stop"])
