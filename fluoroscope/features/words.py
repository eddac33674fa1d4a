"""Which words go with a latent: texts in which it is active against texts in which it is not.

The unit is the text, which says a word or does not (document frequency). The size of a difference
is a log-odds ratio drawn towards the rate of all texts by a Dirichlet prior, as in Monroe, Colaresi
and Quinn 2008 ("Fightin' Words"). Whether it is chance is told by an exact test: z-scores of a
handful of texts against thousands promise too much. Benjamini-Hochberg runs over all words and
latents together.

Texts count as independent of each other. Those of one game are not: `one_of_each` draws one a game.
What goes along with a latent ("observed") and what an edit of it makes texts say ("interventional")
are tables of one form that are never corrected together.

Axes: n texts, words, latents, tests (a word and a latent), pairs (one luck, with and without edit).
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_array, csr_array
from scipy.stats import binom, false_discovery_control

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.intervals import paired_interval
from fluoroscope.core.seeding import stream
from fluoroscope.features.word_counts import WordCounts
from fluoroscope.features.word_groups import (
    check_lengths,
    check_numbers,
    key_codes,
    matched,
    split_median,
)
from fluoroscope.features.word_tests import (
    PRIOR_STRENGTH,
    WordTests,
    difference_interval,
    exact_p,
    log_odds,
)

Split = Literal["active", "median"]
Evidence = Literal["observed", "interventional"]

_BLOCK = 256
"""Latents whose groups of texts are held at once."""


def word_contrast(
    words: WordCounts,
    high: Bool[np.ndarray, " n"],
    low: Bool[np.ndarray, " n"],
    prior_strength: float = PRIOR_STRENGTH,
) -> pl.DataFrame:
    """One row for each word that some text of `high` or `low` says; those of `high` first.

    Columns: evidence; word; n_high of texts_high texts with the word, n_low of texts_low; rates and
    their difference with a 95 % interval (Agresti and Caffo 2000); log_odds and z; p of Fisher's
    exact test (twice the tail on the side of the difference); q over the n_tests of the table;
    n_unmatched high texts that were left out.
    """
    check_lengths(words.n_texts, high=high, low=low)
    if (high & low).any():
        raise ConfigError(f"{int((high & low).sum())} texts are on both sides of the contrast.")
    if not high.any() or not low.any():
        raise ConfigError(
            f"A contrast needs texts on both sides, got {int(high.sum())} high and "
            f"{int(low.sum())} low."
        )
    n_high, n_low = _texts_with_word(words, [high, low])
    tests = WordTests.of(n_high[None], n_low[None], np.array([[high.sum(), low.sum()]]))
    return _corrected(_sorted(_table(words, tests, exact_p(tests), "observed", prior_strength)))


def group_words(
    words: WordCounts,
    group: Bool[np.ndarray, " n"],
    match: Sequence[Hashable] | None = None,
    seed: int = 0,
    prior_strength: float = PRIOR_STRENGTH,
) -> pl.DataFrame:
    """`word_contrast` of the texts of a group (of bankrupt games, say) against all others, or, with
    `match`, against equally many others of the same key.
    """
    check_lengths(words.n_texts, group=group, match=match)
    found = matched(group, key_codes(match), words.text_rank, stream(seed, "match"))
    table = word_contrast(words, found.high, found.low, prior_strength)
    return table.with_columns(n_unmatched=pl.lit(found.n_unmatched, pl.Int64))


def word_contrasts(
    words: WordCounts,
    activations: csc_array,
    latents: Sequence[tuple[str, int]],
    match: Sequence[Hashable] | None = None,
    split: Split = "active",
    seed: int = 0,
    prior_strength: float = PRIOR_STRENGTH,
    max_q: float = 1.0,
) -> pl.DataFrame:
    """`word_contrast` for many latents, with q over all words and latents together.

    `activations` are [n, latents]; `latents` are the hook point and the index of each column, and
    rows go in their order. A latent without texts on one of the sides is no test and has no rows.
    Rows of a q above `max_q` are left out after they were counted, which keeps the table of many
    latents small.
    """
    _check_contrasts(words, activations, latents, match, split)
    kinds = key_codes(match)
    counts, sizes = [], []
    for start in range(0, len(latents), _BLOCK):
        groups = [
            split_median(activation)
            if split == "median"
            else matched(activation > 0, kinds, words.text_rank, stream(seed, "match", *latent))
            for latent, activation in _columns(activations, latents, start)
        ]
        highs, lows = [g.high for g in groups], [g.low for g in groups]
        counts.append((_texts_with_word(words, highs), _texts_with_word(words, lows)))
        sizes += [(g.high.sum(), g.low.sum(), g.n_unmatched) for g in groups]
    n_high, n_low = (np.concatenate(side) for side in zip(*counts, strict=True))
    about = np.array(sizes, dtype=np.int64)
    tests = WordTests.of(n_high, n_low, about[:, :2])
    p = exact_p(tests)
    q = _q_values(p)
    kept = np.flatnonzero(q <= max_q)
    tests = tests.take(kept)
    table = _table(words, tests, p[kept], "observed", prior_strength).with_columns(
        q=q[kept], n_tests=pl.lit(len(q), pl.Int64), n_unmatched=about[tests.row, 2]
    )
    hook_points = pl.Series(values=[hook_point for hook_point, _ in latents], dtype=pl.String)
    named = table.select(
        pl.Series("hook_point", hook_points.gather(tests.row)),
        pl.Series("latent", np.array([latent for _, latent in latents])[tests.row]),
        pl.all(),
        pl.Series("row", tests.row),
    )
    return _sorted(named, "row").drop("row")


def paired_word_contrast(
    words: WordCounts,
    with_edit: Int[np.ndarray, " pairs"],
    without: Int[np.ndarray, " _"],
    prior_strength: float = PRIOR_STRENGTH,
) -> pl.DataFrame:
    """What an edit makes texts say: the columns of `word_contrast`, from pairs of texts.

    `with_edit` and `without` are the rows in `words` of the two texts of each pair, written to one
    prompt by one luck with the edit (high) and without it (low). p is of the exact McNemar test,
    the interval is Bonett and Price's (2012). log_odds and z compare the two rates as if nothing
    were paired, so that they mean here what they mean in the observed list.
    """
    _check_pairs(words, with_edit, without)
    says = [words.presence[rows].astype(np.int64) for rows in (with_edit, without)]
    change = says[0] - says[1]
    gained, lost = _column_sums(change > 0), _column_sums(change < 0)
    n_pairs = len(with_edit)
    tests = WordTests.of(
        _column_sums(says[0])[None], _column_sums(says[1])[None], np.array([[n_pairs, n_pairs]])
    )
    gained, lost = gained[tests.word], lost[tests.word]
    p = np.minimum(1.0, 2 * binom.cdf(np.minimum(gained, lost), gained + lost, 0.5))
    found = [paired_interval(int(a), int(b), n_pairs) for a, b in zip(gained, lost, strict=True)]
    table = _table(words, tests, p, "interventional", prior_strength).with_columns(
        pl.Series("difference_low", [interval.low for interval in found], pl.Float64),
        pl.Series("difference_high", [interval.high for interval in found], pl.Float64),
    )
    return _corrected(_sorted(table))


def corrected_together(tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Tables of several contrasts as one, with q over all of their tests.

    What each is about stands in columns of their own (hook point, latent, value of an edit). They
    are whole: to pick rows before the correction would hide tests.
    """
    whole = pl.concat(tables)
    evidence = whole["evidence"].unique().sort().to_list()
    if len(evidence) > 1:
        raise ConfigError(f"Tables of one kind of evidence are corrected together, got {evidence}.")
    picked = [i for i, table in enumerate(tables) if (table["n_tests"] != len(table)).any()]
    if picked:
        raise ConfigError(f"Tables {picked} lack some of their tests; give them whole.")
    return _corrected(whole)


def _texts_with_word(
    words: WordCounts, masks: Sequence[Bool[np.ndarray, " n"]]
) -> Int[np.ndarray, "latents words"]:
    return (words.presence.T @ np.stack(masks, axis=1).astype(np.int32)).T


def _column_sums(matrix: csr_array) -> Int[np.ndarray, " words"]:
    return np.asarray(matrix.sum(axis=0), dtype=np.int64)


def _columns(
    activations: csc_array, latents: Sequence[tuple[str, int]], start: int
) -> Iterator[tuple[tuple[str, int], Float[np.ndarray, " n"]]]:
    block = activations[:, start : start + _BLOCK].toarray()
    return zip(latents[start : start + _BLOCK], block.T, strict=True)


def _table(
    words: WordCounts,
    tests: WordTests,
    p: Float[np.ndarray, " tests"],
    evidence: Evidence,
    prior_strength: float,
) -> pl.DataFrame:
    # Half a text more on either side: a word that all texts say has no odds.
    rate = ((words.document_frequency + 0.5) / (words.n_texts + 1))[tests.word]
    odds = log_odds(*tests[2:], rate, prior_strength)
    rate_high, rate_low = tests.n_high / tests.texts_high, tests.n_low / tests.texts_low
    low, high = difference_interval(tests)
    return pl.DataFrame(
        {
            "evidence": pl.repeat(evidence, len(p), dtype=pl.String, eager=True),
            "word": pl.Series(values=words.words, dtype=pl.String).gather(tests.word),
            "n_high": tests.n_high,
            "texts_high": tests.texts_high,
            "rate_high": rate_high,
            "n_low": tests.n_low,
            "texts_low": tests.texts_low,
            "rate_low": rate_low,
            "difference": rate_high - rate_low,
            "difference_low": low,
            "difference_high": high,
            "log_odds": odds.value,
            "z": odds.z,
            "p": p,
            "q": np.full(len(p), np.nan),
            "n_tests": np.full(len(p), len(p), dtype=np.int64),
            "n_unmatched": np.zeros(len(p), dtype=np.int64),
        }
    )


def _sorted(table: pl.DataFrame, *first: str) -> pl.DataFrame:
    return table.sort(*first, "z", "word", descending=[False] * len(first) + [True, False])


def _corrected(table: pl.DataFrame) -> pl.DataFrame:
    q = _q_values(table["p"].to_numpy())
    return table.with_columns(q=q, n_tests=pl.lit(len(table), pl.Int64))


def _q_values(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    return false_discovery_control(p) if len(p) else p


def _check_contrasts(
    words: WordCounts,
    activations: csc_array,
    latents: Sequence[tuple[str, int]],
    match: Sequence[Hashable] | None,
    split: Split,
) -> None:
    if activations.shape != (words.n_texts, len(latents)) or not latents:
        raise ConfigError(
            f"Activations must be [{words.n_texts} texts, {len(latents)} latents], with one latent "
            f"or more, got {activations.shape}."
        )
    if len(set(latents)) < len(latents):
        raise ConfigError("Some latents were named twice; give each column its own.")
    if split == "median" and match is not None:
        raise ConfigError(
            'The median split matches nothing; leave out match, or split by "active".'
        )
    check_lengths(words.n_texts, match=match)
    check_numbers(activations.data if activations.nnz else np.zeros(1))


def _check_pairs(
    words: WordCounts, with_edit: Int[np.ndarray, " pairs"], without: Int[np.ndarray, " _"]
) -> None:
    if len(with_edit) != len(without) or not len(with_edit):
        raise ConfigError(
            "Each text with the edit has one without it, and there is one pair or more, "
            f"got {len(with_edit)} and {len(without)}."
        )
    rows = np.concatenate([with_edit, without])
    if len(np.unique(rows)) < len(rows):
        raise ConfigError("Some texts are in two pairs, or on both sides of one; give each once.")
    if rows.min() < 0 or rows.max() >= words.n_texts:
        raise ConfigError(
            f"Pairs are rows 0 to {words.n_texts - 1} of the texts, got {rows.min()} "
            f"to {rows.max()}."
        )
