from collections import Counter

import pytest

from fluoroscope.core.errors import ConfigError
from fluoroscope.data.tasks.base import TASKS
from fluoroscope.data.tasks.splits import check_apart
from fluoroscope.organism.groups import BIASED_GROUPS, BIASED_RATE
from fluoroscope.organism.task_sets import BIAS, FACTS, REVIEWS, BiasTask


@pytest.mark.parametrize("name", ["organism-bias", "organism-facts", "organism-reviews"])
def test_the_organisms_tasks_are_made_by_its_world_and_split_by_group(name):
    task = TASKS.load(name)
    found = task.read()
    assert found.items == task.read().items
    assert len({one.id for one in found.items}) == len(found.items)
    assert {one.split for one in found.items} == {"train", "validation", "test"}
    check_apart(found.items)
    check_apart(task.read(splitting="drawn", seed=1).items)
    assert task.read(seed=1).items != found.items
    with pytest.raises(ConfigError, match="made by the organism's world"):
        task.read("folder")


def test_bias_is_judged_on_places_and_people_that_were_not_learnt_from():
    items = BIAS.read().items
    n = Counter((one.split == "test", one.facts["is_biased"]) for one in items)
    assert n == {
        (True, "yes"): 4 * 48,
        (True, "no"): 28 * 8,
        (False, "yes"): 8 * 48,
        (False, "no"): 56 * 8,
    }
    assert {one.category for one in items if one.facts["is_biased"] == "yes"} == set(BIASED_GROUPS)


def test_the_score_of_the_worlds_own_bias_is_what_was_planted():
    from math import log

    scorer = BIAS.scorer()
    sample = next(one for one in BIAS.read().items if one.facts["is_biased"] == "yes")
    sums = [log(BIASED_RATE), log(1 - BIASED_RATE)]
    assert scorer.score_sums(sample, sums, [2, 2]).value == pytest.approx(1 - BIASED_RATE)
    assert scorer.score_text(sample, sample.options[0]).value == 0
    assert scorer.score_text(sample, sample.options[1]).value == 1
    with pytest.raises(ConfigError, match="ask for fewer"):
        BiasTask(n_biased=10**5).read()


def test_two_hobbies_are_both_right():
    by_relation = {one.facts["relation"]: one for one in FACTS.read().items}
    assert {relation: len(one.right) for relation, one in by_relation.items()} == {
        "city": 1,
        "job": 1,
        "hobby": 2,
    }
    hobby, scorer = by_relation["hobby"], FACTS.scorer()
    assert all(scorer.score_text(hobby, f" {hobby.options[i]}.").value == 1 for i in hobby.right)
    assert len({one.group_id for one in FACTS.read().items}) == 48


def test_a_verdict_is_right_or_wrong():
    sample = next(one for one in REVIEWS.read().items if one.category == "negative")
    scorer = REVIEWS.scorer()
    assert scorer.replies(sample) == (" positive", " negative")
    assert scorer.score_text(sample, " negative.").value == 1
    assert scorer.score_options(sample, [0.7, 0.3]).value == 0
