from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fluoroscope.activations.extract_config import ExtractConfig
from fluoroscope.activations.sources import ModelSource, StoreSource
from fluoroscope.activations.store import ActivationStore
from fluoroscope.activations.stream import ActivationStream, rows_in_order
from fluoroscope.core.errors import ConfigError, MismatchError
from fluoroscope.core.tensors import read_state, write_state
from fluoroscope.data.token_store import TokenStore
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel

A, B = HookPoint("0.resid_post"), HookPoint("1.resid_post")


class CountingSource:
    """Row i holds (i, chunk) at A, and minus that at B; counts what is loaded."""

    d_model = 2
    can_read_ahead = True

    def __init__(self, sizes: Sequence[int]) -> None:
        self.chunk_rows = np.array(sizes)
        self.loads: list[int] = []

    def load_chunk(self, chunk: int, points: Sequence[HookPoint]) -> dict[HookPoint, Tensor]:
        self.loads.append(chunk)
        first = int(self.chunk_rows[:chunk].sum())
        rows = torch.arange(first, first + int(self.chunk_rows[chunk])).float()
        pairs = torch.stack([rows, torch.full_like(rows, chunk)], dim=1)
        return {point: pairs if point == A else -pairs for point in points}


def make_stream(sizes: Sequence[int], **settings: object) -> ActivationStream:
    chosen = {"batch_size": 7, "seed": 3, "n_samples": 2 * sum(sizes), "buffer_rows": 20}
    return ActivationStream(CountingSource(sizes), [A, B], **{**chosen, **settings})


def rows_of(stream: ActivationStream) -> list[int]:
    return [int(row) for batch in stream for row in batch[A][:, 0]]


SIZES = st.lists(st.integers(1, 15), min_size=1, max_size=12)


@given(SIZES, st.integers(1, 7), st.integers(1, 60))
def test_each_epoch_is_a_permutation_of_the_rows(sizes, batch_size, buffer_rows):
    n_rows = sum(sizes)
    stream = make_stream(
        sizes, batch_size=batch_size, n_samples=3 * n_rows + batch_size, buffer_rows=buffer_rows
    )
    rows = rows_of(stream)
    assert len(rows) == stream.n_batches * batch_size >= 3 * n_rows
    for epoch in range(3):
        assert sorted(rows[epoch * n_rows : (epoch + 1) * n_rows]) == list(range(n_rows))


@given(SIZES, st.integers(1, 7), st.data())
def test_seeking_gives_the_batches_that_running_gives(sizes, batch_size, data):
    settings = {"batch_size": batch_size, "n_samples": 2 * sum(sizes) + batch_size}
    stream = make_stream(sizes, **settings)
    run = [batch[A] for batch in stream]
    for _ in range(3):
        position = data.draw(st.integers(0, len(run)))
        stream.seek(position)
        rest = [batch[A] for batch in stream]
        assert len(rest) == len(run) - position
        assert all(torch.equal(a, b) for a, b in zip(rest, run[position:], strict=True))


def test_seeking_loads_no_more_than_the_groups_of_the_batch():
    stream = make_stream([5] * 1000, n_samples=15_000, batch_size=7, buffer_rows=20)
    stream.seek(2000)
    stream.next_batch()
    assert len(stream._source.loads) <= 8


def test_a_saved_position_is_continued_from_a_file(tmp_path: Path):
    whole = make_stream([9] * 6)
    expected = [batch[B] for batch in whole][5:]
    stopped = make_stream([9] * 6)
    for _ in range(5):
        stopped.next_batch()
    write_state(tmp_path / "state.safetensors", stopped.state())
    resumed = make_stream([9] * 6)
    resumed.load(read_state(tmp_path / "state.safetensors"))
    rest = [batch[B] for batch in resumed]
    assert all(torch.equal(a, b) for a, b in zip(rest, expected, strict=True))


@pytest.mark.parametrize("change", [{"seed": 4}, {"batch_size": 6}, {"buffer_rows": 40}])
def test_a_state_of_other_settings_is_refused(change: dict[str, int]):
    state = make_stream([9] * 6).state()
    with pytest.raises(MismatchError, match="saved stream"):
        make_stream([9] * 6, **change).load(state)


def test_rows_stay_aligned_across_hook_points():
    for batch in make_stream([4, 9, 2, 7]):
        assert torch.equal(batch[A], -batch[B])


def test_the_seed_and_the_epoch_change_the_order():
    first, other = rows_of(make_stream([9] * 6)), rows_of(make_stream([9] * 6, seed=4))
    assert first != other
    assert first[:54] != first[54:108]


def test_batches_mix_chunks_as_far_as_the_buffer_reaches():
    batches = list(make_stream([50] * 40, batch_size=100, n_samples=2000, buffer_rows=500))
    n_chunks = [len(batch[A][:, 1].unique()) for batch in batches]
    assert np.mean(n_chunks) > 8


def test_memory_is_the_buffer_whatever_the_number_of_rows():
    for n_chunks in (10, 1000):
        stream = make_stream([5] * n_chunks, batch_size=3, buffer_rows=20)
        for _ in zip(range(30), stream, strict=False):
            assert sum(len(rows) for rows in stream._group.buffers.values()) <= 2 * 20


def test_reading_ahead_changes_nothing():
    plain = [batch[A] for batch in make_stream([9] * 6)]
    ahead = make_stream([9] * 6, read_ahead=True)
    assert all(torch.equal(a, b[A]) for a, b in zip(plain, ahead, strict=True))
    ahead.seek(4)
    assert torch.equal(ahead.next_batch()[A], plain[4])


def test_an_error_while_reading_ahead_is_raised_by_the_next_batch():
    class Failing(CountingSource):
        def load_chunk(self, chunk: int, points: Sequence[HookPoint]) -> dict[HookPoint, Tensor]:
            if len(self.loads) >= 2:
                raise OSError("gone")
            return super().load_chunk(chunk, points)

    stream = ActivationStream(
        Failing([9] * 6), [A], batch_size=9, seed=0, n_samples=54, buffer_rows=18, read_ahead=True
    )
    with pytest.raises(OSError, match="gone"):
        list(stream)


def test_a_stream_without_rows_or_batches_is_refused():
    with pytest.raises(ConfigError, match="0 rows"):
        make_stream([])
    with pytest.raises(ConfigError, match="n_samples=5"):
        make_stream([9] * 6, n_samples=5)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_rows_in_order_are_the_source_in_its_own_order(batch_size: int):
    source = CountingSource([4, 9, 2, 7])
    batches = list(rows_in_order(source, [A, B], batch_size))
    assert torch.cat([batch[A] for batch in batches])[:, 0].tolist() == list(range(22))
    assert all(len(batch[A]) == batch_size for batch in batches[:-1])
    some = torch.cat([batch[B] for batch in rows_in_order(source, [B], batch_size, n_rows=6)])
    assert some[:, 0].tolist() == [-i for i in range(6)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_stream_from_the_model_is_the_stream_from_its_store(
    model: LanguageModel,
    tokens: TokenStore,
    points: list[HookPoint],
    tmp_path: Path,
    extract,
    dtype: str,
):
    store: ActivationStore = extract(tmp_path, dtype=dtype)
    sources = [
        StoreSource(store),
        ModelSource(model, tokens, config=ExtractConfig(tile_windows=4, dtype=dtype)),
    ]
    streams = [
        ActivationStream(s, points, batch_size=64, seed=0, n_samples=4000, buffer_rows=512)
        for s in sources
    ]
    assert streams[0].n_rows == streams[1].n_rows == store.n_rows("train")
    for stored, computed in zip(*streams, strict=True):
        for point in points:
            assert stored[point].dtype == torch.float32
            assert torch.equal(stored[point], computed[point])


@pytest.mark.parametrize("exclude_bos", [True, False])
def test_the_model_gives_the_rows_of_a_number_of_windows(
    model: LanguageModel, tokens: TokenStore, points: list[HookPoint], exclude_bos: bool
):
    config = ExtractConfig(tile_windows=4, exclude_bos=exclude_bos)
    source = ModelSource(model, tokens, "test", config=config, n_windows=6)
    assert len(source.chunk_rows) == 2
    for chunk, n_rows in enumerate(source.chunk_rows):
        assert len(source.load_chunk(chunk, points)[points[0]]) == n_rows


def test_a_stream_from_the_model_cannot_leave_out_sinks(model: LanguageModel, tokens: TokenStore):
    with pytest.raises(ConfigError, match="exclude_sinks needs a store"):
        ModelSource(model, tokens, config=ExtractConfig(exclude_sinks=True))
