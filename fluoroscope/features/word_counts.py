"""Which words each of many texts holds, counted once for every later comparison.

A text counts a word once (`presence`): the words of one text are not independent, so a text that
says "bet" ten times is not ten witnesses. `counts` are kept for reading.

Axes: n texts, words.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain

import numpy as np
from jaxtyping import Int
from scipy.sparse import csr_array

from fluoroscope.core.errors import ConfigError

NUMBER = "<number>"
"""What every number is read as: amounts differ from text to text and say the same."""

_ENGLISH = (
    "a an and are as at be been but by can could did do does for from had has have he her his i if "
    "in is it its me my not of on or our she so than that the their them then there these they "
    "this those to us was we were what when which who will with would you your"
)

ENGLISH_STOP_WORDS = frozenset(_ENGLISH.split())
"""Words that may be left out of `WordCounts`; none are unless asked for."""


def tokenise_words(text: str) -> list[str]:
    """The words of a text in lower case, of any script, with `NUMBER` for every number.

    An apostrophe within a word is part of it, a hyphen parts two. A number keeps its decimals and
    thousands to itself ("1,000.50" is one), and ends a word ("10원" is a number and a word).
    Scripts without spaces are not cut into words: a run of Chinese is one.
    """
    plain = unicodedata.normalize("NFKC", text).replace("\u2019", "'").lower()
    return [NUMBER if word[0].isdecimal() else word for word in _word_pattern().findall(plain)]


@dataclass(frozen=True)
class WordCounts:
    """How often each text says each word."""

    words: tuple[str, ...]
    """Sorted."""

    counts: csr_array
    """[n, words]"""

    presence: csr_array
    """[n, words]: 1 where the text says the word at all."""

    text_rank: Int[np.ndarray, " n"]
    """Place of each text in alphabetical order, equal for texts that are equal: draws that go by
    it do not depend on the order in which texts came."""

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        min_documents: int = 5,
        without: Collection[str] = (),
        tokenise: Callable[[str], list[str]] = tokenise_words,
    ) -> "WordCounts":
        """Counts words that at least `min_documents` texts say and that are not in `without`.

        A text may be empty: it says no word, and is a text all the same.
        """
        if not texts:
            raise ConfigError("Words are counted in texts, and none came.")
        found = [Counter(tokenise(text)) for text in texts]
        documents = Counter(chain.from_iterable(found))
        words = sorted(
            word for word, n in documents.items() if n >= min_documents and word not in without
        )
        if not words:
            raise ConfigError(
                f"No word is in {min_documents} or more of the {len(texts)} texts "
                f"({len(documents)} words are in fewer, or were to be left out); "
                "give more texts or a smaller min_documents."
            )
        counts = _matrix(found, words)
        presence = counts.copy()
        presence.data[:] = 1
        rank = np.unique(np.array(texts, dtype=object), return_inverse=True)[1]
        return cls(tuple(words), counts, presence, rank.astype(np.int64))

    @property
    def n_texts(self) -> int:
        return len(self.text_rank)

    @property
    def document_frequency(self) -> Int[np.ndarray, " words"]:
        """Number of texts that say each word."""
        return np.bincount(self.presence.indices, minlength=len(self.words))


def _matrix(found: Sequence[Counter[str]], words: Sequence[str]) -> csr_array:
    column = {word: i for i, word in enumerate(words)}
    rows = [
        sorted((column[word], n) for word, n in text.items() if word in column) for text in found
    ]
    flat = np.array(list(chain.from_iterable(rows)), dtype=np.int64).reshape(-1, 2)
    starts = np.cumsum([0, *(len(row) for row in rows)])
    return csr_array((flat[:, 1], flat[:, 0], starts), shape=(len(found), len(words)))


@cache
def _word_pattern() -> re.Pattern[str]:
    # Vowel signs of Indic scripts and loose accents are no letters to `re`, and would cut words.
    signs = (chr(code) for code in range(0x300, 0x10000))
    marks = re.escape("".join(c for c in signs if unicodedata.category(c) in ("Mn", "Mc")))
    letter = r"[^\W\d_]"
    word = rf"{letter}(?:{letter}|[{marks}])*"
    return re.compile(rf"\d+(?:[.,]\d+)*|{word}(?:'{word})*")
