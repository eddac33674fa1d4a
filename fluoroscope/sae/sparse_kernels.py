"""Sparse latents, and the operations on them that make SAE training fast.

A batch of n rows in which L0 of s latents are active is held as compressed rows (CSR), so
decoding and every gradient cost n L0 d instead of n s d. Only the encoder's matrix product
stays dense. `naive.py` states each operation densely; the tests tie the two.

Two backends with one meaning: numba on the CPU (`cpu_kernels.py`), torch sparse products
elsewhere. On the CPU each output row belongs to one thread, so sums do not depend on the
number of threads.

Axes: n rows (tokens), s latents, d model width, nnz active entries.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function

from fluoroscope.sae import cpu_kernels

CPU = "cpu"
"""Tensors of this device type go to numba, all others through torch."""


@dataclass(frozen=True)
class SparseLatents:
    """Active latents of a batch, row by row; within a row, indices ascend."""

    offsets: Int[Tensor, " n_offsets"]
    """Entries of row r are `offsets[r]` to `offsets[r + 1]` (int64)."""

    indices: Int[Tensor, " nnz"]
    """Latent of each entry (int32)."""

    values: Float[Tensor, " nnz"]
    """Activation of each entry."""

    d_sae: int
    """Number of latents s."""

    @property
    def n_rows(self) -> int:
        return self.offsets.shape[0] - 1

    @property
    def rows(self) -> Int[Tensor, " nnz"]:
        """Row of each entry (int64)."""
        counts = self.offsets.diff()
        return torch.arange(self.n_rows, device=counts.device).repeat_interleave(counts)

    def with_values(self, values: Float[Tensor, " nnz"]) -> "SparseLatents":
        return SparseLatents(self.offsets, self.indices, values, self.d_sae)

    def dense(self) -> Float[Tensor, "n s"]:
        dense = self.values.new_zeros(self.n_rows, self.d_sae)
        return dense.index_put((self.rows, self.indices.long()), self.values)

    def count(self) -> Int[Tensor, " s"]:
        """How many rows each latent is active in."""
        active = self.indices[self.values.detach() > 0].long()
        return torch.bincount(active, minlength=self.d_sae)


Select = Callable[[Float[Tensor, "n s"]], SparseLatents]
"""Chooses the entries of a batch of pre-activations that are kept."""


def select_top_k(pre: Float[Tensor, "n s"], k: int) -> SparseLatents:
    """Positive entries among the `k` largest of each row."""
    if pre.device.type == CPU:
        return _from_arrays(pre, *cpu_kernels.top_k(pre.numpy(), k))
    values, indices = pre.topk(k, dim=-1, sorted=False)
    return _from_mask(pre, torch.zeros_like(pre, dtype=torch.bool).scatter(-1, indices, values > 0))


def select_batch_top_k(pre: Float[Tensor, "n s"], k: int) -> SparseLatents:
    """Positive entries among the `n k` largest of the batch."""
    if pre.device.type == CPU:
        return _from_arrays(pre, *cpu_kernels.batch_top_k(pre.numpy(), pre.shape[0] * k))
    border = pre.flatten().topk(pre.shape[0] * k, sorted=False).values.min()
    return _from_mask(pre, pre >= border.clamp(min=torch.finfo(pre.dtype).tiny))


def select_above(pre: Float[Tensor, "n s"], floor: Float[Tensor, " s"]) -> SparseLatents:
    """Entries strictly above their latent's `floor`."""
    if pre.device.type == CPU:
        return _from_arrays(pre, *cpu_kernels.above(pre.numpy(), floor.numpy()))
    return _from_mask(pre, pre > floor)


def encode_sparse(
    x: Float[Tensor, "n d"],
    W_enc_T: Float[Tensor, "s d"],
    b_enc: Float[Tensor, " s"],
    b_dec: Float[Tensor, " d"],
    select: Select,
) -> SparseLatents:
    """`select((x - b_dec) W_enc + b_enc)`, differentiable in the parameters but not in `x`.

    Gradients flow to the selected entries only. `x` is data here: its gradient would cost a
    second dense product, which training never needs (`SparseAutoencoder.encode` has it).
    """
    if x.requires_grad:
        raise ValueError("encode_sparse has no gradient for x: detach it, or use sae.encode.")
    kept: list[SparseLatents] = []
    values = _Encode.apply(x, W_enc_T, b_enc, b_dec, select, kept)
    return kept[0].with_values(values)


def decode_sparse(latents: SparseLatents, W_dec: Float[Tensor, "s d"]) -> Float[Tensor, "n d"]:
    """Sum of decoder rows weighted by the latents; differentiable in both."""
    return _Decode.apply(latents.values, W_dec, latents)


class _Encode(Function):
    @staticmethod
    def forward(
        ctx: Any,  # Any: torch's untyped context.
        x: Tensor,
        W_enc_T: Tensor,
        b_enc: Tensor,
        b_dec: Tensor,
        select: Select,
        kept: list[SparseLatents],
    ) -> Tensor:
        centred = x - b_dec
        latents = select(_pre_activations(centred, W_enc_T, b_enc))
        kept.append(latents)
        ctx.save_for_backward(centred, W_enc_T, latents.offsets, latents.indices)
        return latents.values

    @staticmethod
    def backward(ctx: Any, grad_values: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        centred, W_enc_T, offsets, indices = ctx.saved_tensors
        d_sae = W_enc_T.shape[0]
        grad = SparseLatents(offsets, indices, grad_values.contiguous(), d_sae)
        grad_W_enc_T = _transposed_product(grad, centred)
        grad_b_enc = torch.zeros(d_sae, dtype=centred.dtype, device=centred.device)
        grad_b_enc.index_add_(0, indices.long(), grad.values)
        # Every pre-activation holds -b_dec W_enc, so its gradient is a sum over latents only.
        return None, grad_W_enc_T, grad_b_enc, -(grad_b_enc @ W_enc_T), None, None


class _Scratch(threading.local):
    """Memory of each thread for pre-activations, which live only until they are selected."""

    memory: Tensor | None = None


_scratch = _Scratch()


def _pre_activations(
    centred: Float[Tensor, "n d"], W_enc_T: Float[Tensor, "s d"], b_enc: Float[Tensor, " s"]
) -> Float[Tensor, "n s"]:
    if centred.device.type != CPU:
        return torch.addmm(b_enc, centred, W_enc_T.T)
    # Fresh pages for the largest tensor of a step would cost a seventh of the product itself.
    size = centred.shape[0] * W_enc_T.shape[0]
    memory = _scratch.memory
    if memory is None or memory.dtype != centred.dtype or not size <= len(memory) <= 2 * size:
        _scratch.memory = memory = centred.new_empty(size)
    out = memory[:size].view(centred.shape[0], W_enc_T.shape[0])
    return torch.addmm(b_enc, centred, W_enc_T.T, out=out)


class _Decode(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, W_dec: Tensor, latents: SparseLatents) -> Tensor:
        ctx.save_for_backward(values, W_dec, latents.offsets, latents.indices)
        return _product(latents.with_values(values), W_dec)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        values, W_dec, offsets, indices = ctx.saved_tensors
        latents = SparseLatents(offsets, indices, values, W_dec.shape[0])
        grad_out = grad_out.contiguous()
        return _sampled_dot(latents, grad_out, W_dec), _transposed_product(latents, grad_out), None


def _product(latents: SparseLatents, W: Float[Tensor, "s d"]) -> Float[Tensor, "n d"]:
    if W.device.type == CPU:
        offsets, indices, values = _arrays(latents)
        return torch.from_numpy(cpu_kernels.product(offsets, indices, values, _numpy(W)))
    return _csr(latents) @ W


def _transposed_product(latents: SparseLatents, x: Float[Tensor, "n d"]) -> Float[Tensor, "s d"]:
    if x.device.type == CPU:
        offsets, indices, values = _arrays(latents)
        product = cpu_kernels.transposed_product(offsets, indices, values, _numpy(x), latents.d_sae)
        return torch.from_numpy(product)
    # A stable sort by latent makes the transposed rows, in a fixed order of summation.
    order = latents.indices.argsort(stable=True)
    counts = torch.bincount(latents.indices.long(), minlength=latents.d_sae)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    rows, values = latents.rows[order], latents.values[order]
    shape = (latents.d_sae, latents.n_rows)
    return torch.sparse_csr_tensor(starts, rows, values, shape) @ x


def _sampled_dot(
    latents: SparseLatents, x: Float[Tensor, "n d"], W: Float[Tensor, "s d"]
) -> Float[Tensor, " nnz"]:
    if W.device.type == CPU:
        offsets, indices, _ = _arrays(latents)
        return torch.from_numpy(cpu_kernels.sampled_dot(offsets, indices, _numpy(x), _numpy(W)))
    pattern = _csr(latents.with_values(torch.zeros_like(latents.values)))
    return torch.sparse.sampled_addmm(pattern, x, W.T.contiguous()).values()


def _csr(latents: SparseLatents) -> Tensor:
    shape = (latents.n_rows, latents.d_sae)
    return torch.sparse_csr_tensor(latents.offsets, latents.indices.long(), latents.values, shape)


def _arrays(latents: SparseLatents) -> tuple[Any, Any, Any]:  # Any: numpy arrays.
    return _numpy(latents.offsets), _numpy(latents.indices), _numpy(latents.values)


def _numpy(tensor: Tensor) -> Any:  # Any: a numpy array.
    return tensor.detach().contiguous().numpy()


def _from_arrays(pre: Tensor, offsets: Any, indices: Any, values: Any) -> SparseLatents:
    o, i, v = (torch.from_numpy(array) for array in (offsets, indices, values))
    return SparseLatents(o, i, v, pre.shape[1])


def _from_mask(pre: Tensor, keep: Tensor) -> SparseLatents:
    counts = keep.sum(dim=-1)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    indices = keep.nonzero()[:, 1].int()
    return SparseLatents(offsets, indices, pre[keep], pre.shape[1])
