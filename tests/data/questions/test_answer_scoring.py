import numpy as np
import pytest

from fluoroscope.core.errors import ConfigError, CorpusError
from fluoroscope.data.questions.priors import priors
from fluoroscope.data.questions.question import Question
from fluoroscope.data.questions.scoring import (
    answer_scores,
    is_number,
    judge,
    judged,
    macro_f1,
    normalised,
    read_choice,
    right,
    token_f1,
)

LETTERS = ("A", "B", "C", "D")


def question(target, choices=None, source="source", number=0):
    return Question(f"q{number}", f"g{number}", "test", source, target, choices)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("The  Cat's hat!", "cats hat"),
        (" an Apple a day ", "apple day"),
        ("A", "a"),
        ("the", "the"),
        ("Athens", "athens"),
        ("", ""),
        ("?!", ""),
    ],
)
def test_normalised_text_has_no_case_articles_punctuation_and_blanks(text, plain):
    assert normalised(text) == plain


@pytest.mark.parametrize(
    ("choices", "text", "chosen"),
    [
        (("+", "-"), "+", "+"),
        (("+", "-"), "", None),
        (("-1", "0", "1"), "-1", "-1"),
        (("-1", "0", "1"), "1", "1"),
        (("-1", "0", "1"), "1.", None),
        (("A", "A+"), "A", "A"),
        (("A", "A+"), "a", None),
        (("Yes", "yes"), "Yes", "Yes"),
        (("Yes", "yes"), "YES", None),
    ],
)
def test_choices_that_differ_by_signs_or_case_alone_are_told_apart(choices, text, chosen):
    assert read_choice(text, choices) == chosen


@pytest.mark.parametrize("text", ["9" * 400, "-" + "9" * 5000, "1/" + "3" * 600])
def test_a_digit_for_ever_is_no_number_and_no_crash(text):
    said = judge(question("5"), text, "number")
    assert (said.is_right, said.is_readable) == (False, False)
    assert not is_number(text)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("A", "A"),
        ("a", "A"),
        (" (B) ", "B"),
        ("B.", "B"),
        ("C) the third one", "C"),
        ("D: because", "D"),
        ("E", None),
        ("A B", None),
        ("I think it is B", None),
        ("A cat", None),
        ("", None),
        ("...", None),
        ("<unk>", None),
    ],
)
def test_a_letter_is_read_strictly(text, chosen):
    assert read_choice(text, LETTERS) == chosen


@pytest.mark.parametrize(
    ("text", "chosen"),
    [("yes", "Yes"), ("No.", "No"), ("YES!", "Yes"), ("yes no", None), ("maybe", None)],
)
def test_a_word_is_read_strictly_and_garbage_is_no_answer(text, chosen):
    assert read_choice(text, ("Yes", "No")) == chosen
    assert read_choice("not acceptable.", ("acceptable", "not acceptable")) == "not acceptable"


@pytest.mark.parametrize(
    ("text", "target", "is_right", "is_readable"),
    [
        ("18", "18", True, True),
        ("18.0", "18", True, True),
        ("1,080", "1080", True, True),
        ("$0.5", "0.5", True, True),
        ("0.3333333", "0.3333333333", True, True),
        ("0.33333", "0.3333333333", False, True),
        ("-3", "3", False, True),
        ("so 4 + 5 = 9", "9", True, True),
        ("nine", "9", False, False),
        ("", "9", False, False),
    ],
)
def test_numbers_are_compared_as_numbers(text, target, is_right, is_readable):
    found = judge(question(target), text, "number")
    assert (found.is_right, found.is_readable) == (is_right, is_readable)


def test_what_cannot_be_read_is_wrong_and_counted():
    questions = [question(target, LETTERS, number=i) for i, target in enumerate("AABBCC")]
    texts = ["A", "B", "B", "what", "", "c"]
    scores = answer_scores(questions, texts, "choice")
    assert scores.n == 6
    assert scores.accuracy == pytest.approx(3 / 6)
    assert scores.parse_rate == pytest.approx(4 / 6)
    assert scores.exact_match == pytest.approx(3 / 6)
    # A: 1 of 2 found, 1 of 1 given right: 2/3. B: 1 of 2, 1 of 2: 1/2. C: 1 of 2, 1 of 1: 2/3.
    assert scores.macro_f1 == pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3)
    assert scores.token_f1 is None
    assert set(scores.as_dict()) == {"n", "accuracy", "exact_match", "parse_rate", "macro_f1"}
    assert right(judged(questions, texts, "choice")).tolist() == [1, 0, 1, 0, 0, 1]


def test_macro_f1_counts_answers_that_are_given_and_never_wanted():
    assert macro_f1(["A", "A"], ["A", "D"]) == pytest.approx((2 / 3 + 0) / 2)
    assert macro_f1(["A", "B"], ["A", "B"]) == 1
    assert macro_f1(["A", "B"], ["", ""]) == 0


@pytest.mark.parametrize(
    ("text", "target", "f1"),
    [
        ("the cat sat", "cat sat down", 2 * 2 / (2 + 3)),
        ("cat cat", "cat", 2 * 1 / (2 + 1)),
        ("dog", "cat", 0),
        ("", "cat", 0),
        ("The cat.", "cat", 1),
    ],
)
def test_free_text_is_scored_by_shared_words(text, target, f1):
    assert token_f1(text, target) == pytest.approx(f1)
    assert token_f1(target, text) == pytest.approx(f1)
    scores = answer_scores([question(target)], [text], "text")
    assert scores.token_f1 == pytest.approx(f1)
    assert scores.accuracy == scores.exact_match == float(f1 == 1)
    assert scores.macro_f1 is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("12", True), ("-1,080.5", True), ("50 %", True), ("1/2", True), ("n1", False), ("", False),
     ("12 apples", False), (".", False)],
)  # fmt: skip
def test_a_number_and_nothing_else_is_a_number(text, expected):
    assert is_number(text) == expected


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ConfigError, match="2 questions have 1 answers"):
        judged([question("A"), question("B")], ["A"], "text")
    with pytest.raises(ConfigError, match="no answers to score"):
        answer_scores([], [], "text")
    with pytest.raises(ConfigError, match="'q0' has no choices"):
        judge(question("A"), "A", "choice")
    with pytest.raises(ConfigError, match=r"'blue'\. Is its set one of text"):
        judge(question("blue"), "3", "number")


def reviews(n, seed, is_telling):
    luck = np.random.default_rng(seed)
    found = []
    for i in range(n):
        answer = ("bad", "good")[int(luck.random() < 0.6)]
        word = {"bad": "dull", "good": "lovely"}[answer] if is_telling else "odd"
        noise = " ".join(luck.choice(["film", "scene", "plot", "actor", "end"], size=4))
        found.append(question(answer, ("bad", "good"), f"a {word} {noise} {i}", i))
    return found


def test_words_tell_what_they_can_and_the_majority_is_that_of_training():
    train, validation, test = (reviews(n, seed, True) for seed, n in enumerate((120, 30, 40)))
    found = priors(train, validation, test, "choice")
    assert found["majority"] == ["good"] * 40
    assert found["bag_of_words"] == [one.target for one in test]
    assert answer_scores(test, found["bag_of_words"], "choice").accuracy == 1


def test_an_answer_does_not_depend_on_what_else_is_asked():
    train, validation, test = (reviews(n, seed, True) for seed, n in enumerate((60, 20, 20)))
    whole = priors(train, validation, test, "choice")["bag_of_words"]
    assert priors(train, validation, test[5:6], "choice")["bag_of_words"] == whole[5:6]
    assert priors(train, [], test, "choice")["bag_of_words"] == whole
    assert priors(train, validation, [], "choice") == {"majority": [], "bag_of_words": []}


def test_numbers_have_the_most_frequent_one_alone():
    train = [question(target, number=i) for i, target in enumerate(["4", "10", "4", "10", "7"])]
    # Of two as frequent the first by name.
    assert priors(train, [], [question("7")], "number") == {"majority": ["10"]}
    with pytest.raises(CorpusError, match="learnt from the training side"):
        priors([], [], [question("7")], "number")


def test_where_training_has_one_answer_words_say_it_too():
    train = [question("yes", ("yes", "no"), f"text {i}", i) for i in range(5)]
    found = priors(train, [], [question("no", ("yes", "no"))], "choice")
    assert found == {"majority": ["yes"], "bag_of_words": ["yes"]}


@pytest.mark.parametrize(("text", "is_right"), [("", False), ("?!", False), (":-)", True)])
def test_an_answer_of_signs_alone_is_compared_as_it_is(text, is_right):
    found = judge(question(":-)"), text, "text")
    assert (found.is_right, found.is_readable) == (is_right, bool(text))
