"""A latent in a sentence or two, made from its words, its contexts and its effect on logits.

A reading repeats what tables found and adds no claim: words that passed the correction, with their
rates; tokens whose logits the direction raises and lowers; the token it is strongest at. Whoever
wants to know what a latent means, or does, has to test it.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import polars as pl

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.examples import TopContext

NO_WORD = "No word goes along with it beyond chance."
NOT_CHANGED = "No word is said more or less often under its edit beyond chance."
NONE_LISTED = "No word was found to go along with it."
"""For a table without rows: too few texts to compare, or nothing within its `max_q`."""

_CONTEXT_TOKENS = 8
"""Tokens up to the marked one that are quoted where contexts have no token in common."""


def reading(
    latent_words: pl.DataFrame,
    contexts: Sequence[TopContext],
    promoted: Sequence[tuple[int, float]],
    suppressed: Sequence[tuple[int, float]],
    spell: Callable[[Sequence[int]], str],
    n_words: int = 3,
    max_q: float = 0.05,
) -> str:
    """Says what a latent goes along with.

    `latent_words` are the rows of one latent in a table of words, observed or interventional;
    `contexts`, `promoted` and `suppressed` are those of its identity card (any may be empty), and
    `spell` decodes tokens. At most `n_words` of each kind are named.
    """
    sentences = [_words_sentence(latent_words, n_words, max_q)]
    logits = [
        f"{verb} the logits of {_tokens(found, spell, n_words)}"
        for verb, found in (("raises", promoted), ("lowers", suppressed))
        if found
    ]
    clauses = [f"its direction {' and '.join(logits)}"] if logits else []
    clauses += [f"it is strongest {_place(contexts, spell)}"] if contexts else []
    if clauses:
        sentence = "; ".join(clauses)
        sentences.append(f"{sentence[0].upper()}{sentence[1:]}.")
    return " ".join(sentences)


def _words_sentence(table: pl.DataFrame, n_words: int, max_q: float) -> str:
    _check_one_latent(table)
    if table.is_empty():
        return NONE_LISTED
    is_edit = table["evidence"][0] == "interventional"
    found = table.filter(pl.col("q") < max_q).sort(
        pl.col("z").abs(), "word", descending=[True, False]
    )
    if found.is_empty():
        return NOT_CHANGED if is_edit else NO_WORD
    parts = []
    for often, side in (("more", pl.col("difference") > 0), ("less", pl.col("difference") < 0)):
        rows = found.filter(side).head(n_words).rows(named=True)
        if rows:
            parts.append(f"{_listed([_word(row) for row in rows])} {often} often")
    texts = "Texts written under its edit say" if is_edit else "Texts in which it is active say"
    other = "the same texts without it" if is_edit else "the texts they are compared with"
    return f"{texts} {', and '.join(parts)} than {other}."


def _word(row: dict[str, object]) -> str:
    return f'"{row["word"]}" ({row["rate_high"]:.0%} against {row["rate_low"]:.0%})'


def _tokens(
    effects: Sequence[tuple[int, float]], spell: Callable[[Sequence[int]], str], n: int
) -> str:
    # Tokens that differ by their space alone read the same.
    return _listed(list(dict.fromkeys(_quoted(spell([token])) for token, _ in effects))[:n])


def _place(contexts: Sequence[TopContext], spell: Callable[[Sequence[int]], str]) -> str:
    """At the token that most contexts share, or in the strongest context where they share none."""
    marked = Counter(_quoted(spell([c.tokens[c.marked]])) for c in contexts)
    token, n = marked.most_common(1)[0]
    if n > 1:
        return f"at {token} ({n} of its {len(contexts)} strongest contexts)"
    first = contexts[0]
    start = max(0, first.marked + 1 - _CONTEXT_TOKENS)
    return f"at the end of {_quoted(spell(first.tokens[start : first.marked + 1]))}"


def _quoted(text: str) -> str:
    return '"' + (text.strip() or text).replace("\n", "\u21b5") + '"'


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _check_one_latent(table: pl.DataFrame) -> None:
    for column in ("evidence", "hook_point", "latent"):
        if column in table.columns and table[column].n_unique() > 1:
            raise ConfigError(
                f"A reading is of one latent and one kind of evidence, got {column}s "
                f"{table[column].unique().sort().to_list()}."
            )
