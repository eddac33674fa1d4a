"""What slots and steps were used for, on cases whose numbers are known."""

import numpy as np
import pytest

from fluoroscope.core.errors import CorpusError
from fluoroscope.core.seeding import stream
from fluoroscope.studies.connection.network.slot_metrics import (
    avg_reasoning_steps,
    early_termination_rate,
    reasoning_adaptivity,
    slot_label_information,
    slot_shares,
    slot_specialization,
    slot_usage,
)

EYE = np.eye(4)


def test_shares_are_of_the_tokens_of_a_text_and_not_of_its_padding():
    routing = np.zeros((2, 3, 2))
    routing[0] = [[1, 0], [0.5, 0.5], [0.75, 0.25]]
    routing[1, 0] = [0.25, 0.75]
    assert slot_shares(routing).tolist() == [[0.75, 0.25], [0.25, 0.75]]


@pytest.mark.parametrize(
    ("shares", "specialization", "usage"),
    [
        (EYE, 1, 1),
        (EYE[[2, 2, 2]], 1, 0),
        (np.full((3, 4), 0.25), 0, 1),
        (np.array([[0.5, 0.5, 0, 0]]), 0.5, 0.5),
        (np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]), 0.5, 1),
        (np.ones((3, 1)), 1, 0),
    ],
    ids=["a slot each", "all the same", "all alike", "half", "half each", "one slot"],
)
def test_specialization_is_within_texts_and_usage_over_them(shares, specialization, usage):
    assert slot_specialization(shares) == pytest.approx(specialization)
    assert slot_usage(shares) == pytest.approx(usage)


def test_slots_that_know_the_label_tell_all_of_it_and_one_for_all_tells_nothing():
    labels = np.array([7, 7, 3, 3, 5])
    assert slot_label_information(EYE[[0, 1, 2, 2, 3]], labels) == pytest.approx(1)
    assert slot_label_information(EYE[[1] * 5], labels) == pytest.approx(0, abs=1e-12)
    assert slot_label_information(EYE[[0, 1, 2, 2, 3]], np.array([4] * 5)) == 0


def test_slots_that_tell_one_of_two_bits_tell_half():
    labels = np.arange(4).repeat(3)
    slots = EYE[labels // 2]
    assert slot_label_information(slots, labels) == pytest.approx(0.5)


def test_slots_that_know_nothing_tell_little_of_many_texts():
    draw = stream(0, "slots")
    shares, labels = draw.dirichlet(np.ones(4), 5000), draw.integers(0, 3, 5000)
    assert 0 < slot_label_information(shares, labels) < 0.005


def test_numbers_of_steps():
    n_steps = np.array([1, 3, 4, 4])
    assert avg_reasoning_steps(n_steps) == 3
    assert early_termination_rate(n_steps, 4) == 0.5
    assert reasoning_adaptivity(n_steps) == pytest.approx((4 + 0 + 1 + 1) / 4 / 3)
    assert reasoning_adaptivity(np.array([2, 2])) == 0
    assert reasoning_adaptivity(np.zeros(3, dtype=np.int64)) == 0


@pytest.mark.parametrize(
    "metric",
    [
        lambda: slot_specialization(np.zeros((0, 4))),
        lambda: slot_usage(np.zeros((0, 4))),
        lambda: slot_label_information(np.zeros((0, 4)), np.zeros(0, dtype=np.int64)),
        lambda: avg_reasoning_steps(np.zeros(0, dtype=np.int64)),
        lambda: early_termination_rate(np.zeros(0, dtype=np.int64), 4),
        lambda: reasoning_adaptivity(np.zeros(0, dtype=np.int64)),
    ],
)
def test_no_texts_have_no_mean(metric):
    with pytest.raises(CorpusError, match="at least one text"):
        metric()
