"""One step of training without any values: what it would compute, and what it would keep.

A network of any size is built, run and differentiated on tensors that have shapes and no memory
(torch's fake tensors, which are meta tensors that say they are on the CPU), in about a second.
Operations are counted product by product (2 for each multiplication and addition, attention as a
whole square, and nothing for what is not a product), bytes storage by storage.

Devices differ in what they keep for gradients. On a GPU attention keeps no scores and dropout a
byte a value; on the CPU attention keeps scores where there is dropout, and dropout keeps 4 bytes.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, UntypedStorage, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from fluoroscope.models.training.precision import Decided
from fluoroscope.studies.connection.baselines.decoded import RepeatingReasoner
from fluoroscope.studies.connection.network.losses import answer_loss
from fluoroscope.studies.connection.network.reasoner import Reasoner
from fluoroscope.studies.connection.network.slot_network import SlotNetwork
from fluoroscope.studies.connection.reasoners import AnyConfig, unseeded_reasoner

Kernels = Literal["gpu", "cpu"]


@dataclass(frozen=True)
class Workload:
    """What one step of training is done on."""

    batch: int
    """Texts."""

    n_source: int
    """Tokens of a text, its padding included."""

    n_target: int
    """Tokens of an answer, its end included."""

    n_steps: int | None = None
    """Steps of thought; None takes the most that the reasoner does by itself."""

    n_answered: int | None = 1
    """States that answer, where steps on the way are supervised; None is those after every step."""


@dataclass(frozen=True)
class Way:
    """How a step of training is done; it changes no count of products but for checkpoints."""

    precision: Decided = "float32"
    """Of the pass; weights, gradients and moments stay in float32."""

    checkpoints_steps: bool = False
    """Whether steps of thought are done a second time in place of keeping what was in them."""

    kernels: Kernels = "gpu"


class DryRun(NamedTuple):
    forward_flops: int
    training_flops: int
    """Forward and backward; of a whole batch."""

    n_answered: int
    """Times that an answer is written to."""

    activation_bytes: int
    """Kept for gradients between reading the text and logits; parameters are not counted, their
    copies in half precision are."""

    peak_bytes: int
    """The most that is there at once beside parameters, their gradients and the optimiser's state:
    activations, logits, and what is held for a moment."""


AS_WRITTEN = Way()


def dry_run(config: AnyConfig, work: Workload, way: Way = AS_WRITTEN) -> DryRun:
    """Of a batch in training; the reasoner is made and thrown away."""
    with FakeTensorMode(), ExitStack() as modes:
        reasoner = unseeded_reasoner(config)
        if isinstance(reasoner, SlotNetwork | RepeatingReasoner):
            reasoner.checkpoints_steps = way.checkpoints_steps
        for parameter in reasoner.parameters():
            # As when gradients of several batches are added up: they are there from the start.
            parameter.grad = torch.empty_like(parameter)
        meter = modes.enter_context(_Meter(reasoner))
        modes.enter_context(_Kernels(way.kernels, meter))
        ids, targets = _zeros(work.batch, work.n_source), _zeros(work.batch, work.n_target)
        with _half(way.precision):
            n_steps = _steps(reasoner, work)
            thought = reasoner.think(ids, ids == 0, n_steps)
            n_answered = max(1, min(n_steps, work.n_answered or n_steps))
            # Of whichever step: all states are of one size, and there already.
            logits = [reasoner.logits(thought, targets) for _ in range(n_answered)]
        del thought
        # What is there now is there for gradients, but for the logits.
        activation_bytes = meter.now_bytes - sum(x.untyped_storage().nbytes() for x in logits)
        forward_flops = meter.flops
        loss = torch.stack([answer_loss(x, targets) for x in logits]).mean()
        # Called like this it is no function that a mode is to see, and the modes stay on in it:
        # steps that were not kept are done again there.
        torch.autograd.backward(get_gradient_edge(loss), torch.ones_like(loss))
        return DryRun(forward_flops, meter.flops, n_answered, activation_bytes, meter.peak_bytes)


class _Meter(TorchDispatchMode):
    """Products by torch's own formulas; bytes of all storages that were made and are not yet gone.

    torch's `FlopCounterMode` would do for the products, but holds what it has seen.
    """

    def __init__(self, reasoner: Reasoner) -> None:
        super().__init__()
        self.flops = 0
        self.now_bytes = self.peak_bytes = 0
        self._sees_bytes = True
        self._known = {each.untyped_storage()._cdata for each in _tensors_of(reasoner)}

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        given = dict(kwargs or {})
        made = func(*args, **given)
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.flops += count(*args, **given, out_val=made)
        if self._sees_bytes:
            for tensor in tree_leaves(made):
                if isinstance(tensor, Tensor):
                    self._see(tensor.untyped_storage())
        return made

    @contextmanager
    def products_alone(self) -> Iterator[None]:
        """Nothing that is made within counts as bytes."""
        self._sees_bytes = False
        yield
        self._sees_bytes = True

    def _see(self, storage: UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        n_bytes = storage.nbytes()
        self._known.add(key)
        self.now_bytes += n_bytes
        self.peak_bytes = max(self.peak_bytes, self.now_bytes)
        weakref.finalize(storage, self._forget, key, n_bytes)

    def _forget(self, key: int, n_bytes: int) -> None:
        self._known.discard(key)
        self.now_bytes -= n_bytes


class _Kernels(TorchFunctionMode):
    """Attention and dropout that keep what a device's kernels keep."""

    def __init__(self, kernels: Kernels, meter: _Meter) -> None:
        super().__init__()
        self._is_gpu, self._meter = kernels == "gpu", meter

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[Any, ...] = (),  # Any: the arguments of whatever is called.
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        given = dict(kwargs or {})
        if func is functional.dropout and self._is_gpu:
            return torch.native_dropout(args[0], given["p"], given["training"])[0]
        # The CPU's kernel knows no dropout; with it, scores are made and kept.
        is_fused = self._is_gpu or not given.get("dropout_p")
        if func is functional.scaled_dot_product_attention and is_fused:
            return _FusedAttention.apply(self._meter, *args)
        return func(*args, **given)


class _FusedAttention(torch.autograd.Function):
    """Products are counted as if scores were made; bytes are not, as they are not."""

    @staticmethod
    def forward(
        ctx: Any,  # Any: whatever is put there.
        meter: _Meter,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        with meter.products_alone():
            torch.matmul(queries @ keys.mT, values)
        # Kernels add a number where they are given a mask.
        added = [] if mask is None else [torch.zeros_like(mask, dtype=queries.dtype)]
        found = torch.empty_like(queries)
        sums = queries.new_empty(queries.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(queries, keys, values, found, sums, *added)
        ctx.meter = meter
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values = ctx.saved_tensors[:3]
        with ctx.meter.products_alone():
            scores = grads[0] @ values.mT
            torch.matmul(scores, keys)
            torch.matmul(scores.mT, queries)
            torch.matmul(scores.mT, grads[0])
        return None, *(torch.empty_like(x) for x in (queries, keys, values)), None


def _zeros(batch: int, n_tokens: int) -> Tensor:
    return torch.zeros(batch, n_tokens, dtype=torch.int64)


def _steps(reasoner: Reasoner, work: Workload) -> int:
    # One without steps has none, whatever others are asked for.
    if work.n_steps is None or reasoner.max_steps == 0:
        return reasoner.max_steps
    return work.n_steps


def _half(precision: Decided) -> torch.autocast:
    # Both kinds of half precision have two bytes.
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision != "float32")


def _tensors_of(module: nn.Module) -> Iterator[Tensor]:
    for parameter in module.parameters():
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad
    yield from module.buffers()
