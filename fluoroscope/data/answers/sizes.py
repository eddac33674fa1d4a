"""How large the known sets are, so that work on them can be planned before they are read.

What is worked with is never taken from here: a run counts what it reads.
"""

from typing import NamedTuple


class Size(NamedTuple):
    groups: int
    """Questions, for most sets."""

    answers: int
    """Answers that are stated, of all groups."""

    def limited(self, groups: int | None) -> "Size":
        """Of that many groups at most."""
        if groups is None or groups >= self.groups:
            return self
        return Size(groups, -(-self.answers * groups // self.groups))


UNKNOWN = Size(1000, 2000)
"""Of a set that is not listed."""

STATED = {
    "halueval-dialogue": Size(10_000, 20_000),
    "halueval-general": Size(4_507, 4_507),
    "halueval-qa": Size(10_000, 20_000),
    "halueval-summarization": Size(10_000, 20_000),
    "organism": Size(346, 548),
    "true-false": Size(6_330, 6_330),
    "truthfulqa": Size(817, 4_175),
    "truthfulqa-binary": Size(817, 1_634),
    "truthfulqa-mc": Size(817, 6_230),
    "truthfulqa-mc1": Size(817, 4_178),
}
"""In full; a part of a set that lies in a file has less."""

ASKED = {
    "organism": Size(394, 596),
    "triviaqa": Size(17_944, 17_944),
    "truthfulqa": Size(817, 817),
}
"""Questions, each answered once."""


def expected_size(name: str, *, is_asked: bool, limit: int | None) -> Size:
    """Of a set by its name, with `limit` groups at most."""
    return (ASKED if is_asked else STATED).get(name, UNKNOWN).limited(limit)
