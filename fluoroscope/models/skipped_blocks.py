"""Runs a network from one of its blocks on, with what comes out of the block before it given.

Blocks that are skipped give a stored output instead of being computed; embeddings, the blocks
that are left, the final norm and the head are the network's own, so this holds for every family.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from fluoroscope.models.language_model import LanguageModel

Output = Any  # What a block returns: a tensor, or a tuple that starts with one.


class BlockOutputs:
    """What every block gives for one row: [1, pos, d_model] each."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._outputs: list[Output] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Inside the `with` block the outputs of the next pass are kept."""
        with ExitStack() as stack:
            for block in self._model.blocks:
                # Before other hooks, which will act again on what a skipped block gives.
                handle = block.register_forward_hook(self._keep, prepend=True)
                stack.callback(handle.remove)
            yield

    @contextmanager
    def skipping(self, n_blocks: int, n_rows: int) -> Iterator[None]:
        """Inside the `with` block the first `n_blocks` blocks are not computed."""
        with ExitStack() as stack:
            for block, output in zip(self._model.blocks[:n_blocks], self._outputs, strict=False):
                stack.enter_context(_replaced(block, partial(_give, output, n_rows)))
            yield

    def _keep(self, _block: nn.Module, _arguments: object, output: Output) -> None:
        self._outputs.append(output)


def _give(output: Output, n_rows: int, *_: object, **__: object) -> Output:
    if isinstance(output, Tensor):
        return output.expand(n_rows, -1, -1)
    return (output[0].expand(n_rows, -1, -1), *output[1:])


@contextmanager
def _replaced(block: nn.Module, forward: Callable[..., Output]) -> Iterator[None]:
    own = block.__dict__.get("forward")
    block.forward = forward
    try:
        yield
    finally:
        del block.forward
        if own is not None:
            block.forward = own
