import pytest
import torch

from fluoroscope.sae import naive
from fluoroscope.sae.sparse_kernels import (
    decode_sparse,
    encode_sparse,
    select_above,
    select_batch_top_k,
    select_top_k,
)

SHAPES = [(1, 3), (7, 16), (33, 100), (5, 257)]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("shift", [-2.0, 0.0, 2.0])
def test_selections_equal_their_dense_statements(shape, k, shift):
    pre = draw(*shape) + shift
    assert torch.equal(select_top_k(pre, k).dense(), naive.top_k(pre, k))
    assert torch.equal(select_batch_top_k(pre, k).dense(), naive.batch_top_k(pre, k))
    floor = draw(shape[1], seed=1)
    assert torch.equal(select_above(pre, floor).dense(), naive.above(pre, floor))


def test_batch_selection_is_exact_where_only_a_sample_bounds_it():
    pre = draw(512, 300)
    kept = select_batch_top_k(pre, 9)
    assert torch.equal(kept.dense(), naive.batch_top_k(pre, 9))


def test_batch_selection_is_exact_when_large_entries_hide_from_the_sample():
    pre = -draw(512, 300).abs() - 1
    pre.view(-1)[1::61] = 5 + draw(pre.view(-1)[1::61].shape[0]).abs()
    assert torch.equal(select_batch_top_k(pre, 2).dense(), naive.batch_top_k(pre, 2))


def test_rows_of_equal_entries_keep_exactly_k():
    pre = torch.ones(4, 40)
    kept = select_top_k(pre, 5)
    assert kept.offsets.diff().tolist() == [5, 5, 5, 5]
    assert kept.indices[:5].tolist() == [0, 1, 2, 3, 4]


def test_indices_ascend_within_a_row():
    kept = select_top_k(draw(20, 64), 6)
    for row in range(20):
        indices = kept.indices[kept.offsets[row] : kept.offsets[row + 1]]
        assert (indices.diff() > 0).all()


@pytest.mark.parametrize("select", [select_top_k, select_batch_top_k])
def test_gradients_equal_those_of_dense_autograd(select):
    x, W_enc_T, W_dec = draw(30, 8), draw(50, 8, seed=1), draw(50, 8, seed=2)
    b_enc, b_dec = draw(50, seed=3), draw(8, seed=4)
    dense_select = naive.top_k if select is select_top_k else naive.batch_top_k

    def gradients(loss_of):
        parameters = [p.clone().requires_grad_() for p in (W_enc_T, b_enc, b_dec, W_dec)]
        loss_of(*parameters).backward()
        return [p.grad for p in parameters]

    def fast(W_enc_T, b_enc, b_dec, W_dec):
        latents = encode_sparse(x, W_enc_T, b_enc, b_dec, lambda pre: select(pre, 4))
        return (decode_sparse(latents, W_dec) + b_dec - x).square().sum()

    def dense(W_enc_T, b_enc, b_dec, W_dec):
        latents = dense_select((x - b_dec) @ W_enc_T.T + b_enc, 4)
        return (naive.decode(latents, W_dec) + b_dec - x).square().sum()

    for ours, truth in zip(gradients(fast), gradients(dense), strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-10, atol=1e-10)


def test_the_number_of_threads_changes_no_bit():
    import numba

    pre, W = draw(200, 90).float(), draw(90, 33, seed=1).float()
    before = numba.get_num_threads()
    results = []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            W_dec = W.clone().requires_grad_()
            decode_sparse(select_top_k(pre, 7), W_dec).square().sum().backward()
            results.append(W_dec.grad)
    finally:
        numba.set_num_threads(before)
    assert torch.equal(results[0], results[1])


def test_a_batch_without_active_latents_decodes_to_zero():
    empty = select_above(draw(5, 6), torch.full((6,), 100.0, dtype=torch.float64))
    assert empty.values.numel() == 0
    assert torch.equal(decode_sparse(empty, draw(6, 3)), torch.zeros(5, 3, dtype=torch.float64))


def test_counts_are_rows_in_which_a_latent_is_active():
    dense = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
    assert select_above(dense, torch.zeros(3)).count().tolist() == [2, 0, 1]


def test_an_input_that_wants_a_gradient_is_refused():
    x = draw(2, 3).requires_grad_()
    W = draw(4, 3)
    with pytest.raises(ValueError, match="no gradient for x"):
        encode_sparse(x, W, draw(4), draw(3), lambda pre: select_top_k(pre, 1))


def test_the_backend_of_other_devices_means_the_same(monkeypatch):
    from fluoroscope.sae import sparse_kernels

    x, W_enc_T, W_dec = draw(30, 8), draw(50, 8, seed=1), draw(50, 8, seed=2)
    b_enc, b_dec = draw(50, seed=3), draw(8, seed=4)

    def gradients():
        parameters = [p.clone().requires_grad_() for p in (W_enc_T, b_enc, b_dec, W_dec)]
        latents = encode_sparse(x, *parameters[:3], lambda pre: select_batch_top_k(pre, 4))
        (decode_sparse(latents, parameters[3]) + parameters[2] - x).square().sum().backward()
        return [p.grad for p in parameters]

    on_cpu = gradients()
    monkeypatch.setattr(sparse_kernels, "CPU", "no device is called so")
    for ours, truth in zip(gradients(), on_cpu, strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-10, atol=1e-10)
