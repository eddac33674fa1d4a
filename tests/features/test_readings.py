import polars as pl
import pytest

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.examples import TopContext
from fluoroscope.features.readings import NO_WORD, NONE_LISTED, NOT_CHANGED, reading

TOKENS = [" bet", " stop", "stop", " goal", " my", "\n"]


def spell(tokens):
    return "".join(TOKENS[token] for token in tokens)


def table(*rows, evidence="observed", latent=7):
    """Rows of word, rate_high, rate_low, z, q."""
    schema = ["word", "rate_high", "rate_low", "z", "q"]
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.select(
        pl.lit("1.resid_post").alias("hook_point"),
        pl.lit(latent).alias("latent"),
        pl.lit(evidence).alias("evidence"),
        pl.all(),
        (pl.col("rate_high") - pl.col("rate_low")).alias("difference"),
    )


def context(tokens, marked, activation=1.0):
    return TopContext(activation, 0, tokens, [activation] * len(tokens), marked)


WORDS = table(
    ("goal", 0.42, 0.11, 6.0, 1e-6),
    ("target", 0.3, 0.1, 4.0, 0.01),
    ("luck", 0.5, 0.45, 1.0, 0.7),
    ("stop", 0.05, 0.2, -5.0, 0.001),
)


def test_a_reading_names_significant_words_with_their_rates_and_no_others():
    assert reading(WORDS, [], [], [], spell) == (
        'Texts in which it is active say "goal" (42% against 11%) and "target" (30% against 10%) '
        'more often, and "stop" (5% against 20%) less often than the texts they are compared with.'
    )


def test_the_strongest_words_are_named_first():
    assert '"goal"' in reading(WORDS, [], [], [], spell, n_words=1)
    assert '"target"' not in reading(WORDS, [], [], [], spell, n_words=1)


def test_logits_and_contexts_make_the_second_sentence():
    contexts = [context([4, 3, 0], 1), context([3], 0), context([0, 4], 1)]
    text = reading(WORDS, contexts, [(0, 1.5), (3, 1.0)], [(1, -2.0), (2, -1.0)], spell)
    assert text.endswith(
        'Its direction raises the logits of "bet" and "goal" and lowers the logits of "stop"; '
        'it is strongest at "goal" (2 of its 3 strongest contexts).'
    )


def test_contexts_that_share_no_token_are_quoted_up_to_the_strongest_place():
    contexts = [context([4, 3, 0, 1], 2), context([3], 0)]
    assert reading(WORDS, contexts, [], [], spell).endswith(
        'It is strongest at the end of "my goal bet".'
    )


def test_nothing_is_claimed_where_nothing_is_beyond_chance():
    chance = WORDS.with_columns(q=pl.lit(0.5))
    assert reading(chance, [], [], [], spell) == NO_WORD
    assert reading(WORDS.clear(), [], [], [], spell) == NONE_LISTED
    edited = table(("goal", 0.42, 0.11, 6.0, 0.2), evidence="interventional")
    assert reading(edited, [], [], [], spell) == NOT_CHANGED


def test_what_an_edit_does_is_not_said_as_what_was_seen():
    edited = table(("goal", 0.42, 0.11, 6.0, 0.01), evidence="interventional")
    assert reading(edited, [], [], [], spell) == (
        'Texts written under its edit say "goal" (42% against 11%) more often than '
        "the same texts without it."
    )


def test_a_token_of_spaces_stays_visible():
    assert 'strongest at the end of "↵"' in reading(WORDS, [context([5], 0)], [], [], spell)


def test_a_reading_is_of_one_latent_and_one_kind_of_evidence():
    with pytest.raises(ConfigError, match=r"got latents \[7, 8\]"):
        reading(pl.concat([WORDS, table(("a", 0.1, 0.2, 1.0, 1.0), latent=8)]), [], [], [], spell)
    mixed = pl.concat([WORDS, table(("a", 0.1, 0.2, 1.0, 1.0), evidence="interventional")])
    with pytest.raises(ConfigError, match="one kind of evidence"):
        reading(mixed, [], [], [], spell)
