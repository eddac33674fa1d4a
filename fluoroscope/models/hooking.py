"""Reads and writes streams of a running network with plain forward hooks.

A hook costs one Python call and no copy. Modules return a tensor or a tuple that starts with
one, by architecture and library version; `_first` and `_with_first` are the only place that
knows.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fluoroscope.core.errors import ModelError
from fluoroscope.models.families import Family
from fluoroscope.models.hook_points import HookPoint, check_layer

Hook = Callable[[Tensor], Tensor | None]
"""Gets a stream `[batch, pos, d_model]`; returns what to put in its place, or None."""


class HookedNetwork:
    """Knows where each hook point of a network is, and attaches hooks there."""

    def __init__(self, network: PreTrainedModel, family: Family) -> None:
        self._family = family
        self.base: nn.Module = getattr(network, family.prefix, network)
        found = self.base.get_submodule(family.blocks)
        order = family.order
        self.blocks = order(found, network.config) if order else list(found.children())

    @contextmanager
    def attached(self, hooks: Mapping[HookPoint, Hook]) -> Iterator[None]:
        """Inside the `with` block each hook is called whenever its stream is computed."""
        taps: dict[tuple[nn.Module, str], _Tap] = {}
        with ExitStack() as stack:
            for point, hook in hooks.items():
                module, side, call, n_calls = self._site(point)
                tap = taps.get((module, side))
                if tap is None:
                    tap = taps[module, side] = _Tap(n_calls, self._is_overwritten(point))
                    handle = (
                        module.register_forward_pre_hook(tap.on_input, with_kwargs=True)
                        if side == "input"
                        else module.register_forward_hook(tap.on_output)
                    )
                    stack.callback(handle.remove)
                    if n_calls > 1:
                        start = self.base.register_forward_pre_hook(tap.on_start)
                        stack.callback(start.remove)
                tap.hooks[call] = (point, hook)
                if self._family.is_mlp_flat and point.stream == "mlp_out":
                    block = self.blocks[point.layer]
                    shape = block.register_forward_pre_hook(tap.on_block, with_kwargs=True)
                    stack.callback(shape.remove)
            yield

    def _site(self, point: HookPoint) -> tuple[nn.Module, str, int, int]:
        # The module, its input or output, and which of how many calls in one forward pass.
        check_layer(point, len(self.blocks))
        if point.stream in self._family.missing:
            raise ModelError(
                f"A model of the architecture {self._family.model_type!r} has no {point}: "
                f"{self._family.missing[point.stream]}."
            )
        if point.stream == "embed":
            return self.base.get_submodule(self._family.embed), "output", 0, 1
        block = self.blocks[point.layer]
        call = sum(earlier is block for earlier in self.blocks[: point.layer])
        n_calls = sum(other is block for other in self.blocks)
        match point.stream:
            case "resid_pre":
                return block, "input", call, n_calls
            case "attn_out":
                return block.get_submodule(self._family.attn_out), "output", call, n_calls
            case "mlp_out":
                return block.get_submodule(self._family.mlp_out), "output", call, n_calls
            case _:
                behind = self._behind(point.layer)
                return behind or block, "output", call, n_calls

    def _behind(self, layer: int) -> nn.Module | None:
        path = self._family.after_block_0
        if path is None or layer != 0:
            return None
        parent, _, name = path.rpartition(".")
        return getattr(self.base.get_submodule(parent), name)

    def _is_overwritten(self, point: HookPoint) -> bool:
        return self._family.is_mlp_overwritten and point.stream == "mlp_out"


class _Tap:
    """The hooks on one side of one module, by the number of its call in a forward pass."""

    def __init__(self, n_calls: int, is_overwritten: bool) -> None:
        self.hooks: dict[int, tuple[HookPoint, Hook]] = {}
        self._n_calls = n_calls
        self._is_overwritten = is_overwritten
        self._call = 0
        self._leading: torch.Size | None = None

    def on_start(self, _module: nn.Module, _arguments: object) -> None:
        # A forward pass that an exception ended may have left the count anywhere.
        self._call = 0

    def on_block(self, _module: nn.Module, arguments: tuple, keywords: dict) -> None:
        self._leading = (arguments[0] if arguments else keywords["hidden_states"]).shape[:-1]

    def on_input(self, _module: nn.Module, arguments: tuple, keywords: dict) -> tuple:
        if arguments:
            return (self._apply(arguments[0]), *arguments[1:]), keywords
        return arguments, {**keywords, "hidden_states": self._apply(keywords["hidden_states"])}

    def on_output(self, _module: nn.Module, _arguments: tuple, output: Any) -> Any:
        return _with_first(output, self._apply(_first(output)))

    def _apply(self, value: Tensor) -> Tensor:
        call, self._call = self._call % self._n_calls, self._call + 1
        if call not in self.hooks:
            return value
        point, hook = self.hooks[call]
        shown = value if self._leading is None else value.view(*self._leading, -1)
        replacement = hook(shown.clone() if self._is_overwritten else shown)
        if replacement is None:
            return value
        if replacement.shape != shown.shape:
            raise ModelError(
                f"The hook at {point} must return a tensor of shape {tuple(shown.shape)} or "
                f"None, it returned {tuple(replacement.shape)}."
            )
        replacement = replacement.to(value.dtype).view(value.shape)
        return replacement.clone() if self._is_overwritten else replacement


def _first(output: Tensor | tuple) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _with_first(output: Tensor | tuple, value: Tensor) -> Tensor | tuple:
    return (value, *output[1:]) if isinstance(output, tuple) else value
