from collections import Counter
from dataclasses import replace

import pytest

from fluoroscope.core.errors import CorpusError
from fluoroscope.data.labelled.base import check_classes, limited
from fluoroscope.data.labelled.example import Example, example_id, group_of
from fluoroscope.data.labelled.splitting import Found, split_examples


def example(text, label=0, pair=None, split="train"):
    return Example(example_id("set", text, pair), text, pair, label, split, group_of(text))


def found(text, side, label=0):
    return Found(f"{side}, {text}", side, example(text, label))


def many(n, side="train", n_classes=2):
    return [found(f"{side} {i}", side, i % n_classes) for i in range(n)]


def test_a_group_on_two_sides_stays_on_the_later_and_the_rest_is_handed_back():
    rows = [found("A film", "train"), found("a  film", "test"), found("b", "validation")]
    sides = split_examples([*rows, found("c", "train")], "sound", 0)
    assert [(one.text, one.split) for one in sides.examples] == [
        ("a  film", "test"),
        ("b", "validation"),
        ("c", "train"),
    ]
    assert [(one.where, one.reason) for one in sides.left_out] == [
        ("train, A film", "its group is on the test side too")
    ]
    assert set(sides.origins.values()) == {"own"}


def test_a_text_of_two_labels_goes_and_one_that_is_there_twice_stays_once():
    rows = [found("a", "train", 0), found("a", "test", 1), found("b", "train"), found("b", "train")]
    sides = split_examples([*rows, *many(2, "validation"), *many(2, "test")], "sound", 0)
    reasons = Counter(one.reason for one in sides.left_out)
    assert reasons == {"the same text has two labels": 2, "the same text came before": 1}
    assert "a" not in {one.text for one in sides.examples}


def test_the_paper_leaves_nothing_out_and_every_id_is_one_rows():
    rows = [found("a", "train", 0), found("a", "test", 1), found("a", "train", 0), *many(20)]
    sides = split_examples(rows, "paper", 0)
    assert len(sides.examples) == len({one.id for one in sides.examples}) == len(rows)
    assert not sides.left_out
    assert {one.split for one in sides.examples if one.text == "a"} > {"test"}


@pytest.mark.parametrize("splitting", ["sound", "paper"])
def test_what_is_drawn_depends_on_the_seed_and_not_on_the_order_of_rows(splitting):
    rows = many(400)

    def sides(rows, seed):
        examples = split_examples(rows, splitting, seed).examples
        return {one.id: one.split for one in examples}

    assert sides(rows, 0) == sides(rows[::-1], 0)
    assert sides(rows, 0) != sides(rows, 1)


def test_missing_sides_are_drawn_with_the_classes_in_proportion():
    rows = [one._replace(own=None) for one in many(400, n_classes=4)]
    sides = split_examples(rows, "sound", 3)
    counts = Counter((one.split, one.label) for one in sides.examples)
    for label in range(4):
        assert [counts[side, label] for side in ("train", "validation", "test")] == [72, 8, 20]
    assert set(sides.origins.values()) == {"drawn"}


def test_a_set_with_nothing_to_train_on_is_drawn_as_a_whole():
    sides = split_examples([*many(50, "validation"), *many(150, "test")], "sound", 0)
    assert Counter(one.split for one in sides.examples) == {
        "train": 144,
        "validation": 16,
        "test": 40,
    }
    assert {one.split for one in sides.examples if "test" in one.text} == {
        "train",
        "validation",
        "test",
    }


def test_only_the_missing_side_is_drawn():
    sides = split_examples([*many(100), *many(20, "validation")], "sound", 0)
    assert sides.origins == {"train": "own", "validation": "own", "test": "drawn"}
    assert sum(one.split == "validation" for one in sides.examples) == 20


def test_a_limit_takes_whole_groups_in_proportion_whatever_the_order():
    examples = [example(f"text {i}", int(i % 4 == 0)) for i in range(400)]
    some = limited(examples, 100, 0)
    assert Counter(one.label for one in some) == {0: 75, 1: 25}
    assert limited(examples[::-1], 100, 0) == some
    assert limited(examples, 100, 1) != some
    pairs = [example(f"text {i // 3}", i % 3, pair=str(i)) for i in range(300)]
    some = limited(pairs, 100, 0)
    assert len(some) == 99
    assert set(Counter(one.group_id for one in some).values()) == {3}
    assert len(limited(pairs, 1000, 0)) == 300


def test_a_limit_leaves_no_class_out_while_it_allows():
    examples = [example(f"text {i}", int(i == 7)) for i in range(200)]
    assert Counter(one.label for one in limited(examples, 10, 0)) == {0: 9, 1: 1}
    with pytest.raises(CorpusError, match="got a limit of 0"):
        limited(examples, 0, 0)
    with pytest.raises(CorpusError, match="groups are kept whole"):
        limited([example("one", 0, pair=str(i)) for i in range(9)], 4, 0)


def test_a_side_with_one_class_or_none_is_refused():
    sides = [
        example(f"{side} {label}", label, split=side)
        for side in ("train", "validation", "test")
        for label in (0, 1)
    ]
    check_classes(sides, ("no", "yes"), "set")
    with pytest.raises(CorpusError, match="nothing on its test side"):
        check_classes(sides[:4], ("no", "yes"), "set")
    with pytest.raises(CorpusError, match=r"'no'\. A classifier needs two classes"):
        check_classes([*sides[:5], replace(sides[5], label=0)], ("no", "yes"), "set")
    with pytest.raises(CorpusError, match="the label 1 on its train side, and 1 classes"):
        check_classes(sides, ("no",), "set")
