"""What a training asks of accelerate: half precision, gradients, and the other processes.

Accelerate keeps its settings once a process, and refuses others; a study trains several
networks, of any precision, one after the other or in turns. So the settings are put back
whenever somebody else's stand there. This is the only place that knows of it.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin, patch_environment
from torch import Tensor, nn
from torch.optim import Optimizer

from fluoroscope.core.tensors import State
from fluoroscope.models.training.precision import MIXED, Precision, decided

_BUCKET = 2**25
"""Numbers that are summed over processes at once."""


class Acceleration:
    """Of one training on one device, alone or as one of several processes."""

    def __init__(self, precision: Precision, device: str) -> None:
        self._mixed = MIXED[decided(precision)]
        self.device = torch.device(device)
        # Not accelerate's own, whose scale would be lost when another training takes its turn.
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self._mixed == "fp16")
        self._made: Accelerator | None = None
        accelerator = self._accelerator()
        self.n_processes, self.rank = accelerator.num_processes, accelerator.process_index

    def autocast(self) -> AbstractContextManager[None]:
        return self._accelerator().autocast()

    def backward(self, loss: Tensor) -> None:
        if self._scaler.is_enabled():
            self._scaler.scale(loss).backward()
        else:
            self._accelerator().backward(loss)

    def clip(
        self, optimiser: Optimizer, parameters: Sequence[nn.Parameter], largest: float | None
    ) -> float:
        """Scales gradients down to norm `largest`; their norm as it was, without the factor that
        float16 needs.
        """
        accelerator = self._accelerator()
        if self._scaler.is_enabled():
            self._scaler.unscale_(optimiser)
        norm = accelerator.clip_grad_norm_(parameters, math.inf if largest is None else largest)
        return 0.0 if norm is None else float(norm)

    def step(self, optimiser: Optimizer) -> bool:
        """Whether it was done: in float16 gradients may be infinite until a factor is found with
        which they are not.
        """
        before = self._scaler.get_scale()
        self._scaler.step(optimiser)
        self._scaler.update()
        return self._scaler.get_scale() >= before

    @property
    def may_be_infinite(self) -> bool:
        """Whether an infinite norm is a step to be left out, and no error."""
        return self._scaler.is_enabled()

    def state(self) -> State:
        """Empty but in float16."""
        return self._scaler.state_dict()

    def load(self, state: State) -> None:
        self._scaler.load_state_dict(state)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same bits in each."""
        if self.n_processes == 1:
            return values
        total = self._accelerator().reduce(values, "sum")
        assert isinstance(total, Tensor), "a tensor's sum is a tensor"
        return total

    def total_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Each gradient becomes the sum over all processes.

        One that no process has stays away, as the optimiser passes over it. Not left to
        DistributedDataParallel, which weighs slices of a batch alike whatever their sizes.
        """
        if self.n_processes == 1:
            return
        has = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        here = [p for p, n in zip(parameters, self.total(has).tolist(), strict=True) if n]
        for some in _buckets(here):
            flat = torch.cat([_gradient(p).flatten() for p in some])
            parts = self.total(flat).split([p.numel() for p in some])
            for parameter, part in zip(some, parts, strict=True):
                parameter.grad = part.view_as(parameter)

    def _accelerator(self) -> Accelerator:
        state = AcceleratorState._shared_state
        is_ours = (
            self._made is not None
            and state != {}
            and self._made.state.mixed_precision == self._mixed
            and self._made.device.type == self.device.type
        )
        if not is_ours or self._made is None:
            # The process group, where there is one, is kept: it can be entered once.
            is_shared = torch.distributed.is_available() and torch.distributed.is_initialized()
            AcceleratorState._reset_state(reset_partial_state=not is_shared)
            # Alone is alone, whatever a launcher around this process left in the environment.
            alone = patch_environment(local_rank=-1, pmi_size=1)
            with nullcontext() if is_shared else alone:
                self._made = Accelerator(
                    mixed_precision=self._mixed,
                    device_placement=False,
                    cpu=self.device.type == "cpu",
                    gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
                )
        return self._made


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _buckets(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    buckets: list[list[nn.Parameter]] = []
    n, dtype = _BUCKET, None
    for parameter in parameters:
        if n + parameter.numel() > _BUCKET or parameter.dtype != dtype:
            buckets.append([])
            n, dtype = 0, parameter.dtype
        buckets[-1].append(parameter)
        n += parameter.numel()
    return buckets
