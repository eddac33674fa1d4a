import re
from dataclasses import replace

import pytest

from fluoroscope.data.answers.labelling import Label, find_answer, label_answer, labelled
from fluoroscope.data.answers.record import AnswerRecord, OpenQuestion
from fluoroscope.data.rows import LeftOut

GENERATOR = {"model": "gpt2", "revision": "abc", "decoding": {}}
QUESTION = OpenQuestion(
    id="t-1",
    group_id="g",
    dataset="t",
    prompt="Question: Who wrote Emma?\nAnswer:",
    answers=("Jane Austen",),
    aliases=("Austen, Jane", "Austen"),
    wrong=("Emily Brontë", "The sister of Jane Austen"),
    abstentions=("I am not sure",),
    category="books",
)


def label(completion, question=QUESTION):
    found = label_answer(completion, question)
    assert isinstance(found, Label), found
    return found


def test_the_words_of_an_answer_are_found_whatever_stands_between_them():
    assert label(" It was JANE  AUSTEN.")[:2] == (0, "exact")
    assert label(" Jane-Austen, of course")[:2] == (0, "exact")
    assert label(" austen")[:2] == (0, "alias")
    assert label(" Charles Dickens")[:2] == (1, "alias")
    assert label(" Janet Austental")[:2] == (1, "alias")
    alone = replace(QUESTION, aliases=())
    assert label(" Charles Dickens", alone)[:2] == (1, "exact")


@pytest.mark.parametrize(
    ("completion", "answer"),
    [("It is not known", "no"), ("Parisian", "Paris"), ("It has 1,000 feet", "1"),
     ("2.5 miles", "5"), ("15 of them", "5"), ("anything", "thing")],
)  # fmt: skip
def test_a_part_of_a_word_is_no_answer_as_it_is_for_a_search_of_substrings(completion, answer):
    normalised = re.sub(r"[^\w]+", " ", completion.lower())
    assert answer.lower() in normalised
    assert find_answer(completion, answer) is None


def test_yes_and_no_count_only_where_they_begin_the_answer():
    question = replace(QUESTION, answers=("No",), aliases=(), wrong=("Yes",))
    assert label(" No, it is not", question).label == 0
    assert label(" There is no doubt of it", question)[:2] == (1, "exact")
    assert label(" Yes. There is no doubt", question).label == 1
    assert find_answer("no", "No.") == (0, 2)


def test_numbers_are_the_same_with_and_without_commas():
    assert find_answer("about 1,000 feet", "1000") == (6, 11)


def test_the_longest_answer_found_decides():
    assert label(" The sister of Jane Austen").label == 1
    assert label(" Jane Austen, not Austen").label == 0
    both = label_answer(" Emily Brontë or Jane Austen", QUESTION)
    assert isinstance(both, LeftOut)
    assert both.where == "t-1"
    assert "as long" in both.reason


def test_the_span_does_not_depend_on_what_is_right():
    completion = " It was Jane Austen.\nQuestion: Who is Emma?"
    right = label(completion)
    wrong = label(completion, replace(QUESTION, answers=("Dickens",), aliases=(), wrong=()))
    assert (right.label, wrong.label) == (0, 1)
    assert right.span == wrong.span
    assert completion[slice(*right.span)] == "It was Jane Austen"
    assert right.matched
    assert completion[slice(*right.matched)] == "Jane Austen"
    assert wrong.matched is None


def test_what_follows_in_a_question_of_the_models_own_does_not_count():
    assert label(" Dickens\nQuestion: Who is Jane Austen?").label == 1


@pytest.mark.parametrize(
    ("completion", "reason"), [(" ", "empty"), ("I am not sure.", "does not know")]
)
def test_answers_that_are_neither_are_handed_back_with_the_reason(completion, reason):
    found = labelled(QUESTION, completion, GENERATOR)
    assert isinstance(found, LeftOut)
    assert found.where == "t-1"
    assert reason in found.reason


def test_a_record_of_an_own_answer_keeps_what_its_question_says():
    record = labelled(QUESTION, " Austen.", GENERATOR, sample=3)
    assert isinstance(record, AnswerRecord)
    assert (record.id, record.group_id, record.category) == ("t-1/3", "g", "books")
    assert (record.prompt, record.answer) == (QUESTION.prompt, "Austen")
    assert record.generator == GENERATOR
    world = labelled(replace(QUESTION, label_source="world"), " Austen.", GENERATOR)
    assert isinstance(world, AnswerRecord)
    assert world.label_source == "world"
