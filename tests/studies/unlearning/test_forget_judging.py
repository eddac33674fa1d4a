import numpy as np
import pytest

from fluoroscope.core.errors import ConfigError
from fluoroscope.data.tasks.samples import Sample, Score
from fluoroscope.data.tasks.scorers import ChoiceScorer
from fluoroscope.interventions.replies.answering import Asking, Reply
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.studies.unlearning.clamping import Treatment, clamp_edits
from fluoroscope.studies.unlearning.detecting import Detector
from fluoroscope.studies.unlearning.judging import (
    accuracy_table,
    ask,
    conditional_against_static,
    conditional_statement,
    shortfall,
    side_effects,
)

ASKING = Asking(ChoiceScorer(is_lettered=False), "options")


def samples(n_groups, n_each=3):
    return [
        Sample(
            f"{group}-{i}",
            f"person {group}",
            "?",
            options=("a", "b", "c", "d"),
            right=(0,),
            category=("city", "job", "hobby")[i],
        )
        for group in range(n_groups)
        for i in range(n_each)
    ]


def replies(values):
    return [Reply("a" if one else "b", Score(float(one), True, ""), (0.5, 0.5)) for one in values]


def test_accuracy_stands_beside_chance_and_says_where_it_lies():
    asked = samples(40)
    random = np.random.default_rng(0)
    for share, verdict in ((0.25, "at chance"), (0.9, "above chance"), (0.0, "below chance")):
        table = accuracy_table("forget", asked, replies(random.random(120) < share))
        row = table.filter(category="all").row(0, named=True)
        assert row["chance"] == 0.25
        assert row["verdict"] == verdict
        assert row["n_groups"] == 40
    assert table["category"].to_list() == ["all", "city", "hobby", "job"]
    assert table["n"].to_list() == [120, 40, 40, 40]


def test_a_few_people_tell_nothing_of_chance():
    table = accuracy_table("forget", samples(8), replies([0] * 24))
    row = table.filter(category="all").row(0, named=True)
    assert row["verdict"] == "cannot be told"
    assert row["accuracy_low"] is None


def test_the_statement_says_plainly_whether_conditional_is_better():
    asked = samples(30)
    random = np.random.default_rng(1)
    good, bad = replies(random.random(90) < 0.98), replies(random.random(90) < 0.4)
    better = conditional_against_static(asked, bad, good)
    assert conditional_statement(better).startswith("Conditional clamping keeps more")
    worse = conditional_against_static(asked, good, bad)
    assert conditional_statement(worse).startswith("Conditional clamping is not better")
    same = conditional_against_static(asked, good, good)
    assert "not shown to be better" in conditional_statement(same)
    few = conditional_against_static(samples(5), replies([0, 1, 1] * 5), replies([1, 1, 0] * 5))
    assert "cannot be told: 5 groups" in conditional_statement(few)


def test_side_effects_are_paired_with_what_was_said_untreated():
    asked = samples(20)
    before = replies([1] * 60)
    after = replies([0, 1, 1] * 20)
    table = side_effects(asked, before, {"static": after, "nothing": before})
    rows = {row["treatment"]: row for row in table.iter_rows(named=True)}
    assert rows["static"]["difference"] == pytest.approx(-1 / 3)
    assert rows["static"]["n_worse"] == 20
    assert rows["nothing"]["n_changed"] == 0


def test_the_shortfall_is_zero_where_all_is_forgotten_and_all_is_kept():
    assert shortfall(forget=0.1, retain=1.0, by_chance=0.11, retain_before=0.99) == 0
    assert shortfall(0.31, 0.9, 0.11, 1.0) == pytest.approx(0.2 + 0.1)


class Names(Detector):
    def scores(self, model, prompts):
        return np.array(["live" in one for one in prompts], dtype=float)


def test_each_sample_is_treated_as_its_prompt_asks_for(organism_model, organism_saes, people):
    point = HookPoint("4.resid_post")
    edits = clamp_edits(organism_model, organism_saes, {point: tuple(range(512))}, 60.0)
    asked = people.retain_validation[:9]
    plain = ask(organism_model, asked, ASKING)
    every = ask(organism_model, asked, ASKING, Treatment(edits))
    some = ask(organism_model, asked, ASKING, Treatment(edits, Names(organism_saes, 0.5)))
    assert [one.score.value for one in plain] == [1.0] * 9
    for sample, before, clamped, found in zip(asked, plain, every, some, strict=True):
        wanted = clamped if "live" in sample.prompt else before
        np.testing.assert_allclose(found.numbers, wanted.numbers, atol=1e-5)


def test_as_many_replies_as_samples_are_needed():
    with pytest.raises(ConfigError, match="3 samples and 2 replies"):
        accuracy_table("forget", samples(1), replies([1, 1]))
