import tracemalloc
from dataclasses import is_dataclass
from itertools import pairwise

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fluoroscope.core.errors import ConfigError, MismatchError, NumericsError
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.features import naive_statistics as naive
from fluoroscope.features.activation_columns import ColumnsWriter, LatentColumns
from fluoroscope.features.statistics import (
    EVERY,
    MEDIAN,
    TEXT,
    Layout,
    TokenMoments,
    count_curves,
    latent_statistics,
    position_coefficients,
    position_statistics,
    token_moments,
)
from fluoroscope.sae.sparse_kernels import SparseLatents, select_above
from fluoroscope.sae.topk import TopK, TopKConfig

Q, P, S = 8, 32, 64


def made_layout(q=Q, p=P, seed=0):
    random = np.random.default_rng(seed)
    lengths = random.integers(p // 2, p + 1, q)
    exists = np.arange(p) < lengths[:, None]
    is_text = random.random((q, p)) > 0.1
    is_text[:, 0] = False
    return Layout(exists, is_text)


def made_latents(layout, s=S, seed=0, scale=1.0):
    """Dense activations: a dead latent, one active once, one that knows the position, a dense one
    that is always the same."""
    random = np.random.default_rng(seed)
    q, p = layout.exists.shape
    dense = random.gamma(1.5, size=(q, p, s)) * (random.random((q, p, s)) < 0.1)
    dense[:, :, 0] = 0.0
    dense[:, :, 1] = 0.0
    dense[2, 5, 1] = 3.0
    dense[:, :, 2] = np.arange(p) * (random.random((q, p)) < 0.9)
    dense[:, :, 3] = 0.7
    dense = (dense * scale).astype(np.float32)
    return dense * layout.exists[:, :, None]


def sparse(rows):
    return select_above(torch.from_numpy(rows), torch.zeros(rows.shape[1]))


def written(tmp_path, dense, cuts=(0, Q), memory_bytes=1 << 29, name="0.resid_post"):
    """The columns of `dense`, taken in stretches of whole sequences, and the token moments."""
    folder = tmp_path / f"{len(cuts)}-{memory_bytes}"
    writer = ColumnsWriter(folder, {name: dense.shape[2]}, memory_bytes)
    moments = []
    for first, stop in pairwise(cuts):
        rows = sparse(dense[first:stop].reshape(-1, dense.shape[2]))
        writer.add(name, rows, first * dense.shape[1])
        moments.append(token_moments(rows))
    writer.close()
    columns = LatentColumns(sorted((folder / name).iterdir()))
    parts = [[getattr(one, name) for one in moments] for name in ("count", "mean", "squares")]
    tokens = TokenMoments(*map(np.concatenate, parts))
    return columns, tokens, writer


def leaves(found):
    if isinstance(found, np.ndarray):
        return [found]
    parts = vars(found).values() if is_dataclass(found) else found
    return [leaf for part in parts for leaf in leaves(part)]


def assert_same(found, expected):
    for one, other in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def assert_equal_bits(found, expected):
    for one, other in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def test_sparse_statistics_are_those_of_a_dense_float64_oracle(tmp_path):
    layout = made_layout()
    dense = made_latents(layout)
    columns, tokens, _ = written(tmp_path, dense)
    assert_same(latent_statistics(columns, layout), naive.latent_statistics(dense, layout))
    assert_same(position_statistics(tokens, layout, S), naive.position_statistics(dense, layout))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), q=st.integers(1, 5), p=st.integers(1, 9), s=st.integers(4, 12))
def test_the_oracle_agrees_on_odd_shapes(tmp_path_factory, seed, q, p, s):
    layout = made_layout(q, p, seed)
    dense = np.zeros((q, p, s), np.float32)
    random = np.random.default_rng(seed)
    dense[:] = random.exponential(size=dense.shape) * (random.random(dense.shape) < 0.4)
    dense *= layout.exists[:, :, None]
    columns, tokens, _ = written(tmp_path_factory.mktemp("odd"), dense, (0, q))
    assert_same(latent_statistics(columns, layout), naive.latent_statistics(dense, layout))
    assert_same(position_statistics(tokens, layout, s), naive.position_statistics(dense, layout))


@pytest.mark.parametrize("cuts", [tuple(range(Q + 1)), (0, 3, Q), (0, 1, 7, Q)])
@pytest.mark.parametrize("memory_bytes", [200, 5_000])
def test_neither_chunks_nor_spills_change_a_bit(tmp_path, cuts, memory_bytes):
    layout = made_layout()
    dense = made_latents(layout)
    columns, tokens, writer = written(tmp_path, dense, cuts, memory_bytes)
    whole, whole_tokens, _ = written(tmp_path, dense)
    assert writer.n_spills > 1, "this test is about several parts"
    assert_equal_bits(latent_statistics(columns, layout), latent_statistics(whole, layout))
    assert_equal_bits(tokens, whole_tokens)


def test_the_number_of_threads_changes_no_bit(tmp_path):
    layout = made_layout()
    columns, _, _ = written(tmp_path, made_latents(layout))
    before = numba.get_num_threads()
    found = []
    try:
        for n in (1, 2):
            numba.set_num_threads(n)
            found.append(latent_statistics(columns, layout))
    finally:
        numba.set_num_threads(before)
    assert_equal_bits(*found)


def test_the_size_of_blocks_changes_nothing(tmp_path):
    layout = made_layout()
    columns, _, _ = written(tmp_path, made_latents(layout), (0, 3, Q))
    whole = columns.block(0, S)
    at = 0
    for block in columns.blocks(memory_bytes=300):
        for i in range(len(block.starts) - 1):
            part = slice(block.starts[i], block.starts[i + 1])
            own = slice(whole.starts[block.first + i], whole.starts[block.first + i + 1])
            np.testing.assert_array_equal(block.tokens[part], whole.tokens[own])
            np.testing.assert_array_equal(block.values[part], whole.values[own])
            at += 1
    assert at == S


def test_a_dead_latent_has_counts_of_zero_and_no_nan(tmp_path):
    layout = made_layout()
    columns, tokens, _ = written(tmp_path, made_latents(layout))
    found = latent_statistics(columns, layout)
    assert found.every.count[0] == 0
    assert found.every.quantiles[0].tolist() == [0.0] * 10
    for part in leaves(found) + leaves(position_statistics(tokens, layout, S)):
        assert np.isfinite(part).all()


def test_nothing_active_at_all_is_no_error(tmp_path):
    layout = made_layout()
    columns, tokens, _ = written(tmp_path, np.zeros((Q, P, S), np.float32))
    for part in leaves(latent_statistics(columns, layout)):
        assert not part.any()
    assert not position_statistics(tokens, layout, S).count.any()


def test_activations_beyond_half_precision_overflow_nothing(tmp_path):
    """Squares of 1e5 overflow float32's neighbour float16, and E[x^2] - E[x]^2 loses digits."""
    layout = made_layout()
    dense = made_latents(layout, scale=1e5)
    columns, _, _ = written(tmp_path, dense)
    found = latent_statistics(columns, layout)
    expected = naive.latent_statistics(dense, layout).every
    assert found.every.maximum.max() > 1e5
    assert_same(
        [part / 1e5 for part in (found.every.mean, found.every.std, found.every.quantiles)],
        [part / 1e5 for part in (expected.mean, expected.std, expected.quantiles)],
    )


def test_an_sae_of_a_model_in_half_precision_gives_finite_statistics(tmp_path):
    sae = TopK(TopKConfig(d_model=8, d_sae=16, k=4))
    x = (torch.randn(4 * 8, 8).sign() * 6e4).half()
    assert x.isfinite().all()
    latents = sae.sparse_encode(x.float())
    assert latents.values.max() > 65504
    writer = ColumnsWriter(tmp_path, {"a": 16})
    writer.add("a", latents, 0)
    writer.close()
    layout = Layout(np.ones((4, 8), bool), np.ones((4, 8), bool))
    found = latent_statistics(LatentColumns(sorted((tmp_path / "a").iterdir())), layout)
    assert found.every.mean.max() > 65504
    assert all(np.isfinite(part).all() for part in leaves(found))


def test_what_is_not_finite_is_refused_by_name(tmp_path):
    writer = ColumnsWriter(tmp_path, {"3.resid_pre": 4})
    bad = SparseLatents(
        torch.tensor([0, 1]), torch.tensor([2], dtype=torch.int32), torch.tensor([torch.inf]), 4
    )
    with pytest.raises(NumericsError, match=r"3\.resid_pre are not finite between tokens 7 and 8"):
        writer.add("3.resid_pre", bad, 7)


def test_tokens_that_come_out_of_order_are_refused(tmp_path):
    writer = ColumnsWriter(tmp_path, {"a": 2})
    rows = sparse(np.ones((3, 2), np.float32))
    writer.add("a", rows, 3)
    with pytest.raises(MismatchError, match="token 5 after those of token 5"):
        writer.add("a", rows, 5)


def test_another_width_than_was_announced_is_refused(tmp_path):
    writer = ColumnsWriter(tmp_path, {"a": 3})
    with pytest.raises(MismatchError, match="announced with 3 latents, and has 2"):
        writer.add("a", sparse(np.ones((3, 2), np.float32)), 0)


def test_the_first_position_is_no_text_whatever_stands_there():
    layout = Layout(np.ones((2, 4), bool), np.ones((2, 4), bool))
    assert layout.counted(EVERY).sum() == 8
    assert layout.counted(TEXT).tolist() == [[False, True, True, True]] * 2


def test_a_latent_that_tells_the_position_has_a_share_near_one_and_noise_near_none(tmp_path):
    layout = Layout(np.ones((40, 16), bool), np.ones((40, 16), bool))
    random = np.random.default_rng(1)
    dense = np.zeros((40, 16, 4), np.float32)
    dense[:, :, 0] = np.arange(16)
    dense[:, :, 1] = random.random((40, 16))
    dense[:, :, 2] = 1.0
    columns, _, _ = written(tmp_path, dense, (0, 40))
    share = latent_statistics(columns, layout).position_share
    assert share[0] == pytest.approx(1.0)
    assert abs(share[1]) < 0.03
    assert share[2] == 0.0


def test_the_share_of_the_position_is_none_on_average_where_there_is_none(tmp_path):
    layout = Layout(np.ones((20, 12), bool), np.ones((20, 12), bool))
    random = np.random.default_rng(5)
    dense = random.exponential(size=(20, 12, 600)) * (random.random((20, 12, 600)) < 0.2)
    columns, _, _ = written(tmp_path, dense.astype(np.float32), (0, 20))
    share = latent_statistics(columns, layout).position_share
    assert abs(share.mean()) < 4 * share.std() / 600**0.5


def test_the_median_is_the_fifth_quantile(tmp_path):
    layout = made_layout()
    dense = made_latents(layout)
    columns, _, _ = written(tmp_path, dense)
    found = latent_statistics(columns, layout).text
    assert MEDIAN == 4
    active = dense[:, :, 10][layout.counted(TEXT)]
    assert found.median[10] == pytest.approx(np.median(active[active > 0]))


def test_coefficients_by_position_are_means_over_sequences(tmp_path):
    layout = made_layout()
    dense = made_latents(layout)
    columns, _, _ = written(tmp_path, dense)
    found = position_coefficients(columns, layout, [5, 2])
    text = layout.counted(TEXT)
    for row, latent in enumerate((5, 2)):
        for p in range(P):
            values = dense[:, p, latent][text[:, p]].astype(np.float64)
            assert found.mean[row, p] == pytest.approx(values.mean() if len(values) else 0.0)
            if len(values) > 1:
                error = values.std(ddof=1) / len(values) ** 0.5
                assert found.error[row, p] == pytest.approx(error, abs=1e-12)


def test_count_curves_end_with_every_active_latent(tmp_path):
    layout = made_layout()
    columns, _, _ = written(tmp_path, made_latents(layout))
    moments = latent_statistics(columns, layout).text
    thresholds, by_median, by_mean = count_curves(moments)
    assert thresholds[0] == 0.0
    assert thresholds[-1] == moments.mean.max()
    assert by_mean[-1] == (moments.count > 0).sum()
    assert (np.diff(by_median) >= 0).all()
    at = 40
    active = moments.count > 0
    assert by_median[at] == (moments.median[active] <= thresholds[at]).sum()


def test_columns_are_of_no_shorter_text_than_they_were_made_of(tmp_path):
    layout = made_layout()
    columns, _, _ = written(tmp_path, made_latents(layout), (0, 3, Q), 200)
    assert columns.n_tokens == Q * P
    short = Layout(layout.exists[:3], layout.is_text[:3])
    narrow = Layout(layout.exists[:, : P // 2], layout.is_text[:, : P // 2])
    for other, n in ((short, 3 * P), (narrow, Q * P // 2)):
        said = f"of {Q * P} tokens, and what came is for {n}"
        with pytest.raises(MismatchError, match=said):
            latent_statistics(columns, other)
        with pytest.raises(MismatchError, match=said):
            position_coefficients(columns, other, [1])
    none = Layout(np.ones((0, 4), bool), np.ones((0, 4), bool))
    with pytest.raises(ConfigError, match="got 0 sequences of 4"):
        latent_statistics(columns, none)


def test_columns_know_tokens_in_which_nothing_was_active(tmp_path):
    dense = made_latents(made_layout())
    dense[-1] = 0.0
    columns, _, _ = written(tmp_path, dense, (0, 3, Q), 200)
    assert columns.n_tokens == Q * P
    # Parts that do not say it know it up to their last active token.
    for path in columns.parts:
        parts = read_tensors(path)
        write_tensors(path, {name: parts[name].clone() for name in ("starts", "tokens", "values")})
    last = int(np.flatnonzero(dense.any(axis=2).ravel())[-1])
    assert LatentColumns(columns.parts).n_tokens == last + 1


def test_what_stands_behind_the_end_of_a_sequence_is_of_no_position(tmp_path):
    layout = made_layout()
    dense = np.full((Q, P, S), 0.5, np.float32)
    dense[:, :, 0] = np.arange(P)
    _, tokens, _ = written(tmp_path, dense)
    assert not layout.exists.all()
    assert_same(position_statistics(tokens, layout, S), naive.position_statistics(dense, layout))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_latents_of_any_precision_are_read(tmp_path, kind):
    rows = sparse(np.array([[0.0, 1.5], [0.25, 3.0]], np.float32))
    found = token_moments(rows.with_values(rows.values.to(kind)))
    assert_equal_bits(found, token_moments(rows))
    writer = ColumnsWriter(tmp_path, {"a": 2})
    writer.add("a", rows.with_values(rows.values.to(kind)), 0)
    writer.close()
    assert LatentColumns(sorted((tmp_path / "a").iterdir())).latent(1)[1].tolist() == [1.5, 3.0]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_moments_of_what_is_not_finite_are_refused(bad):
    rows = sparse(np.ones((3, 2), np.float32))
    values = rows.values.clone()
    values[3] = bad
    with pytest.raises(NumericsError, match="in row 1 of 3"):
        token_moments(rows.with_values(values))


def test_what_is_listed_with_zero_is_not_active(tmp_path):
    rows = sparse(np.ones((3, 2), np.float32))
    values = rows.values.clone()
    values[[0, 3]] = 0.0
    rows = rows.with_values(values)
    assert token_moments(rows).count.tolist() == [1, 1, 2]
    writer = ColumnsWriter(tmp_path, {"a": 2})
    writer.add("a", rows, 0)
    writer.close()
    columns = LatentColumns(sorted((tmp_path / "a").iterdir()))
    assert columns.counts.tolist() == [2, 2]
    assert columns.latent(0)[0].tolist() == [1, 2]


def test_tokens_that_four_bytes_cannot_tell_apart_are_refused(tmp_path):
    writer = ColumnsWriter(tmp_path, {"a": 2})
    rows = sparse(np.ones((3, 2), np.float32))
    with pytest.raises(MismatchError, match="up to 4294967296; columns hold 4294967296"):
        writer.add("a", rows, 2**32 - 2)
    writer.add("a", rows, 2**32 - 3)


def test_the_error_of_a_coefficient_keeps_its_digits_beside_a_large_mean(tmp_path):
    layout = Layout(np.ones((50, 3), bool), np.ones((50, 3), bool))
    dense = np.full((50, 3, 1), 1e5, np.float32)
    dense[:, 1, 0] += np.arange(50, dtype=np.float32) / 128
    dense[:20, 2, 0] = 0.0
    columns, _, _ = written(tmp_path, dense, (0, 50))
    found = position_coefficients(columns, layout, [0])
    expected = dense[:, 1:, 0].astype(np.float64).std(axis=0, ddof=1) / 50**0.5
    np.testing.assert_allclose(found.error[0, 1:], expected, rtol=1e-11)


def test_one_sequence_has_no_error_of_a_mean_over_sequences(tmp_path):
    layout = Layout(np.ones((1, 3), bool), np.ones((1, 3), bool))
    columns, _, _ = written(tmp_path, np.ones((1, 3, 2), np.float32), (0, 1))
    found = position_coefficients(columns, layout, [0])
    assert found.n_tokens.tolist() == [0, 1, 1]
    assert found.mean.tolist() == [[0, 1, 1]]
    assert not found.error.any()


def test_one_token_at_a_position_cannot_tell_what_the_position_does(tmp_path):
    layout = Layout(np.ones((1, P), bool), np.ones((1, P), bool))
    dense = np.zeros((1, P, 3), np.float32)
    dense[0, :, 1] = np.arange(P)
    dense[0, 0, 2] = 1.0
    columns, _, _ = written(tmp_path, dense, (0, 1))
    share = latent_statistics(columns, layout).position_share
    # The third is active where no token is text.
    np.testing.assert_array_equal(share, [0.0, np.nan, 0.0])
    assert_same([share], [naive.latent_statistics(dense, layout).position_share])


def test_a_writer_stays_within_the_memory_that_was_stated(tmp_path):
    n, stated = 20_000, 3 << 20
    offsets = torch.arange(0, n + 1, 10)
    indices = torch.arange(10, dtype=torch.int32).repeat(n // 10)
    rows = SparseLatents(offsets, indices, torch.rand(n) + 0.1, 1000)
    writer = ColumnsWriter(tmp_path, {"a": 1000, "b": 1000}, stated)
    writer.add("a", rows, 0)
    writer.close()  # Compiled by now.
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for i in range(1, 30):
            writer.add("a" if i < 20 else "b", rows, i * (n // 10))
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert writer.n_spills > 2
    # What came last is counted after it was added.
    assert stated / 2 < peak < stated + 20 * n


def test_blocks_take_no_more_than_was_stated_unless_one_latent_does(tmp_path):
    columns, _, _ = written(tmp_path, made_latents(made_layout()))
    most = 4 * 8 * int(columns.counts.max()) // 3
    blocks = list(columns.blocks(memory_bytes=most))
    assert 1 < len(blocks) < S
    for block in blocks:
        n_latents = len(block.starts) - 1
        assert 8 * len(block.tokens) <= most or n_latents == 1


def test_moments_of_other_tokens_are_refused(tmp_path):
    layout = made_layout()
    _, tokens, _ = written(tmp_path, made_latents(layout))
    with pytest.raises(ConfigError, match="for 3 sequences of 32"):
        position_statistics(tokens, Layout(layout.exists[:3], layout.is_text[:3]), S)
