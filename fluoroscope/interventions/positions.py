"""At which positions of a row an edit acts.

    PROMPT      every position of the prompt
    LAST        the prompt's last position, whose logits draw the first token
    GENERATED   every position that holds a generated token
    ALL         PROMPT | GENERATED
    at([0, -1])         positions of the prompt, counted from 0, or from its end if negative
    after("Answer:")    what follows the first occurrence of a text in the prompt, and GENERATED
    slots([0, 3])       in a model whose positions are slots (`LanguageModel.n_slots`): these slots;
                        ALL is all of them, and nothing else is allowed there

`LAST | GENERATED` is where CorrSteer adds and where a patch of a running model acts: wherever a
token is drawn. In a pass over whole texts (`forward`) the text is the prompt.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from fluoroscope.core.errors import InterventionError

FOREVER = 2**62
"""A position that no row reaches."""

Span = tuple[int, int]
"""Positions from the first number to before the second."""


def count_before(spans: Sequence[Span], n: int) -> int:
    """How many positions of some spans lie before position `n`."""
    return sum(max(0, min(stop, n) - start) for start, stop in spans)


@dataclass(frozen=True)
class Positions:
    """A set of positions; sets are joined by `|`, and written as they are made."""

    parts: tuple["_Part", ...]

    def __or__(self, other: "Positions") -> "Positions":
        return Positions((*self.parts, *(part for part in other.parts if part not in self.parts)))

    def __str__(self) -> str:
        return " | ".join(str(part) for part in self.parts)

    def spans(
        self, prompt: tuple[int, ...], tokenizer: PreTrainedTokenizerBase
    ) -> tuple[Span, ...]:
        """The positions in a row with this prompt: sorted, apart, and none twice."""
        found = sorted(span for part in self.parts for span in part.spans(prompt, tokenizer))
        joined: list[Span] = []
        for start, stop in found:
            if joined and start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
            else:
                joined.append((start, stop))
        return tuple(joined)

    def check(self, name: str, n_slots: int | None) -> None:
        """Raises `InterventionError` where tokens are asked of a model of slots, or the reverse;
        `name` is the model's.
        """
        for part in self.parts:
            if isinstance(part, _Slots):
                if n_slots is None:
                    raise InterventionError(
                        f"{part} names slots, and the positions of {name} are the tokens of a "
                        "text. Take ALL, LAST, at([...]) or another of those."
                    )
                if max(part.places) >= n_slots:
                    raise InterventionError(
                        f"{part} names slot {max(part.places)}, and {name} has the slots 0 to "
                        f"{n_slots - 1}."
                    )
            elif n_slots is not None and part != _EVERY:
                raise InterventionError(
                    f"{part} names tokens of a text, and the positions of {name} are its "
                    f"{n_slots} slots, which are no tokens. Take ALL, or slots([...])."
                )

    @staticmethod
    def parse(text: str) -> "Positions":
        r"""From what `str` gives: `last|generated`, `at(0,-1)`, `after(Answer:)`, `slots(0,3)`.

        A closing bracket inside a text is written `\)`.
        """
        parts: list[_Part] = []
        # Every part and the bar behind it; behind the last part there is none.
        rest = f"{text}|"
        while rest:
            found = _WRITTEN.match(rest)
            if found is None:
                raise InterventionError(
                    f"Positions are {', '.join(_NAMED)}, at(0,-1), after(TEXT) or slots(0,3), "
                    f"joined by |; got {text!r}."
                )
            parts += _written_part(found).parts
            rest = rest[found.end() :]
        return Positions(tuple(dict.fromkeys(parts)))


@dataclass(frozen=True)
class _Named:
    name: str

    def __str__(self) -> str:
        return self.name

    def spans(self, prompt: tuple[int, ...], _tokenizer: object) -> list[Span]:
        n = len(prompt)
        match self.name:
            case "PROMPT":
                return [(0, n)]
            case "LAST":
                return [(max(0, n - 1), n)]
            case "GENERATED":
                return [(n, FOREVER)]
            case _:
                return [(0, FOREVER)]


@dataclass(frozen=True)
class _At:
    places: tuple[int, ...]

    def __str__(self) -> str:
        return f"at({','.join(map(str, self.places))})"

    def spans(self, prompt: tuple[int, ...], _tokenizer: object) -> list[Span]:
        n = len(prompt)
        for place in self.places:
            if not -n <= place < n:
                raise InterventionError(
                    f"{self} needs position {place}, and the prompt has {n} tokens: 0 to {n - 1}, "
                    f"or -1 to -{n} from its end."
                )
        return [(place % n, place % n + 1) for place in self.places]


@dataclass(frozen=True)
class _After:
    marker: str

    def __str__(self) -> str:
        escaped = re.sub(r"([\\)])", r"\\\1", self.marker)
        return f"after({escaped})"

    def spans(self, prompt: tuple[int, ...], tokenizer: PreTrainedTokenizerBase) -> list[Span]:
        return [(_end_of_marker(tokenizer, prompt, self.marker), FOREVER)]


@dataclass(frozen=True)
class _Slots:
    places: tuple[int, ...]

    def __str__(self) -> str:
        return f"slots({','.join(map(str, self.places))})"

    def spans(self, _prompt: tuple[int, ...], _tokenizer: object) -> list[Span]:
        return [(place, place + 1) for place in self.places]


_Part = _Named | _At | _After | _Slots


def at(places: Sequence[int]) -> Positions:
    """These positions of the prompt, from 0, or from its end where negative."""
    if not places:
        raise InterventionError("at([]) names no position; give at least one.")
    return Positions((_At(tuple(dict.fromkeys(places))),))


def after(marker: str) -> Positions:
    """All positions behind the token that completes the first `marker` in the prompt."""
    if not marker:
        raise InterventionError("after('') marks nothing; give the text behind which to edit.")
    return Positions((_After(marker),))


def slots(places: Sequence[int]) -> Positions:
    """These slots, from 0, of a model whose positions are slots."""
    if not places or min(places) < 0:
        raise InterventionError(
            f"slots needs numbers of slots, counted from 0; got {list(places)}. They have no end "
            "to count from."
        )
    return Positions((_Slots(tuple(dict.fromkeys(places))),))


PROMPT = Positions((_Named("PROMPT"),))
LAST = Positions((_Named("LAST"),))
GENERATED = Positions((_Named("GENERATED"),))
_EVERY = _Named("ALL")
ALL = Positions((_EVERY,))
_NAMED = {"PROMPT": PROMPT, "LAST": LAST, "GENERATED": GENERATED, "ALL": ALL}


_WRITTEN = re.compile(
    rf"\s*(?:(?P<name>{'|'.join(_NAMED)})|(?P<kind>at|slots)\((?P<places>[^)]*)\)"
    r"|after\((?P<marker>(?:\\[\\)]|[^)])*+)\))\s*\|",
    re.IGNORECASE,
)


def _written_part(found: re.Match[str]) -> Positions:
    if found["name"] is not None:
        return _NAMED[found["name"].upper()]
    if found["marker"] is not None:
        return after(re.sub(r"\\([\\)])", r"\1", found["marker"]))
    kind = found["kind"].lower()
    try:
        numbers = [int(number) for number in found["places"].split(",")]
    except ValueError as error:
        raise InterventionError(
            f"Write positions as {kind}(0,1), got {kind}({found['places']})."
        ) from error
    return at(numbers) if kind == "at" else slots(numbers)


@lru_cache(maxsize=4096)
def _end_of_marker(tokenizer: PreTrainedTokenizerBase, prompt: tuple[int, ...], marker: str) -> int:
    """The first position behind the token that completes the marker."""
    # Letters of the names of special tokens are no text, unless the marker holds such a name.
    names = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    is_special = any(name in marker for name in names)
    text = _decode(tokenizer, prompt, is_special)
    if marker not in text:
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        raise InterventionError(f"after({marker}): the prompt {shown!r} does not contain it.")
    # More tokens only add to the text, so the first prefix that contains it is found by halving.
    # Half a character at its end, of up to three tokens, may spoil whole ones, and is let go.
    low, high = 1, len(prompt)
    while low < high:
        middle = (low + high) // 2
        prefixes = (prompt[:n] for n in range(middle, max(0, middle - 4), -1))
        if any(marker in _decode(tokenizer, prefix, is_special) for prefix in prefixes):
            high = middle
        else:
            low = middle + 1
    return low


def _decode(tokenizer: PreTrainedTokenizerBase, tokens: tuple[int, ...], is_special: bool) -> str:
    # Cleaning would take away spaces of earlier tokens, and then texts would not only grow.
    found = tokenizer.decode(
        list(tokens), skip_special_tokens=not is_special, clean_up_tokenization_spaces=False
    )
    assert isinstance(found, str)
    return found
