import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluoroscope.core.errors import InterventionError
from fluoroscope.interventions.positions import (
    ALL,
    FOREVER,
    GENERATED,
    LAST,
    PROMPT,
    Positions,
    after,
    at,
)
from fluoroscope.models.families import find_family
from fluoroscope.models.tiny import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer(find_family("llama", "tests"))
TEN = tuple(range(10))

NAMED = [PROMPT, LAST, GENERATED, ALL]
NUMBERS = st.integers(0, 3) | st.lists(st.integers(-5, 5), min_size=1, max_size=4)
MARKERS = st.text(min_size=1, max_size=8) | st.text("()|\\ aA,", min_size=1, max_size=8)


def tokens_of(text):
    return tuple(TOKENIZER(text)["input_ids"])


def spans(positions, prompt=TEN):
    return positions.spans(prompt, TOKENIZER)


def part_of(drawn):
    match drawn:
        case int():
            return NAMED[drawn]
        case str():
            return after(drawn)
        case _:
            return at(drawn)


def joined(parts):
    found = parts[0]
    for part in parts[1:]:
        found |= part
    return found


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        (PROMPT, [(0, 10)]),
        (LAST, [(9, 10)]),
        (GENERATED, [(10, FOREVER)]),
        (ALL, [(0, FOREVER)]),
        (LAST | GENERATED, [(9, FOREVER)]),
        (PROMPT | GENERATED, [(0, FOREVER)]),
        (at([0, -1]), [(0, 1), (9, 10)]),
        (at([3, 2, 4]), [(2, 5)]),
        (at([-1, 9]), [(9, 10)]),
        (at([0]) | GENERATED, [(0, 1), (10, FOREVER)]),
        (PROMPT | at([3]), [(0, 10)]),
    ],
    ids=str,
)
def test_spans_are_the_stated_positions(positions, expected):
    assert list(spans(positions)) == expected


def test_a_row_that_is_all_padding_has_no_position_but_those_to_come():
    for positions in (PROMPT, LAST):
        assert all(start == stop for start, stop in spans(positions, ()))
    assert spans(LAST | GENERATED, ()) == spans(ALL, ()) == ((0, FOREVER),)


@given(st.lists(NUMBERS, min_size=1, max_size=4))
def test_spans_are_sorted_apart_and_the_union_of_their_parts(drawn):
    parts = [part_of(one) for one in drawn]
    found = spans(joined(parts))
    flat = [border for span in found for border in span]
    assert flat == sorted(set(flat))
    for position in range(25):
        is_inside = any(a <= position < b for a, b in found)
        assert is_inside == any(a <= position < b for part in parts for a, b in spans(part))


@given(st.lists(NUMBERS | MARKERS, min_size=1, max_size=4))
def test_parsing_gives_back_what_was_written(drawn):
    positions = joined([part_of(one) for one in drawn])
    assert Positions.parse(str(positions)) == positions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("last|generated", LAST | GENERATED),
        ("  Last | GENERATED ", LAST | GENERATED),
        ("at(0,-1)", at([0, -1])),
        ("AT( 0 , -1 )", at([0, -1])),
        ("after(Answer:)|last", after("Answer:") | LAST),
        ("after( a )", after(" a ")),
        ("after(x|y(z)", after("x|y(z")),
        ("after(\\n\\d)", after("\\n\\d")),
        ("after(a\\)b)", after("a)b")),
        ("all|all", ALL),
    ],
)
def test_positions_are_read_as_people_write_them(text, expected):
    assert Positions.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "|", "last|", "|last", "last||all", "final", "last generated", "at", "at(0", "at(0))",
     "after(x", "after(x))", "at()", "at(a)", "at(0;1)", "after()"],
)  # fmt: skip
def test_what_is_no_position_is_refused(text):
    with pytest.raises(InterventionError):
        Positions.parse(text)


def test_a_word_that_is_none_is_answered_with_those_there_are():
    with pytest.raises(InterventionError, match=r"PROMPT, LAST, GENERATED, ALL.*got 'final'"):
        Positions.parse("final")


@pytest.mark.parametrize("place", [10, -11, 10**9])
def test_a_place_outside_of_the_prompt_is_named_with_the_range(place):
    with pytest.raises(
        InterventionError, match=f"needs position {place}.*10 tokens: 0 to 9, or -1"
    ):
        spans(at([0, place]))


def test_no_place_and_no_marker_are_refused():
    with pytest.raises(InterventionError, match="names no position"):
        at([])
    with pytest.raises(InterventionError, match="marks nothing"):
        after("")


@pytest.mark.parametrize(
    ("text", "marker", "start"),
    # One token a byte, and <bos> in front.
    [
        ("Q: x A: y", "A:", 8),
        ("aXbXc", "X", 3),
        ("this is it", "it", 11),
        ("it", "it", 3),
        # Letters of special tokens are no text; whole ones may be asked for.
        ("has a b", "b", 8),
        ("é世x", "世", 6),
        ("abc", "<bos>", 1),
        ("abc", "<bos>ab", 3),
        ("a\n\nb\n\nc", "\n\n", 4),
    ],
)
def test_after_begins_behind_the_token_that_completes_the_first_marker(text, marker, start):
    assert spans(after(marker), tokens_of(text)) == ((start, FOREVER),)


@given(st.text(alphabet="ab世é\n ", min_size=1, max_size=12), st.data())
def test_after_is_found_wherever_the_marker_stands(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    marker = text[start : data.draw(st.integers(start + 1, len(text)))]
    expected = 1 + len((text[: text.index(marker)] + marker).encode())
    assert spans(after(marker), tokens_of(text)) == ((expected, FOREVER),)


def test_a_marker_that_the_prompt_does_not_have_is_named_with_the_prompt():
    with pytest.raises(InterventionError, match=r"after\(A:\): the prompt 'abc' does not contain"):
        spans(after("A:"), tokens_of("abc"))
    with pytest.raises(InterventionError, match=r"after\(bos\)"):
        spans(after("bos"), tokens_of("abc"))


def test_a_marker_that_spans_tokens_of_a_real_tokenizer_is_found(stories_model):
    tokenizer = stories_model.tokenizer
    prompt = tuple(tokenizer("Once upon a time, there was a girl.")["input_ids"])
    for marker in ["upon a ti", "e, the", "girl.", "Once"]:
        ((start, stop),) = after(marker).spans(prompt, tokenizer)
        assert stop == FOREVER
        assert marker in tokenizer.decode(prompt[:start])
        assert marker not in tokenizer.decode(prompt[: start - 1])


def test_bytes_behind_a_marker_do_not_hide_it(stories_model):
    # A newline and every character that the vocabulary lacks are bytes, one token each; as long
    # as a character is not whole, this tokenizer shows none of the bytes before it.
    tokenizer = stories_model.tokenizer
    prompt = tuple(tokenizer("a\n世界 b")["input_ids"])
    newline = tokenizer.convert_tokens_to_ids("<0x0A>")
    ((start, _),) = after("\n").spans(prompt, tokenizer)
    assert prompt[start - 1] == newline
    ((start, _),) = after("世").spans(prompt, tokenizer)
    assert tokenizer.convert_ids_to_tokens(prompt[start - 1]) == "<0x96>"


def test_spaces_that_a_tokenizer_would_clean_away_are_part_of_a_marker():
    cleaning = tiny_tokenizer(find_family("llama", "tests"))
    cleaning.clean_up_tokenization_spaces = True
    prompt = tuple(cleaning("a . b")["input_ids"])
    assert after(" .").spans(prompt, cleaning) == ((4, FOREVER),)


def test_markers_are_looked_for_with_the_tokenizer_that_is_asked():
    other = tiny_model("llama").tokenizer
    backwards = tiny_tokenizer(find_family("llama", "tests"))
    backwards.add_tokens(["abc"])
    assert after("ab").spans(tuple(other("abc")["input_ids"]), other) == ((3, FOREVER),)
    assert after("ab").spans(tuple(backwards("abc")["input_ids"]), backwards) == ((2, FOREVER),)
