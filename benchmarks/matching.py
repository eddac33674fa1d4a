"""Matching two SAEs: the four nearest latents of each, in both directions, by decoder and encoder.

Peers: the loop that takes one latent at a time (a product with all others and `topk`, which is how
the reference does it, with the lengths divided out beforehand in its favour), and the same in
blocks of 4,096 rows, once for each direction. Ours computes one product for both directions, holds
1,024 rows of it, and gives cosines in float64 that do not depend on blocks or threads. Floor: the
arithmetic of one product.

Ratios are of CPU seconds at one pinned thread, 8,192 x 8,192 latents of d_model 768, the decoder
only; the loop takes a part of the rows and is charged for that part. What was to be reached is at
24,576 x 24,576 with two threads, each way in a process of its own, by the clock; memory is the
peak above what the process has with both SAEs' weights and everything compiled. Half of the
latents are noisy copies of the other SAE's.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import psutil
import torch
from torch import Tensor

from benchmarks.harness import (
    Contender,
    Outcome,
    command_line,
    interleave,
    matmul_flops_per_s,
    speed_ratio,
)
from fluoroscope.features.sae_matching import match_saes
from fluoroscope.features.top_matches import Directions, top_matches
from fluoroscope.sae.topk import TopK, TopKConfig

N_SMALL, N_LARGE, D_MODEL, K = 8192, 24576, 768, 4
N_LOOP = 256
"""Rows of each side that the loop takes."""

SECONDS, BYTES, THREADS = 40, 1e9, 2
ROUNDS = 5

LOOP, BLOCKS, OURS = "one latent at a time", "blocks, once a direction", "top_matches"
WHOLE = "match_saes: also one to one, own, nulls"


def directions(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of two dictionaries; half of the second are noisy copies of the first's, mixed."""
    generator = torch.Generator().manual_seed(seed)
    one, other = (torch.randn(n, D_MODEL, generator=generator) for _ in range(2))
    other[: n // 2].mul_(0.4).add_(one[: n // 2])
    # One order for decoder and encoder.
    return one, other[torch.randperm(n, generator=torch.Generator().manual_seed(0))]


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


def loop(one: Tensor, other: Tensor, n_rows: int) -> None:
    for left, right in ((one, other), (other, one)):
        for row in left[:n_rows]:
            (right @ row).topk(K)


def blocks(a: Tensor, b: Tensor) -> list[Tensor]:
    one, other = unit(a), unit(b)
    return [
        torch.cat([(part @ right.T).topk(K).indices for part in left.split(4096)])
        for left, right in ((one, other), (other, one))
    ]


def ours(a: Tensor, b: Tensor) -> list[np.ndarray]:
    found = top_matches(Directions.of(a), Directions.of(b), K)
    return [found.of_a.indices, found.of_b.indices]


def contenders(a: Tensor, b: Tensor) -> list[Contender]:
    n, one, other = 2 * len(a), unit(a), unit(b)
    return [
        Contender(
            LOOP, lambda: loop(one, other, N_LOOP), 2 * N_LOOP, f"{N_LOOP} rows of each side"
        ),
        Contender(BLOCKS, lambda: _drop(blocks(a, b)), n, "two products"),
        Contender(OURS, lambda: _drop(ours(a, b)), n, "one product, settled in float64"),
    ]


def _drop(_: object) -> None:
    return None


def measure(rounds: int) -> Outcome:
    load = os.getloadavg()[0]
    a, b = directions(N_SMALL)
    timings = interleave(contenders(a, b), rounds)
    floor = 2 * N_SMALL**2 * D_MODEL / matmul_flops_per_s()
    rows = [
        [
            name,
            f"{timing.rate:,.0f}",
            str(speed_ratio(timing, timings[LOOP])),
            str(speed_ratio(timing, timings[BLOCKS])),
            "",
            "",
            timing.note,
        ]
        for name, timing in timings.items()
    ]
    rate = f"{2 * N_SMALL / floor:,.0f}"
    rows.append(["floor: arithmetic of one product", rate, "", "", "", "", ""])
    large = {name: in_own_process(name) for name in (OURS, BLOCKS, WHOLE)}
    for name, (seconds, above) in large.items():
        size = f"{N_LARGE:,} x {N_LARGE:,}"
        cells = [f"{seconds:.1f} s", f"{above / 1e6:,.0f} MB"]
        rows.append([f"{name}, {size}", "", "", "", *cells, "decoder and encoder"])
    seconds, above = large[OURS]
    to_loop, to_blocks = (speed_ratio(timings[OURS], timings[peer]) for peer in (LOOP, BLOCKS))
    same = [np.mean(x == y.numpy()) for x, y in zip(ours(a, b), blocks(a, b), strict=True)]
    return Outcome(
        title="Matching the latents of two SAEs",
        columns=["way", "latents / CPU s", "vs loop", "vs blocks", "time", "memory", "note"],
        rows=rows,
        timings=timings,
        conditions={
            "ratios": f"{N_SMALL:,} x {N_SMALL:,}, decoder, one pinned thread, {rounds} rounds",
            "time and memory": f"{THREADS} threads, once each, beyond weights of 302 MB; weights "
            "are random, half of them noisy copies",
            "other work": f"load of the machine {load:.1f} on {os.cpu_count()} cores before",
            "same indices as blocks": f"{min(same):.6f} of all places",
        },
        goals={
            f"{N_LARGE:,} latents, both directions, decoder and encoder, within {SECONDS} s: "
            f"{seconds:.1f} s": seconds <= SECONDS,
            f"within 1 GB above the weights: {above / 1e9:.2f} GB": above <= BYTES,
            f"faster than one latent at a time: {to_loop}": to_loop.median > 1,
            f"faster than blocks, once a direction: {to_blocks}": to_blocks.median > 1,
        },
    )


def in_own_process(way: str) -> tuple[float, float]:
    """Seconds by the clock, and bytes above the weights."""
    threads = {"OMP_NUM_THREADS": str(THREADS), "NUMBA_NUM_THREADS": str(THREADS)}
    command = [sys.executable, "-m", "benchmarks.matching", "--child", way]
    found = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **threads}
    )
    seconds, above = json.loads(found.stdout.splitlines()[-1])
    return seconds, above


def child(way: str) -> tuple[float, float]:
    """One way at the large size, in this process."""
    # The parent is pinned to one core, and so was this process when it began.
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    torch.set_num_threads(THREADS)
    run = _work(way, 64)
    run()
    run = _work(way, N_LARGE)
    before = psutil.Process().memory_info().rss
    begin = time.perf_counter()
    run()
    seconds = time.perf_counter() - begin
    # Linux gives KiB.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return seconds, peak - before


def _work(way: str, n: int) -> Callable[[], object]:
    decoders, encoders = directions(n, 0), directions(n, 1)
    if way == WHOLE:
        one, other = (_sae(*rows) for rows in zip(decoders, encoders, strict=True))
        return lambda: match_saes(one, other)
    match = ours if way == OURS else blocks
    return lambda: [match(*rows) for rows in (decoders, encoders)]


def _sae(decoder: Tensor, encoder: Tensor) -> TopK:
    sae = TopK(TopKConfig(d_model=D_MODEL, d_sae=len(decoder), k=32))
    with torch.no_grad():
        sae.W_dec.copy_(decoder)
        sae.W_enc_T.copy_(encoder)
    return sae


if __name__ == "__main__":
    if "--child" in sys.argv:
        print(json.dumps(child(sys.argv[sys.argv.index("--child") + 1])))
    else:
        command_line(measure, ROUNDS)
