"""What is true of every reasoner: a text is on its own, and fast ways give what slow ones do."""

import pytest
import torch
from tiny_reasoners import EOS, REASONERS, SIZES, some_answers, some_texts

from fluoroscope.core.errors import ModelError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.studies.connection.network.decoding import answer

CLOSE = {"atol": 1e-9, "rtol": 1e-9}
REPEATING = [name for name, make in REASONERS.items() if make().max_steps > 0]


@pytest.fixture(params=REASONERS)
def reasoner(request):
    return REASONERS[request.param]().double().eval()


@pytest.fixture(params=REPEATING)
def repeating(request):
    return REASONERS[request.param]().double().eval()


def answered(reasoner, ids, mask, target_in):
    """All that is a text's own: logits, steps, and by text what it did on the way."""
    with torch.no_grad():
        thought = reasoner.think(ids, mask)
        logits = reasoner.logits(thought, target_in)
    ways = [column[:n] for column, n in zip(thought.changes.T, thought.n_steps, strict=True)]
    if thought.routing is not None:
        shares = [given[at] for given, at in zip(thought.routing, mask, strict=True)]
        ways = [torch.cat([way, given.flatten()]) for way, given in zip(ways, shares, strict=True)]
    return logits, thought.n_steps, ways


def assert_same(found, expected):
    torch.testing.assert_close(found[0], expected[0], **CLOSE)
    assert found[1].tolist() == expected[1].tolist()
    for one, other in zip(found[2], expected[2], strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def test_padding_changes_nothing(reasoner):
    (ids, mask), target_in = some_texts(), some_answers()
    expected = answered(reasoner, ids, mask, target_in)
    more = torch.randint(0, SIZES["vocab_size"], (len(ids), 3), generator=torch_stream(5, "more"))
    padded = torch.cat([ids, more], dim=1)
    wider = torch.cat([mask, torch.zeros_like(more, dtype=torch.bool)], dim=1)
    assert_same(answered(reasoner, padded, wider, target_in), expected)
    other_padding = torch.where(mask, ids, (ids + 3) % SIZES["vocab_size"])
    assert_same(answered(reasoner, other_padding, mask, target_in), expected)


def test_a_text_alone_is_what_it_is_in_a_batch(reasoner):
    (ids, mask), target_in = some_texts(), some_answers()
    together = answered(reasoner, ids, mask, target_in)
    for row in range(len(ids)):
        n = int(mask[row].sum())
        one = slice(row, row + 1)
        alone = answered(reasoner, ids[one, :n], mask[one, :n], target_in[one])
        assert_same(alone, tuple(part[one] for part in together))


def test_the_order_of_a_batch_changes_nothing(reasoner):
    (ids, mask), target_in = some_texts(), some_answers()
    expected = answered(reasoner, ids, mask, target_in)
    order = torch.randperm(len(ids), generator=torch_stream(2, "order"))
    found = answered(reasoner, ids[order], mask[order], target_in[order])
    assert_same(found, (expected[0][order], expected[1][order], [expected[2][i] for i in order]))


def test_texts_change_answers(reasoner):
    (ids, mask), target_in = some_texts(), some_answers()
    logits = answered(reasoner, ids, mask, target_in[:1].expand_as(target_in))[0]
    assert (logits[1:] - logits[:1]).abs().amax(dim=(1, 2)).min() > 1e-4


def test_writing_token_by_token_gives_the_logits_of_the_whole(reasoner):
    (ids, mask), target_in = some_texts(), some_answers(n_tokens=SIZES["max_target"])
    with torch.no_grad():
        thought = reasoner.think(ids, mask)
        whole = reasoner.logits(thought, target_in)
        writing = reasoner.begin(thought)
        written = [reasoner.write(writing, last) for last in target_in.T]
    torch.testing.assert_close(torch.stack(written, dim=1), whole, **CLOSE)
    assert writing.n_written == SIZES["max_target"]


def test_answers_are_those_of_a_loop_without_a_cache(reasoner):
    ids, mask = some_texts()
    ids, mask = ids.repeat(4, 1), mask.repeat(4, 1)
    ids = (ids + torch.arange(len(ids))[:, None]) % (SIZES["vocab_size"] - 2) + 2
    found = answer(reasoner, ids, mask, SIZES["max_target"], EOS)
    with torch.no_grad():
        thought = reasoner.think(ids, mask)
        target_in = torch.zeros(len(ids), 1, dtype=torch.int64)
        for _ in range(SIZES["max_target"]):
            token = reasoner.logits(thought, target_in)[:, -1].argmax(dim=-1)
            target_in = torch.cat([target_in, token[:, None]], dim=1)
    for row, tokens in enumerate(target_in[:, 1:].tolist()):
        wanted = tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens
        n = int(found.lengths[row])
        assert found.ids[row, :n].tolist() == wanted
        assert not found.ids[row, n:].any()


def test_an_answer_has_room_or_says_so(reasoner):
    ids, mask = some_texts()
    n = SIZES["max_target"]
    with pytest.raises(ModelError, match=rf"1 to {n} tokens.*max_tokens={n + 1}"):
        answer(reasoner, ids, mask, n + 1, EOS)
    with pytest.raises(ModelError, match=rf"{n}.*got {n + 1}"):
        reasoner.logits(reasoner.think(ids, mask), some_answers(n_tokens=n + 1))
    with pytest.raises(ModelError, match=r"12.*got 13"):
        reasoner.think(torch.ones(1, 13, dtype=torch.int64), torch.ones(1, 13, dtype=torch.bool))


def test_each_text_thinks_the_steps_it_is_told(repeating):
    (ids, mask), target_in = some_texts(), some_answers()
    wanted = torch.tensor([1, 0, 3, 2, 3, 1])
    with torch.no_grad():
        thought = repeating.think(ids, mask, wanted)
        logits = repeating.logits(thought, target_in)
        for n in range(4):
            alike = repeating.think(ids, mask, n)
            assert alike.n_steps.tolist() == [n] * len(ids)
            assert len(alike.states) == n + 1
            rows = wanted == n
            expected = repeating.logits(alike, target_in)
            torch.testing.assert_close(logits[rows], expected[rows], **CLOSE)
    assert torch.equal(thought.n_steps, wanted)


def test_states_on_the_way_are_those_of_fewer_steps(repeating):
    (ids, mask), target_in = some_texts(), some_answers()
    with torch.no_grad():
        thought = repeating.think(ids, mask, 3)
        for n in range(4):
            fewer = repeating.logits(repeating.think(ids, mask, n), target_in)
            torch.testing.assert_close(
                repeating.logits(thought, target_in, after=n), fewer, **CLOSE
            )
        last = repeating.logits(thought, target_in)
        torch.testing.assert_close(repeating.logits(thought, target_in, after=3), last, **CLOSE)


def test_changes_are_how_far_states_moved_for_their_size(repeating):
    ids, mask = some_texts()
    with torch.no_grad():
        thought = repeating.think(ids, mask)
    assert len(thought.changes) == len(thought.states) - 1
    for t, changes in enumerate(thought.changes):
        for row, change in enumerate(changes):
            kept = thought.mask[row]
            before, after = (thought.states[t + i][row][kept] for i in (0, 1))
            assert float(change) == pytest.approx(float((after - before).norm() / before.norm()))
            assert (t < thought.n_steps[row]) == (change > 0)
