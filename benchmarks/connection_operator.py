"""Part `operator`: maps of pairs as two batched products, beside the formula in two other ways.

- `double loop`: over i and j, as the formula is read (`connections.naive`); N 128, D 32, r 4.
- `torch.einsum`: the formula in two lines; N 128, D 256, r 32, the base size of the plan.

Forward alone, and forward and backward with gradients of slots and weights. All give the same.
Beside the base size at batch 32 stand the arithmetic of a forward step at the speed of a plain
matrix product, and one reading of the weights at the speed of a plain copy.
"""

import torch

from benchmarks.connection_parts import (
    BATCH,
    EINSUM,
    FAST,
    NAIVE,
    Size,
    Way,
    WayName,
    beside_first,
    contender,
    milliseconds,
    one_pass,
    pair_connection,
    row,
    way_of,
)
from benchmarks.harness import copy_bytes_per_s, interleave, matmul_flops_per_s, speed_ratio
from benchmarks.plugin_parts import Part

SMALL, BASE = Size(128, 32, 4), Size(128, 256, 32)
QUICK_SMALL, QUICK_BASE = Size(6, 8, 2), Size(8, 16, 4)
OTHER_BATCHES = (1, 32)
FLOOR_BATCH = 32
OVER_NAIVE, OVER_EINSUM = 80, 2
HOWS = {"forward": False, "forward and backward": True}


def operator(rounds: int, is_quick: bool) -> Part:
    small, base = (QUICK_SMALL, QUICK_BASE) if is_quick else (SMALL, BASE)
    part = Part()
    for batch in (BATCH, *OTHER_BATCHES):
        size = Size(small.n_slots, small.d_model, small.rank, batch)
        part.join(beside(size, NAIVE, rounds, OVER_NAIVE if batch == BATCH else None))
    part.join(beside(base, EINSUM, rounds, OVER_EINSUM))
    part.join(floors(Size(base.n_slots, base.d_model, base.rank, FLOOR_BATCH), rounds))
    return part


def beside(size: Size, peer: WayName, rounds: int, goal: float | None) -> Part:
    """The fast way and a peer; `goal` is of forward and backward together."""
    connection, slots = pair_connection(size), size.slots()
    fast, other = way_of(FAST, connection), way_of(peer, connection)
    _check_same(fast, other, slots)
    repeats = _repeats(size)
    part = Part()
    for how, learns in HOWS.items():
        found = interleave(
            [
                contender(peer, other, slots, learns, 1),
                contender(FAST, fast, slots, learns, repeats, f"{repeats} in a round"),
            ],
            rounds,
        )
        part.join(beside_first(f"{size}: {how}", found))
        if learns and goal is not None:
            ratio = speed_ratio(found[FAST], found[peer])
            said = f"{size}, {how}: at least {goal} times as fast as {peer}: {ratio}"
            part.goals[said] = ratio.median >= goal
    return part


def floors(size: Size, rounds: int) -> Part:
    """The fast way, and what no way on this machine can do without."""
    connection, slots = pair_connection(size), size.slots()
    way, part = way_of(FAST, connection), Part()
    least = {
        f"floor: {size.flops / 1e9:,.3g} GFLOP": size.flops / matmul_flops_per_s(),
        # A copy reads and writes; weights are read alone.
        f"floor: {size.weight_bytes / 2**30:,.3g} GiB of weights read": size.weight_bytes
        / copy_bytes_per_s(),
    }
    what = f"{size}: forward"
    timing = interleave([contender(FAST, way, slots, False, _repeats(size))], rounds)[FAST]
    shares = ", ".join(
        f"{1 / timing.rate / seconds:.2f} times the {name}" for name, seconds in least.items()
    )
    part.timings[f"{what}: {FAST}"] = timing
    part.rows.append(row(what, FAST, cost=milliseconds(timing), note=shares))
    notes = ("at the speed of a plain matrix product", "at the speed of a plain copy")
    for (name, seconds), note in zip(least.items(), notes, strict=True):
        part.rows.append(row(what, name, cost=f"{1e3 * seconds:,.2f} ms", note=note))
    return part


def _repeats(size: Size) -> int:
    """So many passes that a round of the fast way takes some hundredths of a second at least."""
    return max(1, min(20, round(2e9 / size.flops)))


def _check_same(one: Way, other: Way, slots: torch.Tensor) -> None:
    """Also in what slots learn; the smallest differences are of the order of sums."""
    found = []
    for way in (one, other):
        heard = one_pass(way, slots, learns=True)
        assert slots.grad is not None, "slots have gradients"
        found.append((heard.detach(), slots.grad))
    for mine, theirs in zip(*found, strict=True):
        scale = theirs.abs().max()
        torch.testing.assert_close(mine / scale, theirs / scale, rtol=1e-3, atol=1e-4)
