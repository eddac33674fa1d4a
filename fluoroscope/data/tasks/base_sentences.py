"""Base sentences of EMGSD: what is left of a text when its marked words are taken out.

"The baker makes ===fatty=== pastries." and "... ===light=== pastries." are variants of one. The
training file has no markers, so `Skeletons` finds a text's variants among the marked ones: the same
words before and behind the mark, three at least. Where nothing is marked, texts of four words or
more that differ in one are variants ("Gay people are ..."). Set apart by rows, most of the
training file has a variant in the test file.
"""

import re
from collections.abc import Iterable, Iterator

from fluoroscope.data.documents import text_id

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_MARK = "==="
MIN_SHARED = 3
_MIN_LENGTH = 4

Words = tuple[str, ...]


def words_of(text: str) -> Words:
    return tuple(word.casefold() for word in _WORD.findall(text))


def marked_parts(marked: str) -> tuple[str, str] | None:
    """What stands before and behind the marked words; None unless exactly one part is marked."""
    parts = marked.split(_MARK)
    return (parts[0], parts[2]) if len(parts) == 3 else None


def base_sentence(marked: str) -> str:
    """The group of a text: the same for all that differ in the marked words alone."""
    parts = marked_parts(marked)
    if parts is None:
        return text_id(" ".join(words_of(marked.replace(_MARK, " "))))
    before, behind = map(words_of, parts)
    return text_id(" ".join((*before, "_", *behind)))


class Skeletons:
    """The base sentences of marked texts, to find variants of them among others."""

    def __init__(self, marked: Iterable[str]) -> None:
        self._behind: dict[Words, set[Words]] = {}
        self._plain: set[Words] = set()
        self._but_one: set[Words] = set()
        for text in marked:
            plain = words_of(text.replace(_MARK, " "))
            self._plain.add(plain)
            self._but_one.update(_without_each(plain))
            if parts := marked_parts(text):
                before, behind = map(words_of, parts)
                if len(before) + len(behind) >= MIN_SHARED:
                    self._behind.setdefault(before, set()).add(behind)

    def variant(self, text: str) -> str:
        """Why the text is a variant of one of them; empty if it is not."""
        words = words_of(text)
        if words in self._plain:
            return "the same words"
        for n in range(len(words) + 1):
            for behind in self._behind.get(words[:n], ()):
                if len(words) >= n + len(behind) and words[len(words) - len(behind) :] == behind:
                    return "the same base sentence"
        if any(one in self._but_one for one in _without_each(words)):
            return "all but one word the same"
        return ""


def _without_each(words: Words) -> Iterator[Words]:
    if len(words) >= _MIN_LENGTH:
        for place in range(len(words)):
            yield (*words[:place], "_", *words[place + 1 :])
