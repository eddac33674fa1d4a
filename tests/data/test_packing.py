import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fluoroscope.data.packing import PADDING, Packed, Packer
from fluoroscope.data.tokenizing import StartTokens

START, PAD = 900, 901
DOCUMENTS = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=20), max_size=12)
STARTS = st.sampled_from(
    [
        StartTokens(START, START),
        StartTokens(START, None),
        StartTokens(None, None),
    ]
)


def packed(documents: list[list[int]], context: int, starts: StartTokens, every: int = 1) -> Packed:
    packer = Packer(context, starts, PAD)
    parts = []
    for number, tokens in enumerate(documents):
        packer.add(number, tokens)
        if number % every == 0:
            parts.append(packer.take())
    return np.concatenate([*parts, packer.take(everything=True)], axis=1)


@given(DOCUMENTS, st.integers(2, 9), STARTS)
def test_all_text_comes_through_once_and_in_order(documents, context, starts):
    tokens, document, position, is_start = packed(documents, context, starts)
    is_text = (document != PADDING) & (is_start == 0)
    assert tokens[is_text].tolist() == [token for text in documents for token in text]
    numbers = [number for number, text in enumerate(documents) for _ in text]
    assert document[is_text].tolist() == numbers
    offset = 0 if starts.document is None else 1
    places = [place + offset for text in documents for place in range(len(text))]
    assert position[is_text].tolist() == places


@given(DOCUMENTS, st.integers(2, 9))
def test_every_window_starts_with_the_start_token_and_none_twice(documents, context):
    tokens, document, position, is_start = packed(documents, context, StartTokens(START, START))
    assert (tokens[:, 0] == START).all()
    assert (is_start[:, 1:] & is_start[:, :-1]).sum() == 0
    is_inserted = (position == PADDING) & (document != PADDING)
    assert not is_inserted[:, 1:].any()
    assert ((tokens == START) == (is_start == 1)).all()


@given(DOCUMENTS, st.integers(2, 9), STARTS)
def test_only_the_end_of_the_last_window_is_padding(documents, context, starts):
    tokens, document, _, _ = packed(documents, context, starts)
    is_padding = document.ravel() == PADDING
    n_real = int((~is_padding).sum())
    assert is_padding.tolist() == [False] * n_real + [True] * (len(is_padding) - n_real)
    assert len(is_padding) - n_real < context
    assert (tokens[document == PADDING] == PAD).all()


@given(DOCUMENTS, st.integers(2, 9), STARTS, st.integers(2, 5))
def test_how_often_windows_are_taken_changes_nothing(documents, context, starts, every):
    often = packed(documents, context, starts, every=1)
    assert (often == packed(documents, context, starts, every=every)).all()
