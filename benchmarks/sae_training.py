"""Training steps of sparse autoencoders, against SAELens.

Peer: SAELens in its own environment and process, with its `SAETrainer` stepping on the same
batches at default settings (input scaled). Ours has its window of 1,000 steps for dead latents,
so that neither side's aux loss acts in the few steps that are timed. The goals are against
these; its TopK with `use_sparse_activations` stands beside. Floor: the encoder's matrix product
alone, once as it is and once at the speed of a square matrix product.

d_model 512, d_sae 4096, k 32, batches of 2048 rows, float32, one pinned thread. CPU seconds
of training steps: no imports, no compilation, no data, no validation.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.harness import (
    Contender,
    Outcome,
    Timing,
    command_line,
    interleave,
    matmul_flops_per_s,
    speed_ratio,
)
from benchmarks.peers.saelens import SAELens
from benchmarks.sae_problem import ARCHITECTURES, BATCH, D_MODEL, D_SAE, K, Problem
from fluoroscope.sae.training import SAETrainer
from fluoroscope.sae.training_config import TrainingConfig

# No validation inside the timed steps: the peer has none.
TRAINING = TrainingConfig(batch_size=BATCH, dead_after=1000 * BATCH, validate_every=1_000_000)
ROUNDS, OUR_STEPS, PEER_STEPS, N_BATCHES = 5, 8, 3, 16
GOALS = {"topk": 5.0, "batch_topk": 5.0, "jumprelu": 3.0}
PEER_SETTINGS = {
    "topk": {"k": K},
    # Its sparse activations do not run together with the default rescaling.
    "topk, sparse": {
        "k": K,
        "use_sparse_activations": True,
        "rescale_acts_by_decoder_norm": False,
    },
    "batch_topk": {"k": K},
    "jumprelu": {},
}
FLOOR = "floor: encoder product"


def measure(rounds: int) -> Outcome:
    problem = Problem(N_BATCHES * BATCH)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with SAELens(folder / "saelens.log") as peer:
            peer.ask("load", file=str(problem.write(folder)))
            timings = interleave(contenders(problem, peer, rounds), rounds)
            version = peer.version
    return outcome(timings, rounds, version)


def contenders(problem: Problem, peer: SAELens, rounds: int) -> list[Contender]:
    n_iterations = max(200, (rounds + 1) * OUR_STEPS)
    found = []
    for architecture in ARCHITECTURES:
        step = _our_steps(problem.trainer(architecture, n_iterations, training=TRAINING))
        found.append(Contender(ours(architecture), step, OUR_STEPS * BATCH))
    for name, settings in PEER_SETTINGS.items():
        peer.ask(
            "prepare",
            name=name,
            architecture=name.split(",")[0],
            settings={"d_sae": D_SAE, **settings},
            training={},
            batch_size=BATCH,
            n_samples=n_iterations * BATCH,
        )
        found.append(Contender(theirs(name), _peer_steps(peer, name), PEER_STEPS * BATCH))
    found.append(Contender(FLOOR, _encoder_products(problem), OUR_STEPS * BATCH))
    return found


def ours(architecture: str) -> str:
    return f"Fluoroscope {architecture}"


def theirs(name: str) -> str:
    return f"SAELens {name}"


def _our_steps(trainer: SAETrainer) -> Callable[[], None]:
    iterations = iter(range(trainer.n_iterations))

    def run() -> None:
        for _ in range(OUR_STEPS):
            trainer.advance(next(iterations))

    return run


def _peer_steps(peer: SAELens, name: str) -> Callable[[], float]:
    def run() -> float:
        return peer.ask("steps", name=name, n_steps=PEER_STEPS)["cpu_seconds"]

    return run


def _encoder_products(problem: Problem) -> Callable[[], None]:
    weights, x = torch.randn(D_SAE, D_MODEL), problem.training[:BATCH]
    out = torch.empty(BATCH, D_SAE)

    def run() -> None:
        for _ in range(OUR_STEPS):
            torch.mm(x, weights.T, out=out)

    return run


def outcome(timings: dict[str, Timing], rounds: int, version: str) -> Outcome:
    floor = timings[FLOOR]
    rows, goals = [], {}
    for architecture in ARCHITECTURES:
        mine = timings[ours(architecture)]
        ratio = speed_ratio(mine, timings[theirs(architecture)])
        rows.append([mine.name, f"{mine.rate:,.0f}", "", str(speed_ratio(mine, floor))])
        for name in PEER_SETTINGS:
            if name.split(",")[0] == architecture:
                peer = timings[theirs(name)]
                against = [str(speed_ratio(mine, peer)), str(speed_ratio(peer, floor))]
                rows.append([peer.name, f"{peer.rate:,.0f}", *against])
        goal = GOALS[architecture]
        goals[f"{architecture} at least {goal:g} times SAELens: {ratio}"] = ratio.median >= goal
    rows.append([FLOOR, f"{floor.rate:,.0f}", "", ""])
    square = matmul_flops_per_s()
    rows.append(
        ["floor: at the square product's FLOP/s", f"{square / (2 * D_MODEL * D_SAE):,.0f}", "", ""]
    )
    return Outcome(
        title="Training sparse autoencoders",
        columns=["who", "samples / CPU s", "ours is faster by", "vs floor"],
        rows=rows,
        timings=timings,
        conditions={
            "sizes": f"d_model {D_MODEL}, d_sae {D_SAE}, k {K} (jumprelu: target_l0 {K}), "
            f"batch {BATCH}, float32",
            "SAELens": version,
            "rounds": f"{rounds} of {OUR_STEPS} steps (ours) and {PEER_STEPS} (SAELens)",
        },
        goals=goals,
    )


if __name__ == "__main__":
    command_line(measure, ROUNDS)
