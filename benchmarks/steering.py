"""What a steering vector costs in throughput: the same engine with and without it.

Vectors are added wherever a token is drawn; every row has a prompt of its own. Peer: `generate`
without edits. What is added to its CPU seconds in the same round must be at most 5 %, at the upper
end of the interval. `clamp` (a product with the activation decides how much is added) and a
different set of vectors in every row stand beside the static one.
    python -m benchmarks.steering [--rounds N] [--models organism,stories,pythia]
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
from fluoroscope.interventions.edits import AddDirection
from fluoroscope.interventions.moves import MoveAlong
from fluoroscope.interventions.positions import GENERATED, LAST
from fluoroscope.interventions.row_edits import EditSet, row_edits
from fluoroscope.interventions.steering import steer
from fluoroscope.models.generation import generate

ALLOWED = 0.05
WHERE = LAST | GENERATED
PLAIN = "no edits"


def contenders(steered: Steered, n: int, n_new: int) -> list[Contender]:
    requests = steered.requests(n, n_new)
    all_layers = _added(steered.vectors(1)[0])
    middle = sorted(all_layers, key=str)[len(all_layers) // 2]
    rows = [_added(some) for some in steered.vectors(n)]
    clamps: EditSet = {p: MoveAlong(v, 1.0) for p, v in steered.vectors(1)[0].items()}

    def plain() -> None:
        generate(steered.model, requests)

    def static(edits: EditSet) -> None:
        with steer(steered.model, edits, WHERE):
            generate(steered.model, requests)

    def each() -> None:
        with row_edits(steered.model, rows, WHERE):
            generate(steered.model, requests)

    work = n * n_new
    return [
        Contender(PLAIN, plain, work),
        Contender("a vector at 1 layer", lambda: static({middle: all_layers[middle]}), work),
        Contender("a vector at all layers", lambda: static(all_layers), work),
        Contender(f"{n} different vectors, all layers", each, work, "made ready each time"),
        Contender("clamp at all layers", lambda: static(clamps), work),
    ]


def _added(vectors: dict) -> EditSet:
    return {point: AddDirection(vector, 1.0) for point, vector in vectors.items()}


def measure(rounds: int, models: Sequence[Steered]) -> Outcome:
    rows: list[list[str]] = []
    timings: dict[str, Timing] = {}
    goals: dict[str, bool] = {}
    for steered in models:
        n, n_new = (256, 12) if steered.model.d_model < 512 else (32, 12)
        found = interleave(contenders(steered, n, n_new), rounds)
        for name, timing in found.items():
            share = added_share(timing, found[PLAIN])
            cost = "" if name == PLAIN else shown_share(share)
            note = f"{n} rows, {n_new} new tokens"
            rows.append([steered.name, name, f"{1e3 / timing.rate:.3f} ms a token", cost, note])
            timings[f"{steered.name}: {name}"] = timing
            if name != PLAIN:
                goal = f"{steered.name}, {name}: at most +5 %, upper end {share[2]:+.1%}"
                goals[goal] = share[2] <= ALLOWED
    return Outcome(
        title="What a steering vector costs",
        columns=["model", "way", "CPU time", "added to no edits (95 %)", "note"],
        rows=rows,
        timings=timings,
        conditions={
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
