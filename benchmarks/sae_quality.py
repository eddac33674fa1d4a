"""What sparse autoencoders have learned after the same samples, against SAELens.

Both see the same rows of known synthetic activations in the same order, once. Each is saved as
an inference SAE and judged on held-out rows by SAELens' own loader, encoder and decoder.
SAELens trains at its default learning rate (constant), and at each of `--rates` with a decay
over the last fifth, as its tutorials set it; we train at our defaults. SAELens' JumpReLU has
its quadratic penalty with our target L0. Where it misses the target, ours is trained once more
at the L0 that it reached, so that fvu is compared at equal sparsity.

d_model 512, d_sae 4096, k 32, batches of 2048 rows, float32, one pinned thread.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Outcome, output_parser, pin_one_thread, publish
from benchmarks.peers.saelens import SAELens
from benchmarks.sae_problem import (
    ARCHITECTURES,
    BATCH,
    D_MODEL,
    D_SAE,
    MEAN_L0,
    N_FEATURES,
    K,
    Problem,
)
from fluoroscope.sae.formats.native import save_sae

DEFAULT_RATE = 3e-4
COLUMNS = ["who", "learning rate", "fvu", "l0", "dead", "samples / CPU s"]

Row = dict[str, Any]  # Any: numbers and names, as COLUMNS.


class Comparison:
    """Trains, saves, has judged, and remembers the rows of the table."""

    def __init__(self, peer: SAELens, problem: Problem, folder: Path) -> None:
        self._peer, self._problem, self._folder = peer, problem, folder
        self._n_samples = len(problem.training)
        self.rows: list[Row] = []

    def ours(self, architecture: str, target_l0: float | None = None) -> Row:
        n_iterations = self._n_samples // BATCH
        trainer = self._problem.trainer(architecture, n_iterations, target_l0)
        begin = time.process_time()
        result = trainer.train()[architecture]
        seconds = time.process_time() - begin
        name = architecture if target_l0 is None else f"{architecture}, target_l0 {target_l0:.0f}"
        place = self._folder / f"ours-{len(self.rows)}"
        save_sae(result.best, place)
        return self._judged(f"Fluoroscope {name}", "default", place, seconds)

    def theirs(self, architecture: str, rate: float, coefficient: float) -> Row:
        is_default = rate == DEFAULT_RATE
        n_steps = self._n_samples // BATCH
        sparsity: dict[str, object] = {"k": K}
        if architecture == "jumprelu":
            sparsity = {
                "jumprelu_sparsity_loss_mode": "quadratic",
                "target_l0": float(K),
                "l0_coefficient": coefficient,
            }
        place = self._folder / f"theirs-{len(self.rows)}"
        seconds = self._peer.ask(
            "train",
            folder=str(place),
            architecture=architecture,
            settings={"d_sae": D_SAE, **sparsity},
            training={"lr": rate, "lr_decay_steps": 0 if is_default else n_steps // 5},
            batch_size=BATCH,
            n_samples=n_steps * BATCH,
        )["cpu_seconds"]
        label = f"{rate:g}" + (" (default)" if is_default else "")
        return self._judged(f"SAELens {architecture}", label, place, seconds)

    def _judged(self, who: str, rate: str, place: Path, seconds: float) -> Row:
        found = self._peer.ask("judge", folder=str(place))
        row = {"who": who, "rate": rate, "speed": self._n_samples / seconds, **found}
        self.rows.append(row)
        return row


def compare(
    comparison: Comparison, architecture: str, rates: list[float], coefficient: float
) -> tuple[Row, Row]:
    """Ours and the best of SAELens', at comparable sparsity."""
    mine = comparison.ours(architecture)
    peers = [comparison.theirs(architecture, rate, coefficient) for rate in [DEFAULT_RATE, *rates]]
    # A JumpReLU that keeps many latents reconstructs well: nearest to the target first.
    near = [row for row in peers if row["l0"] <= 1.25 * K] or [min(peers, key=lambda r: r["l0"])]
    best = min(near, key=lambda row: row["fvu"])
    if architecture == "jumprelu" and abs(best["l0"] / mine["l0"] - 1) > 0.05:
        mine = comparison.ours(architecture, target_l0=best["l0"])
    return mine, best


def outcome(
    comparison: Comparison, pairs: dict[str, tuple[Row, Row]], conditions: dict[str, Any]
) -> Outcome:
    goals = {
        f"{architecture}: fvu {mine['fvu']:.4f} at l0 {mine['l0']:.1f}, at most SAELens' best "
        f"{best['fvu']:.4f} at l0 {best['l0']:.1f} (rate {best['rate']})": mine["fvu"]
        <= best["fvu"]
        for architecture, (mine, best) in pairs.items()
    }
    return Outcome(
        title="Sparse autoencoders after the same samples",
        columns=COLUMNS,
        rows=[
            [
                row["who"],
                row["rate"],
                f"{row['fvu']:.4f}",
                f"{row['l0']:.1f}",
                f"{row['dead']:.3f}",
                f"{row['speed']:,.0f}",
            ]
            for row in comparison.rows
        ],
        timings={},
        conditions=conditions,
        goals=goals,
    )


def main() -> None:
    parser = output_parser()
    parser.add_argument("--samples", type=float, default=4e5, help="rows of training")
    parser.add_argument("--rates", type=float, nargs="*", default=[1e-3, 2e-3, 4e-3])
    parser.add_argument("--only", nargs="*", default=list(ARCHITECTURES), help="architectures")
    parser.add_argument("--coefficient", type=float, default=1.0, help="SAELens' l0_coefficient")
    arguments = parser.parse_args()
    pin_one_thread()
    problem = Problem(round(arguments.samples / BATCH) * BATCH)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with SAELens(folder / "saelens.log") as peer:
            peer.ask("load", file=str(problem.write(folder)))
            comparison = Comparison(peer, problem, folder)
            pairs = {
                architecture: compare(
                    comparison, architecture, arguments.rates, arguments.coefficient
                )
                for architecture in arguments.only
            }
            version = peer.version
    conditions = {
        "activations": f"synthetic: {N_FEATURES} known features, {MEAN_L0} active on average; "
        f"{len(problem.training)} rows once, {len(problem.held_out)} held out",
        "sizes": f"d_model {D_MODEL}, d_sae {D_SAE}, k {K} (jumprelu: target_l0 {K}), "
        f"batch {BATCH}, float32",
        "SAELens": f"{version}, JumpReLU: quadratic, l0_coefficient {arguments.coefficient:g}",
    }
    publish(outcome(comparison, pairs, conditions), arguments)


if __name__ == "__main__":
    main()
