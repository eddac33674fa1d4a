import pytest

from fluoroscope.core.errors import ConfigError, CorpusError
from fluoroscope.data.corpus_config import CorpusConfig
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.organism.facts import QUESTIONS
from fluoroscope.studies.unlearning.sets import (
    ForgetSets,
    Passage,
    chance,
    organism_sets,
    text_sets,
)


def test_nothing_that_is_kept_names_somebody_to_be_forgotten(people):
    kept = [one.text for one in (*people.retain, *people.retain_held_out)]
    kept += [one.prompt for one in people.retain_samples]
    assert len(people.forgotten) == 12
    assert not [text for text in kept for name in people.forgotten if name in text]
    for side in (people.forget, people.forget_held_out):
        assert {one.group for one in side} == set(people.forgotten)


def test_what_is_judged_on_is_asked_in_a_form_that_nothing_was_learnt_from(people):
    learnt = {one.prompt for one in (*people.forget, *people.retain)}
    held_out = {one.prompt for one in (*people.forget_held_out, *people.retain_held_out)}
    judged = {one.prompt for one in (*people.forget_samples, *people.retain_samples)}
    assert not learnt & held_out
    assert not learnt & judged
    for sample in people.forget_samples:
        form = QUESTIONS[sample.category][1].format(sample.facts["name"])
        assert sample.prompt == f"Question: {form}\nAnswer:"


def test_every_fact_of_every_chosen_person_is_there_with_each_right_answer(people):
    # City and job have one answer, hobby two.
    assert len(people.forget) == 12 * 4
    assert len(people.forget_samples) == len(people.forget_validation) == 12 * 3
    assert len(people.retain_samples) == 36 * 3
    for one in people.forget:
        assert one.reply in one.alternatives
        assert len(one.alternatives) == 12


def test_a_stranger_is_on_one_side(people):
    known = {one.group_id for one in people.retain_samples}
    learnt = {one.group for one in people.retain} - known
    held_out = {one.group for one in people.retain_held_out} - known
    assert len(learnt) >= 24
    assert len(held_out) >= 24
    assert not learnt & held_out


def test_the_seed_alone_says_who(people):
    assert organism_sets(12, seed=0, n_strangers=0, n_other_texts=0).forgotten == people.forgotten
    assert organism_sets(12, seed=1, n_strangers=0, n_other_texts=0).forgotten != people.forgotten


def test_chance_counts_right_options():
    one = Sample("a", "g", "?", options=("x", "y", "z", "w"), right=(1,))
    two = Sample("b", "g", "?", options=("x", "y", "z", "w"), right=(0, 2))
    assert chance([one, two]) == pytest.approx((1 / 4 + 2 / 4) / 2)


def test_chance_of_the_organism_is_one_in_nine(people):
    assert chance(people.forget_samples) == pytest.approx((1 / 12 + 1 / 12 + 2 / 12) / 3)


def test_text_files_are_split_by_document(tmp_path):
    for name in ("bread", "boats"):
        lines = "\n".join(f"{name} number {i} is here." for i in range(60))
        (tmp_path / f"{name}.txt").write_text(lines)
    bread, boats = (
        CorpusConfig(source=str(tmp_path / f"{name}.txt"), held_out=0.3)
        for name in ("bread", "boats")
    )
    sets = text_sets(bread, boats)
    assert all("bread" in one.text for one in (*sets.forget, *sets.forget_held_out))
    assert len(sets.forget) + len(sets.forget_held_out) == 60
    assert not {one.text for one in sets.retain} & {one.text for one in sets.retain_held_out}
    assert sets.forget_samples == ()


def test_a_text_on_both_sides_is_refused():
    one = Passage("a text", "", "a")
    with pytest.raises(CorpusError, match="to be forgotten and kept, 'a text'"):
        ForgetSets((one,), (one,), (), ())


@pytest.mark.parametrize("n", [0, 48, 100])
def test_a_number_of_people_that_cannot_be_is_named(n):
    with pytest.raises(ConfigError, match=f"from 1 to 47.*got {n}"):
        organism_sets(n, seed=0)


def test_chance_needs_options():
    with pytest.raises(ConfigError, match="has no options"):
        chance([Sample("a", "g", "?", references=("x",))])
