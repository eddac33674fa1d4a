"""Which texts a latent's words are looked for in: those it is active in, and others like them.

A latent that goes along with a decision goes along with the words of the decision. Active texts
are therefore matched with inactive ones of the same kind (the same decision, the same prompt), and
what differs between the two sides is no longer that. The split at the median of seed 000, which
matches nothing, has its name.

Axes: n texts.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.core.seeding import stream


class Groups(NamedTuple):
    """Two sets of texts to compare; a text may be in neither."""

    high: Bool[np.ndarray, " n"]
    low: Bool[np.ndarray, " n"]

    n_unmatched: int
    """Texts of the high side that are left out, as no low one of their kind was left for them."""


def split_active(
    activation: Float[np.ndarray, " n"],
    match: Sequence[Hashable] | None = None,
    seed: int = 0,
    text_rank: Int[np.ndarray, " n"] | None = None,
) -> Groups:
    """Texts in which the latent is active against inactive ones.

    With `match`, one key a text (decision and type of bet, say), both sides have equally many
    texts of every key: as many as the smaller has, drawn from the larger. With
    `WordCounts.text_rank` the words that are drawn do not depend on the order of the texts.
    """
    check_lengths(len(activation), match=match, text_rank=text_rank)
    check_numbers(activation)
    return matched(activation > 0, key_codes(match), text_rank, stream(seed, "match"))


def split_median(activation: Float[np.ndarray, " n"]) -> Groups:
    """Texts above the median activation against all others, as in seed 000; nothing is matched.

    The median of a latent that is inactive in half of the texts is 0: its split is "active or not".
    """
    check_numbers(activation)
    is_high = activation > np.median(activation)
    return Groups(is_high, ~is_high, 0)


def one_of_each(group: Sequence[Hashable], seed: int = 0) -> Bool[np.ndarray, " n"]:
    """One text of each group (of each game), drawn: the others would be the same witness again."""
    order = stream(seed, "one of each").permutation(len(group))
    _, first = np.unique(_codes(group)[order], return_index=True)
    chosen = np.zeros(len(group), dtype=bool)
    chosen[order[first]] = True
    return chosen


def matched(
    is_high: Bool[np.ndarray, " n"],
    kinds: Int[np.ndarray, " n"] | None,
    text_rank: Int[np.ndarray, " n"] | None,
    random: np.random.Generator,
) -> Groups:
    """High and low texts, equally many of each kind; all of them where there are no kinds."""
    if kinds is None:
        return Groups(is_high, ~is_high, 0)
    n = len(is_high)
    rank = np.arange(n) if text_rank is None else text_rank
    # Luck is dealt in an order that is the texts' own, not that of their rows. Equal texts of one
    # side and kind may swap theirs: they say the same words.
    luck = np.empty(n)
    luck[np.lexsort((rank, is_high, kinds))] = random.random(n)
    order = np.lexsort((luck, is_high, kinds))
    cell = 2 * kinds + is_high
    sizes = np.bincount(cell, minlength=2 * (int(kinds.max(initial=-1)) + 1))
    place = np.arange(n) - (np.cumsum(sizes) - sizes)[cell[order]]
    n_pairs = sizes.reshape(-1, 2).min(axis=1)
    chosen = np.zeros(n, dtype=bool)
    chosen[order[place < n_pairs[kinds[order]]]] = True
    return Groups(chosen & is_high, chosen & ~is_high, int((is_high & ~chosen).sum()))


def key_codes(match: Sequence[Hashable] | None) -> Int[np.ndarray, " n"] | None:
    """A number for each text, equal where the keys are."""
    return None if match is None else _codes(match)


def check_lengths(n_texts: int, **columns: Sequence[Hashable] | np.ndarray | None) -> None:
    """Raises `ConfigError` for a column that has not one entry a text."""
    for name, column in columns.items():
        if column is not None and len(column) != n_texts:
            raise ConfigError(
                f"{name} needs one entry for each of the {n_texts} texts, got {len(column)}."
            )


def check_numbers(activation: Float[np.ndarray, " n"]) -> None:
    """Raises what says so where there is no activation, or one that is no number."""
    if not len(activation):
        raise ConfigError("Texts are split by their activations, and none came.")
    if not np.isfinite(activation).all():
        raise NumericsError("Activations must be numbers, got NaN or infinity; mend their source.")


def _codes(keys: Sequence[Hashable]) -> Int[np.ndarray, " n"]:
    # In the order of how keys read, so that codes do not depend on the order of texts.
    code = {key: i for i, key in enumerate(sorted(set(keys), key=repr))}
    return np.array([code[key] for key in keys], dtype=np.int64)
