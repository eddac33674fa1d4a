import jaxtyping
import numpy as np
import pytest

from fluoroscope.core.errors import ConfigError
from fluoroscope.data.labelled.base import labelled_place, labelled_set
from fluoroscope.data.labelled.batches import epoch_batches, side_batches

LENGTHS = np.random.default_rng(0).geometric(0.05, size=1003) + 2


def epoch(lengths=LENGTHS, seed=0, epoch=0, drop_last=False, bucketed=True, batch_size=8):
    return epoch_batches(lengths, batch_size, seed, epoch, drop_last=drop_last, bucketed=bucketed)


def padded(lengths, batches):
    """Share of all positions that are padding."""
    total = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return 1 - sum(int(lengths[batch].sum()) for batch in batches) / total


@pytest.mark.parametrize("bucketed", [True, False])
def test_an_epoch_has_every_row_once(bucketed):
    batches = epoch(bucketed=bucketed)
    assert sorted(np.concatenate(batches).tolist()) == list(range(1003))
    assert [len(batch) for batch in batches] == [8] * 125 + [3]
    dropped = epoch(bucketed=bucketed, drop_last=True)
    assert all(np.array_equal(a, b) for a, b in zip(dropped, batches[:-1], strict=True))


def test_an_epoch_depends_on_its_seed_and_number_alone():
    def order(**settings):
        return np.concatenate(epoch(**settings)).tolist()

    later = order(epoch=3)
    order(epoch=0)
    assert order(epoch=3) == later
    assert order(epoch=2) != later
    assert order(seed=1, epoch=3) != later


def test_rows_left_out_are_of_any_length():
    left = [
        LENGTHS[list(set(range(1003)) - set(np.concatenate(batches).tolist()))].mean()
        for batches in (epoch(seed=seed, drop_last=True) for seed in range(200))
    ]
    # Three rows each of 200 epochs: the mean length is 22, its standard error 0.8.
    assert np.mean(left) == pytest.approx(LENGTHS.mean(), abs=4)


def test_short_and_long_batches_come_in_any_order():
    means = [LENGTHS[batch].mean() for batch in epoch()]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


@pytest.mark.parametrize("name", ["sst2", "trec"])
def test_buckets_of_real_texts_are_hardly_padded(name, data_folder, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    gathered = labelled_set(name).read(labelled_place(name, data_folder))
    lengths = np.array([len(one.text.split()) for one in gathered.side("train")])
    at_random = padded(lengths, epoch(lengths, bucketed=False, batch_size=32))
    bucketed = padded(lengths, epoch(lengths, batch_size=32))
    assert at_random > 0.3
    assert bucketed < 0.05


def test_a_side_is_read_once_from_short_to_long():
    batches = side_batches(LENGTHS, 8)
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(1003))
    assert (np.diff(LENGTHS[order]) >= 0).all()
    assert side_batches(np.empty(0, int), 8) == []


def test_an_epoch_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="fewer than batch_size=8"):
        epoch(LENGTHS[:7], drop_last=True)
    assert len(epoch(LENGTHS[:7])) == 1
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        epoch(batch_size=0)
