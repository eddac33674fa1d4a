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


@given(DOCUMENTS, st.integers(2, 9), STARTS)
def test_unpacked_windows_hold_one_document_and_lose_nothing(documents, context, starts):
    packer = Packer(context, starts, PAD, pack=False)
    for number, tokens in enumerate(documents):
        packer.add(number, tokens)
    tokens, document, _, is_start = packer.take()
    assert packer.n_waiting == 0
    texts: dict[int, list[int]] = {number: [] for number in range(len(documents))}
    for window in range(len(tokens)):
        is_real = document[window] != PADDING
        assert len(set(document[window][is_real])) == 1
        # Padding stands behind.
        assert is_real.tolist() == sorted(is_real.tolist(), reverse=True)
        texts[int(document[window, 0])] += tokens[window][
            is_real & (is_start[window] == 0)
        ].tolist()
    # The pieces of a document that was cut may come in another order.
    assert {number: sorted(text) for number, text in texts.items()} == {
        number: sorted(text) for number, text in enumerate(documents)
    }


def test_unpacked_windows_of_like_length_are_neighbours_and_any_beginning_is_a_fair_sample():
    packer = Packer(40, StartTokens(START, START), PAD, pack=False)
    luck = np.random.default_rng(0)
    lengths = luck.integers(1, 39, 640)
    for number, length in enumerate(lengths):
        packer.add(number, [1] * int(length))
    found = (packer.take()[1] != PADDING).sum(axis=1)
    groups = found.reshape(-1, 16)
    assert (groups.max(axis=1) - groups.min(axis=1)).max() <= 3
    assert abs(found[:160].mean() - found.mean()) < 5
