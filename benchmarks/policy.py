"""What a policy costs in throughput: a head that chooses at every token, and its step added.

16 candidates over the last two layers, rank 8. Peer: `generate` without anything. What is added
to its CPU seconds in the same round must be at most 5 %, at the upper end of the interval; what is
added in arithmetic (a share of one block's) stands in the same table.
    python -m benchmarks.policy [--rounds N] [--models organism,stories,pythia]
"""

from collections.abc import Sequence

import torch

from benchmarks.harness import (
    Contender,
    Outcome,
    Timing,
    interleave,
    output_parser,
    pin_one_thread,
    publish,
)
from benchmarks.steered_models import Steered, added_share, every, shown_share
from fluoroscope.models.generation import generate
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.shape import ModelShape
from fluoroscope.studies.policy.acting import Acting
from fluoroscope.studies.policy.candidates import Candidates
from fluoroscope.studies.policy.heads import PolicyHead, added_flops_share

ALLOWED, N_CANDIDATES, RANK = 0.05, 16, 8
PLAIN, ACTING, MASKED = "no policy", "policy", "policy, masked to active latents"


def candidates_of(steered: Steered) -> Candidates:
    saes = {HookPoint(name): sae for name, sae in steered.saes.items()}
    last = sorted(saes)[-2:]
    return Candidates.of_latents(saes, [(last[i % 2], 7 * i, 1.0) for i in range(N_CANDIDATES)])


def contenders(steered: Steered, n: int, n_new: int) -> list[Contender]:
    requests = steered.requests(n, n_new)
    candidates = candidates_of(steered)
    head = PolicyHead(steered.model.d_model, RANK, candidates.n_actions)

    def plain() -> None:
        generate(steered.model, requests)

    def acting(is_masked: bool) -> None:
        policy = Acting(steered.model, head, candidates, requests, is_masked=is_masked)
        with steered.model.intervened(policy):
            generate(steered.model, requests)

    work = n * n_new
    return [
        Contender(PLAIN, plain, work),
        Contender(ACTING, lambda: acting(False), work),
        Contender(MASKED, lambda: acting(True), work),
    ]


def measure(rounds: int, models: Sequence[Steered]) -> Outcome:
    rows: list[list[str]] = []
    timings: dict[str, Timing] = {}
    goals: dict[str, bool] = {}
    for steered in models:
        n, n_new = (256, 12) if steered.model.d_model < 512 else (32, 12)
        found = interleave(contenders(steered, n, n_new), rounds)
        shape = ModelShape.from_network(steered.model.network)
        for name, timing in found.items():
            share = added_share(timing, found[PLAIN])
            flops = added_flops_share(shape, RANK, N_CANDIDATES, is_masked=name == MASKED)
            is_plain = name == PLAIN
            rows.append(
                [
                    steered.name,
                    name,
                    f"{1e3 / timing.rate:.3f} ms a token",
                    "" if is_plain else shown_share(share),
                    "" if is_plain else f"{flops:.2%}",
                    f"{n} rows, {n_new} new tokens",
                ]
            )
            timings[f"{steered.name}: {name}"] = timing
            if not is_plain:
                goal = f"{steered.name}, {name}: at most +5 %, upper end {share[2]:+.1%}"
                goals[goal] = share[2] <= ALLOWED
    return Outcome(
        title="What a policy costs",
        columns=["model", "way", "CPU time", "added (95 %)", "arithmetic of a block", "note"],
        rows=rows,
        timings=timings,
        conditions={
            "policy": f"{N_CANDIDATES} candidates at the last two layers, rank {RANK}",
            "intervals": "of the median over rounds, paired, by order statistics",
            "rounds": rounds,
        },
        goals=goals,
    )


if __name__ == "__main__":
    parser = output_parser()
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--models", default="organism,stories,pythia")
    arguments = parser.parse_args()
    pin_one_thread()
    with torch.no_grad():
        publish(measure(arguments.rounds, every(arguments.models)), arguments)
