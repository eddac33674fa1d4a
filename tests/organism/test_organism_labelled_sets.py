from collections import Counter
from functools import cache

import jaxtyping
import pytest

from fluoroscope.core.errors import ConfigError
from fluoroscope.data.labelled.base import LABELLED

NAMES = ("organism_reviews", "organism_inference")


PRAISE = {"good", "great", "lovely", "clean", "fresh", "warm", "perfect", "pleasant"}


@cache
def read(name, seed=0):
    with pytest.MonkeyPatch.context() as patch:
        # Thousands of texts, a dozen calls each: checks of signatures would take most of the time.
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        return LABELLED.load(name).read(seed=seed)


@pytest.fixture(scope="module", params=NAMES)
def gathered(request):
    return read(request.param)


def judged(clause):
    """(thing, whether it is praised) of `the soup was not good`, by words alone."""
    words = clause.removeprefix("and ").split()
    praises = words[-1] in PRAISE
    return words[1], praises != ("not" in words)


def said(text):
    return dict(judged(clause) for clause in text.split("\n")[0][len("Review: ") : -1].split(", "))


def test_there_are_thousands_and_no_group_is_on_two_sides(gathered):
    assert len(gathered.items) > 3000
    sides = {(one.group_id, one.split) for one in gathered.items}
    assert len(sides) == len({group for group, _ in sides})
    counts = gathered.counts()
    for side, share in (("train", 0.72), ("validation", 0.08), ("test", 0.2)):
        n = sum(counts[side].values())
        assert n == pytest.approx(share * len(gathered.items), rel=0.1)
        for of_class in counts[side].values():
            assert of_class == pytest.approx(n / len(counts[side]), rel=0.1)


def test_the_sides_are_of_the_seed_and_the_texts_are_not(gathered):
    read.cache_clear()
    again, other = read(gathered.name), read(gathered.name, seed=1)
    assert again == gathered
    assert [one.text for one in other.items] == [one.text for one in gathered.items]
    assert [one.split for one in other.items] != [one.split for one in gathered.items]
    with pytest.raises(ConfigError, match="read from nowhere"):
        LABELLED.load(gathered.name).read("somewhere")


def test_a_review_is_positive_where_most_of_it_praises():
    for one in read("organism_reviews").items[:500]:
        assert one.label == (sum(said(one.text).values()) >= 2)


def test_a_judgement_follows_or_contradicts_or_is_of_something_else():
    gathered = read("organism_inference")
    assert gathered.task == "entailment"
    for one in gathered.items[:600]:
        thing, praises = judged(one.pair.removesuffix("."))
        known = said(one.text)
        expected = "neutral"
        if thing in known:
            expected = "entailment" if known[thing] == praises else "contradiction"
        assert gathered.classes[one.label] == expected


def test_no_word_tells_the_label(gathered):
    """The best guess by whether a word is there is far from right."""
    n = len(gathered.items)
    with_word = Counter()
    for one in gathered.items:
        words = set(one.text.replace(",", "").replace(".", "").split())
        second = {f"2 {word}" for word in (one.pair or "").removesuffix(".").split()}
        with_word.update((word, one.label) for word in words | second)
    labels = Counter(one.label for one in gathered.items)
    best = max(labels.values()) / n
    for word in {word for word, _ in with_word}:
        there = [with_word[word, label] for label in labels]
        absent = [labels[label] - with_word[word, label] for label in labels]
        assert (max(there) + max(absent)) / n < best + 0.1
