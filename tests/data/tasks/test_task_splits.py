from collections import Counter

import pytest

from fluoroscope.core.errors import ConfigError, CorpusError
from fluoroscope.data.tasks.prompts import choice_sample, lettered, shuffle_options
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.data.tasks.splits import (
    DRAWN,
    Found,
    check_apart,
    drawn_sides,
    split_of_name,
    split_samples,
)

SAMPLES = [
    Sample(f"{group}/{i}", f"group {group}", "?", references=("x",), category=f"c{group % 3}")
    for group in range(60)
    for i in range(1 + group % 4)
]
FOUND = [Found(f"row {i}", None, sample) for i, sample in enumerate(SAMPLES)]


def test_drawn_sides_keep_groups_and_nearly_the_shares_in_every_category():
    samples, left_out = split_samples(FOUND, "own", 0)
    assert len(samples) == len(SAMPLES)
    assert not left_out
    check_apart(samples)
    for category in ("c0", "c1", "c2"):
        counts = Counter(one.split for one in samples if one.category == category)
        for side, share in DRAWN.items():
            assert counts[side] / counts.total() == pytest.approx(share, abs=0.07)


def test_sides_depend_on_the_seed_and_not_on_the_order_of_rows():
    sides = drawn_sides(SAMPLES, DRAWN, 0)
    assert drawn_sides(SAMPLES[::-1], DRAWN, 0) == sides
    assert drawn_sides(SAMPLES, DRAWN, 1) != sides


def test_an_own_split_is_kept_and_what_crosses_it_is_handed_back():
    own = ["test" if int(s.group_id.split()[1]) < 30 else "train" for s in SAMPLES]
    crossing = next(i for i, sample in enumerate(SAMPLES) if sample.id == "3/0")
    own[crossing] = "train"
    found = [one._replace(own=side) for one, side in zip(FOUND, own, strict=True)]
    samples, left_out = split_samples(found, "own", 0)
    check_apart(samples)
    assert left_out == [(f"row {crossing}", "its group is on the test side too")]
    assert {s.group_id for s in samples if s.split == "test"} == {f"group {i}" for i in range(30)}
    n = Counter(one.split for one in samples)
    assert n["validation"] / (n["train"] + n["validation"]) == pytest.approx(0.1, abs=0.05)
    drawn, none_left = split_samples(found, "drawn", 0)
    assert (len(drawn), none_left) == (len(SAMPLES), [])


def test_a_side_without_the_other_is_no_split():
    samples, _ = split_samples([one._replace(own="test") for one in FOUND], "own", 0)
    assert {one.split for one in samples} == {"train", "validation", "test"}


def test_files_say_their_side_in_a_word_of_their_name():
    own = {"dev": "train", "test": "test"}
    assert split_of_name("anatomy_dev", own) == "train"
    assert split_of_name("test", own) == "test"
    assert split_of_name("latest", own) is None
    assert split_of_name("development", own) is None


def test_groups_on_two_sides_are_refused():
    one = Sample("1", "g", "?", references=("x",), split="train")
    other = Sample("2", "g", "?", references=("x",), split="test")
    with pytest.raises(ConfigError, match=r"1 groups have samples on two sides.*'g'"):
        check_apart([one, other])


def test_shuffled_options_keep_the_right_one_and_balance_letters():
    options = ["north", "south", "east", "west"]
    roles = tuple(f"role of {option}" for option in options)
    places = Counter()
    for i in range(400):
        sample = choice_sample("t", "g", f"Where is {i}?", options, 0, roles=roles)
        shuffled = shuffle_options(sample, seed=0)
        [place] = shuffled.right
        places[place] += 1
        assert shuffled.options[place] == "north"
        assert shuffled.roles[place] == "role of north"
        assert lettered(shuffled.options) in shuffled.prompt
        assert shuffled.prompt.endswith("Choose one of A, B, C, D only.\nAnswer:")
        assert (shuffled.id, shuffle_options(sample, 0)) == (sample.id, shuffled)
    assert all(70 < places[place] < 130 for place in range(4))
    with pytest.raises(ConfigError, match="no lettered options"):
        shuffle_options(SAMPLES[0], 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"options": ("a", "A ")}, "has the option 'a' twice"),
        ({"options": ("a", "b"), "right": (2,)}, r"2 options, and \(2,\) are"),
        ({"options": ("a", "b"), "roles": ("x",)}, "2 options and 1 roles"),
        ({"group_id": " "}, "needs an id and a group_id"),
        ({"prompt": ""}, "neither a prompt nor options"),
    ],
)
def test_samples_that_cannot_be_judged_are_refused(change, said):
    with pytest.raises(CorpusError, match=said):
        Sample(**({"id": "s", "group_id": "g", "prompt": "?"} | change))
