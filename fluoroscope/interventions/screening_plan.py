"""What an exact screening will cost, before it runs: passes, and time on this device."""

import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from fluoroscope.interventions.row_edits import first_block
from fluoroscope.interventions.screening import Screen
from fluoroscope.interventions.term_block import TermBlock
from fluoroscope.models.hook_points import HookPoint

_MEASURED_ROWS = 256


class ScreeningPlan(NamedTuple):
    """Of all edits of all prompts."""

    cells: int
    """Edits x prompts."""

    passes: int
    """Times that blocks are called with a batch of edits, and prompts that are read."""

    block_tokens: int
    """Tokens that go through a block; the naive way sends every token of the prompt through every
    block for every cell."""

    naive_block_tokens: int

    seconds: float
    """On this device, from a measurement of less than a second at this prompt's length."""


def plan_screening(
    screen: Screen, n_edits: Mapping[HookPoint, int], n_prompts: int = 1
) -> ScreeningPlan:
    """For `n_edits` edits at each hook point, of `n_prompts` prompts like that of `screen`."""
    model, length = screen.model, len(screen.prompt)
    cells = sum(n_edits.values())
    behind = {point: model.n_layers - first_block(point) for point in n_edits}
    groups: dict[int, int] = {}
    for point, n in n_edits.items():
        groups[behind[point]] = groups.get(behind[point], 0) + n
    passes = sum(math.ceil(n / screen.rows_per_pass()) for n in groups.values())
    read_s, row_s, block_s = _measure(screen)
    one_prompt = sum(n * (row_s + block_s * behind[point]) for point, n in n_edits.items())
    edited = sum(n * behind[point] for point, n in n_edits.items())
    return ScreeningPlan(
        cells=cells * n_prompts,
        passes=(passes + 2) * n_prompts,
        block_tokens=(edited + length * model.n_layers) * n_prompts,
        naive_block_tokens=cells * length * model.n_layers * n_prompts,
        seconds=(read_s + one_prompt) * n_prompts,
    )


def _measure(screen: Screen) -> tuple[float, float, float]:
    """Seconds to read the prompt; of a row without any block; of a row for each block."""
    read = _seconds(screen, lambda: Screen(screen.model, screen.prompt, screen.sampling))
    last = HookPoint(screen.model.n_layers - 1, "resid_post")
    first = HookPoint(0, "resid_pre")
    without, with_all = (_seconds_a_row(screen, point) for point in (last, first))
    return read, without, max(0.0, with_all - without) / screen.model.n_layers


def _seconds_a_row(screen: Screen, point: HookPoint) -> float:
    block = _nothing(screen, point)
    return _seconds(screen, lambda: screen.decisions(block, {"any": [0]})) / _MEASURED_ROWS


def _seconds(screen: Screen, work: Callable[[], object]) -> float:
    """The quickest of three, after one that is not counted."""
    times = []
    for _ in range(4):
        begin = time.perf_counter()
        work()
        if screen.model.device.type == "cuda":
            torch.cuda.synchronize(screen.model.device)
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def _nothing(screen: Screen, point: HookPoint) -> TermBlock:
    """Edits that change nothing, at the cost of any others."""
    model = screen.model
    rows = torch.zeros(_MEASURED_ROWS, model.width(point), device=model.device)
    numbers = torch.zeros(_MEASURED_ROWS, device=model.device)
    return TermBlock(point, rows, rows, numbers, numbers, numbers, numbers)
