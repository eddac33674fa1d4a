import math

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy.sparse import csc_array
from scipy.stats import binomtest, false_discovery_control, fisher_exact
from statsmodels.stats.proportion import confint_proportions_2indep

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.features.word_counts import WordCounts
from fluoroscope.features.word_groups import split_active
from fluoroscope.features.words import (
    corrected_together,
    group_words,
    log_odds,
    paired_word_contrast,
    word_contrast,
    word_contrasts,
)

POINT = "1.resid_post"


def vocabulary(n):
    return [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(n)]


def random_texts(n, luck, n_words=60):
    """Texts whose words are common to rare, and have nothing to do with anything."""
    rates = 0.6 / np.arange(1, n_words + 1) ** 0.7
    names = np.array(vocabulary(n_words))
    return [" ".join(names[luck.random(n_words) < rates]) for _ in range(n)]


def as_one_latent(activation):
    return csc_array(np.asarray(activation, dtype=np.float32)[:, None])


def row(table, word):
    return table.row(by_predicate=pl.col("word") == word, named=True)


def test_log_odds_of_a_hand_counted_example():
    # "goal" in 3 of 4 texts against 1 of 6, and a prior of 2 texts of which 0.8 say it.
    found = log_odds(
        np.array([3]), np.array([1]), np.array([4]), np.array([6]), np.array([0.4]), 2.0
    )
    high, low = 3.8 / 2.2, 1.8 / 6.2
    value = math.log(high) - math.log(low)
    sd = math.sqrt(1 / 3.8 + 1 / 2.2 + 1 / 1.8 + 1 / 6.2)
    assert found.value.item() == pytest.approx(value)
    assert found.z.item() == pytest.approx(value / sd)


def test_a_row_of_a_contrast_is_what_a_hand_would_count():
    texts = ["goal bet goal", "goal bet", "bet goal", "bet", "bet", "bet goal", "bet", "bet"]
    words = WordCounts.of(texts, min_documents=1)
    high = np.arange(8) < 4
    found = row(word_contrast(words, high, ~high, prior_strength=5.0), "goal")
    assert (found["n_high"], found["texts_high"], found["n_low"], found["texts_low"]) == (
        3,
        4,
        1,
        4,
    )
    assert (found["rate_high"], found["rate_low"], found["difference"]) == (0.75, 0.25, 0.5)
    rate = 4.5 / 9
    high_odds, low_odds = (3 + 5 * rate) / (1 + 5 - 5 * rate), (1 + 5 * rate) / (3 + 5 - 5 * rate)
    assert found["log_odds"] == pytest.approx(math.log(high_odds / low_odds))
    # 17 of the 70 ways to deal 4 of 8 texts give the high side 3 or 4 of the 4 with "goal".
    assert found["p"] == pytest.approx(2 * 17 / 70)
    assert found["evidence"] == "observed"


def test_probabilities_are_those_of_fisher_and_intervals_those_of_agresti_and_caffo():
    luck = np.random.default_rng(0)
    words = WordCounts.of(random_texts(90, luck), min_documents=1)
    high = luck.random(90) < 0.2
    for found in word_contrast(words, high, ~high).rows(named=True):
        a, n, b, m = (found[k] for k in ("n_high", "texts_high", "n_low", "texts_low"))
        side = "greater" if a / n >= b / m else "less"
        _, tail = np.asarray(fisher_exact([[a, n - a], [b, m - b]], alternative=side))
        assert found["p"] == pytest.approx(min(1.0, 2 * tail), rel=1e-9)
        low, up = confint_proportions_2indep(a, n, b, m, compare="diff", method="agresti-caffo")
        assert found["difference_low"] == pytest.approx(low)
        assert found["difference_high"] == pytest.approx(up)


def test_rows_go_from_words_of_one_side_to_words_of_the_other_and_swap_with_them():
    luck = np.random.default_rng(1)
    words = WordCounts.of(random_texts(80, luck))
    high = luck.random(80) < 0.4
    there, back = word_contrast(words, high, ~high), word_contrast(words, ~high, high)
    assert there["z"].is_sorted(descending=True)
    joined = there.join(back, on="word", suffix="_back")
    np.testing.assert_allclose(joined["z"], -joined["z_back"])
    np.testing.assert_allclose(joined["p"], joined["p_back"])


def planted(n=400, seed=0):
    """Texts of which those with an active latent say "planted" more often."""
    luck = np.random.default_rng(seed)
    active = luck.random(n) < 0.2
    says = luck.random(n) < np.where(active, 0.7, 0.15)
    texts = [
        f"{text} planted" if is_so else text
        for text, is_so in zip(random_texts(n, luck), says, strict=True)
    ]
    others = (luck.random((n, 9)) < 0.2) * luck.random((n, 9))
    return texts, np.column_stack([active * luck.uniform(0.1, 2, n), others])


def test_a_word_that_goes_with_one_latent_is_found_and_others_at_the_nominal_rate():
    false_shares = []
    for seed in range(20):
        texts, activations = planted(seed=seed)
        latents = [(POINT, 10 + i) for i in range(10)]
        table = word_contrasts(WordCounts.of(texts), csc_array(activations), latents)
        found = table.filter(pl.col("q") < 0.05).sort("q")
        assert found.select("hook_point", "latent", "word").row(0) == (POINT, 10, "planted")
        assert found["difference"][0] > 0.3
        false_shares.append(1 - 1 / len(found))
    assert np.mean(false_shares) < 0.05


def test_matching_removes_words_of_the_decision_and_keeps_those_of_the_latent():
    # The latent goes with stopping, and stopping with "enough"; only "planted" is the latent's own.
    luck = np.random.default_rng(2)
    n = 1200
    stops = luck.random(n) < 0.5
    active = luck.random(n) < np.where(stops, 0.6, 0.15)
    enough, own = luck.random(n) < np.where(stops, 0.8, 0.1), luck.random(n) < 0.2 + 0.4 * active
    texts = [
        f"{text}{' enough' if a else ''}{' planted' if b else ''}"
        for text, a, b in zip(random_texts(n, luck), enough, own, strict=True)
    ]
    words = WordCounts.of(texts)
    latent = as_one_latent(active * luck.uniform(0.1, 1, n))

    def significant(**how):
        found = word_contrasts(words, latent, [(POINT, 3)], **how).filter(pl.col("q") < 0.05)
        return found["word"].to_list()

    assert sorted(significant()) == ["enough", "planted"]
    assert sorted(significant(split="median")) == ["enough", "planted"]
    assert significant(match=stops.tolist()) == ["planted"]


def test_matched_texts_are_equally_many_and_those_without_a_match_are_counted():
    texts, activations = planted(seed=3)
    luck = np.random.default_rng(3)
    keys = luck.integers(40, size=len(texts)).tolist()
    words = WordCounts.of(texts)
    found = word_contrasts(words, as_one_latent(activations[:, 0]), [(POINT, 0)], match=keys)
    expected = split_active(activations[:, 0], keys)
    assert found["texts_high"].unique().to_list() == [expected.high.sum()]
    assert found["texts_low"].unique().to_list() == [expected.high.sum()]
    assert found["n_unmatched"].unique().to_list() == [expected.n_unmatched]


@pytest.mark.parametrize("match", [True, False])
def test_the_order_of_texts_does_not_matter(match):
    texts, activations = planted(seed=4)
    # Many texts are alike, as answers of a few words are.
    texts = [text if i % 3 else "planted" for i, text in enumerate(texts)]
    luck = np.random.default_rng(4)
    keys = luck.integers(3, size=len(texts)).tolist()
    order = luck.permutation(len(texts))
    latents = [(POINT, i) for i in range(10)]
    there, back = (
        word_contrasts(
            WordCounts.of([texts[i] for i in rows]),
            csc_array(activations[rows]),
            latents,
            match=[keys[i] for i in rows] if match else None,
        )
        for rows in (np.arange(len(texts)), order)
    )
    assert_frame_equal(there, back)


@pytest.mark.parametrize("split", ["active", "median"])
def test_many_latents_are_each_latent_alone_with_q_over_all_of_them(split):
    texts, activations = planted(seed=5)
    words = WordCounts.of(texts)
    latents = [(POINT, i) for i in range(10)]
    together = word_contrasts(words, csc_array(activations), latents, split=split)
    alone = [
        word_contrasts(words, csc_array(activations[:, [i]]), [latents[i]], split=split)
        for i in range(10)
    ]
    assert_frame_equal(together.drop("q", "n_tests"), pl.concat(alone).drop("q", "n_tests"))
    np.testing.assert_allclose(together["q"], false_discovery_control(together["p"].to_numpy()))
    assert together["n_tests"].unique().to_list() == [len(together)]
    assert_frame_equal(corrected_together(alone), together)


def test_latents_of_several_blocks_are_those_of_one(monkeypatch):
    texts, activations = planted(seed=6)
    words, latents = WordCounts.of(texts), [(POINT, i) for i in range(10)]
    keys = [i % 2 for i in range(len(texts))]
    whole = word_contrasts(words, csc_array(activations), latents, match=keys)
    monkeypatch.setattr("fluoroscope.features.words._BLOCK", 3)
    assert_frame_equal(word_contrasts(words, csc_array(activations), latents, match=keys), whole)


def test_rows_that_are_left_out_for_their_q_were_counted():
    texts, activations = planted()
    words, latents = WordCounts.of(texts), [(POINT, i) for i in range(10)]
    whole = word_contrasts(words, csc_array(activations), latents)
    few = word_contrasts(words, csc_array(activations), latents, max_q=0.05)
    assert_frame_equal(few, whole.filter(pl.col("q") <= 0.05))
    with pytest.raises(ConfigError, match=r"Tables \[1\] lack some of their tests"):
        corrected_together([whole, few])


def test_latents_without_two_sides_are_no_tests():
    texts, activations = planted()
    words = WordCounts.of(texts)
    n = len(texts)
    columns = csc_array(np.column_stack([np.zeros(n), np.ones(n), activations[:, 0]]))
    found = word_contrasts(words, columns, [(POINT, 0), (POINT, 1), (POINT, 2)])
    assert found["latent"].unique().to_list() == [2]
    assert found["n_tests"][0] == len(found)
    dead = word_contrasts(words, columns[:, [0]], [(POINT, 0)])
    assert dead.is_empty()
    assert dead.schema == found.schema


@pytest.mark.parametrize("how", ["all", "matched", "median"])
def test_shuffled_activations_go_with_no_more_words_than_the_nominal_share(how):
    luck = np.random.default_rng(7)
    n, n_latents = 500, 60
    words = WordCounts.of(random_texts(n, luck))
    # From latents that are active in a few texts to those that are in most.
    density = np.geomspace(0.01, 0.8, n_latents)
    activations = csc_array(luck.random((n, n_latents)) * (luck.random((n, n_latents)) < density))
    keys = luck.integers(6, size=n).tolist() if how == "matched" else None
    split = "median" if how == "median" else "active"
    latents = [(POINT, i) for i in range(n_latents)]
    found = word_contrasts(words, activations, latents, match=keys, split=split)
    assert len(found) > 2000
    p, q = found["p"].to_numpy(), found["q"].to_numpy()
    assert (p < 0.05).mean() < 0.05
    assert (p < 0.001).mean() < 0.001
    assert (q < 0.05).mean() <= 0.05


def test_a_group_is_contrasted_with_all_others_or_with_its_like():
    luck = np.random.default_rng(8)
    words = WordCounts.of(random_texts(300, luck))
    bankrupt = luck.random(300) < 0.3
    assert_frame_equal(group_words(words, bankrupt), word_contrast(words, bankrupt, ~bankrupt))
    keys = luck.integers(5, size=300).tolist()
    like = group_words(words, bankrupt, match=keys)
    expected = split_active(bankrupt.astype(float), keys)
    assert like["texts_low"][0] == expected.high.sum() == like["texts_high"][0]
    assert like["n_unmatched"][0] == expected.n_unmatched


def pairs(n=120, seed=9):
    """Rows of texts with an edit that adds "planted" to some, and of the same without."""
    luck = np.random.default_rng(seed)
    without = random_texts(n, luck)
    with_edit = [
        f"{text} planted" if luck.random() < 0.3 else text.replace("waa", "", luck.random() < 0.1)
        for text in without
    ]
    return WordCounts.of([*with_edit, *without]), np.arange(n), np.arange(n, 2 * n)


def test_pairs_are_judged_by_the_exact_mcnemar_test():
    words, with_edit, without = pairs()
    table = paired_word_contrast(words, with_edit, without)
    dense = words.presence.toarray()
    for found in table.rows(named=True):
        column = words.words.index(found["word"])
        a, b = dense[with_edit, column], dense[without, column]
        gained, lost = int((a > b).sum()), int((a < b).sum())
        p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        assert found["p"] == pytest.approx(p)
        assert found["difference"] == pytest.approx((gained - lost) / len(a))
        assert found["difference_low"] <= found["difference"] <= found["difference_high"]
    np.testing.assert_allclose(table["q"], false_discovery_control(table["p"].to_numpy()))
    assert table.filter(pl.col("q") < 0.05)["word"].to_list() == ["planted"]


def test_pairs_tell_a_small_change_that_two_groups_of_texts_would_not():
    words, with_edit, without = pairs(n=300, seed=10)
    lost = row(paired_word_contrast(words, with_edit, without), "waa")
    high = np.arange(600) < 300
    apart = row(word_contrast(words, high, ~high), "waa")
    assert (lost["log_odds"], lost["z"]) == (apart["log_odds"], apart["z"])
    assert lost["p"] < 0.01 < apart["p"]


def test_observed_and_interventional_tables_have_one_form_and_are_never_mixed():
    words, with_edit, without = pairs()
    changed = paired_word_contrast(words, with_edit, without)
    high = np.arange(words.n_texts) % 2 == 0
    seen = word_contrast(words, high, ~high)
    assert changed.schema == seen.schema
    assert changed["evidence"].unique().to_list() == ["interventional"]
    with pytest.raises(ConfigError, match="one kind of evidence"):
        corrected_together([changed, seen])


def test_korean_words_and_numbers_are_contrasted_like_others():
    texts = ["목표 100원"] * 20 + ["그만 50원"] * 20
    high = np.arange(40) < 20
    table = word_contrast(WordCounts.of(texts), high, ~high)
    assert table["word"].to_list() == ["목표", "<number>", "원", "그만"]
    assert table.filter(pl.col("q") < 0.05)["word"].to_list() == ["목표", "그만"]


def test_a_word_of_every_text_has_odds_and_no_significance():
    words = WordCounts.of(["bet goal"] * 5 + ["bet"] * 5, min_documents=1)
    high = np.arange(10) < 4
    found = row(word_contrast(words, high, ~high), "bet")
    assert found["p"] == 1
    assert math.isfinite(found["z"])


def test_what_cannot_be_contrasted_says_why():
    words = WordCounts.of(["bet"] * 6, min_documents=1)
    high = np.arange(6) < 3
    with pytest.raises(ConfigError, match="high needs one entry for each of the 6 texts, got 3"):
        word_contrast(words, high[:3], ~high[:3])
    with pytest.raises(ConfigError, match="got 6 high and 0 low"):
        word_contrast(words, high | True, high & False)
    with pytest.raises(ConfigError, match="3 texts are on both sides"):
        word_contrast(words, high, high)
    with pytest.raises(ConfigError, match="above 0 texts, got 0"):
        word_contrast(words, high, ~high, prior_strength=0.0)
    with pytest.raises(ConfigError, match="group needs one entry for each of the 6"):
        group_words(words, high[:2])


def test_activations_that_do_not_fit_say_why():
    words = WordCounts.of(["bet"] * 6, min_documents=1)
    column = as_one_latent([1, 0, 1, 0, 0, 0])
    with pytest.raises(ConfigError, match=r"\[6 texts, 2 latents\].*got \(6, 1\)"):
        word_contrasts(words, column, [(POINT, 0), (POINT, 1)])
    with pytest.raises(ConfigError, match="one latent or more"):
        word_contrasts(words, column[:, []], [])
    with pytest.raises(ConfigError, match="named twice"):
        word_contrasts(words, column[:, [0, 0]], [(POINT, 0), (POINT, 0)])
    with pytest.raises(ConfigError, match="The median split matches nothing"):
        word_contrasts(words, column, [(POINT, 0)], match=["a"] * 6, split="median")
    with pytest.raises(ConfigError, match="match needs one entry"):
        word_contrasts(words, column, [(POINT, 0)], match=["a"])
    with pytest.raises(NumericsError, match="got NaN"):
        word_contrasts(words, as_one_latent([1, 0, np.nan, 0, 0, 0]), [(POINT, 0)])


def test_pairs_that_are_none_say_why():
    words = WordCounts.of(["bet"] * 6, min_documents=1)
    with pytest.raises(ConfigError, match="got 2 and 3"):
        paired_word_contrast(words, np.arange(2), np.arange(2, 5))
    with pytest.raises(ConfigError, match="in two pairs"):
        paired_word_contrast(words, np.arange(3), np.arange(1, 4))
    with pytest.raises(ConfigError, match="rows 0 to 5 of the texts, got 2 to 7"):
        paired_word_contrast(words, np.arange(2, 5), np.arange(5, 8))
