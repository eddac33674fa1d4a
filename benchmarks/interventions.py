"""Thousands of patches: sampled, different in every row, exact, and by attribution.

Texts have 20 tokens behind a prompt of 100, in float32, on one pinned thread. Peers:

    batch 1           transformers' `generate` with its cache, one text after another, under the
                      same edit as ours by a plain hook
    the seed's way    the same without a cache, its hook encodes and decodes the whole SAE and puts
                      the reconstruction in place
    50 returned       `generate` with 50 returned sequences of one cell, under the same plain hook:
                      the strongest simple rival
    hooked forward    one pass over the prompt under the seed's hook, the naive way to an exact
                      next-token distribution

Floor: the arithmetic of the tokens that are written, at the speed of a plain matrix product.
    python -m benchmarks.interventions [--parts sampling,edits,screening,attribution]
"""

import argparse
from collections.abc import Mapping, Sequence

import torch

from benchmarks.harness import (
    Contender,
    Outcome,
    Timing,
    interleave,
    matmul_flops_per_s,
    output_parser,
    pin_one_thread,
    publish,
    speed_ratio,
)
from benchmarks.patched_models import (
    N_NEW,
    N_PROMPT,
    Patched,
    literal_hook,
    small_hook,
    stories,
    transformers_generate,
    wide,
)
from fluoroscope.interventions.positions import GENERATED, LAST
from fluoroscope.interventions.row_edits import EditSet, row_edits
from fluoroscope.interventions.screening import Screen
from fluoroscope.models.generation import Request, generate
from fluoroscope.models.shape import ModelShape
from fluoroscope.sae.attribution import attribute, probability_of
from fluoroscope.sae.latent_edits import SetLatent, latent_block

N_CELLS = 1024
OURS, OWN_PROMPTS = "ours, 1,024 cells", "ours, a prompt of its own in every row"
TRIALS = "ours, 50 trials a cell"
ONE, LITERAL, FIFTY = "transformers, batch 1", "the seed's way", "transformers, 50 returned"

Row = list[str]


class Table:
    """Rows, raw times and goals of all parts."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.timings: dict[str, Timing] = {}
        self.goals: dict[str, bool] = {}

    def add(
        self, where: str, timings: Mapping[str, Timing], peers: Sequence[str], unit: str
    ) -> None:
        for name, timing in timings.items():
            ratios = [
                "" if peer == name else str(speed_ratio(timing, timings[peer])) for peer in peers
            ]
            per_unit = 1e3 / timing.rate
            against = "; ".join(
                f"{ratio} x {peer}" for peer, ratio in zip(peers, ratios, strict=True) if ratio
            )
            self.rows.append([where, name, f"{per_unit:,.3f} ms a {unit}", against, timing.note])
            self.timings[f"{where}: {name}"] = timing

    def goal(self, text: str, found: float, wanted: float) -> None:
        self.goals[f"{text}: at least {wanted:,g}, got {found:,.2f}"] = found >= wanted


def patched_edits(patched: Patched, number: int, everywhere: bool = False) -> EditSet:
    if everywhere:
        return {
            point: SetLatent(sae, (number + 37 * point.layer) % sae.d_sae, 2.0)
            for point, sae in patched.saes.items()
        }
    point, latent, value = patched.cell(number)
    return {point: SetLatent(patched.saes[point], latent, value)}


def write(
    patched: Patched,
    rows: Sequence[EditSet] | None,
    n: int,
    max_rows: int = N_CELLS,
    prompts: Sequence[tuple[int, ...]] | None = None,
) -> None:
    """So many texts by our engine."""
    requests = [
        Request(
            prompt=prompts[i] if prompts else patched.prompt,
            seed=i,
            max_tokens=N_NEW,
            stop_tokens=(),
        )
        for i in range(n)
    ]
    if rows is None:
        generate(patched.model, requests, max_rows=max_rows)
        return
    with row_edits(patched.model, rows, LAST | GENERATED):
        generate(patched.model, requests, max_rows=max_rows)


def sampling(patched: Patched, table: Table, rounds: int, goals: Mapping[str, float]) -> None:
    is_small = patched.model.d_model < 512
    n_one, n_literal, n_fifty = (10, 5, 4) if is_small else (2, 1, 1)
    different = [(*patched.prompt[:-2], 5 + i // 200, 5 + i % 200) for i in range(N_CELLS)]
    # Prompts that differ from their first token on share nothing.
    apart = [tuple(reversed(prompt)) for prompt in different]
    rows = [patched_edits(patched, i) for i in range(N_CELLS)]

    def one_by_one() -> None:
        for i in range(n_one):
            with small_hook(patched, i):
                transformers_generate(patched)

    def literally() -> None:
        for i in range(n_literal):
            with literal_hook(patched, i):
                transformers_generate(patched, use_cache=False)

    def fifty() -> None:
        for i in range(n_fifty):
            with small_hook(patched, i):
                transformers_generate(patched, n_returned=50)

    trials = [row for i in range(20) for row in [patched_edits(patched, i)] * 50]
    contenders = [
        Contender(
            OURS, lambda: write(patched, rows, N_CELLS), N_CELLS, "one prompt, all different"
        ),
        Contender(TRIALS, lambda: write(patched, trials, 1000), 1000, "20 cells"),
        Contender(
            OWN_PROMPTS,
            lambda: write(patched, rows, 256, 256, apart),
            256,
            "256 rows; nothing is shared",
        ),
        Contender(ONE, one_by_one, n_one, "cache, same hook"),
        Contender(LITERAL, literally, n_literal, "no cache, whole SAE"),
        Contender(FIFTY, fifty, 50 * n_fifty, "cache, same hook"),
    ]
    timings = interleave(contenders, rounds)
    table.add(patched.name, timings, [ONE, LITERAL, FIFTY], "text")
    shape = ModelShape.from_network(patched.model.network)
    flops = N_NEW * shape.forward_flops_per_token(N_PROMPT + N_NEW // 2)
    floor = 1e3 * flops / matmul_flops_per_s()
    table.rows.append([patched.name, "floor: arithmetic", f"{floor:,.3f} ms a text", "", ""])
    for peer, wanted in goals.items():
        found = speed_ratio(timings[OURS], timings[peer]).median
        table.goal(f"{patched.name}, ours / {peer}", found, wanted)


def edits(patched: Patched, table: Table, rounds: int) -> None:
    n = 256
    one = [patched_edits(patched, i) for i in range(n)]
    all_layers = [patched_edits(patched, i, everywhere=True) for i in range(n)]
    plain, mixed, many = "no edits", "256 different edits", "256 x 6 different edits"
    contenders = [
        Contender(plain, lambda: write(patched, None, n, n), n, "the same engine"),
        Contender(mixed, lambda: write(patched, one, n, n), n, "one a row, over all layers"),
        Contender(many, lambda: write(patched, all_layers, n, n), n, "one in every layer of a row"),
    ]
    timings = interleave(contenders, rounds)
    table.add(f"{patched.name}, edits", timings, [plain], "text")
    for name in (mixed, many):
        found = speed_ratio(timings[name], timings[plain]).median
        table.goal(f"throughput with {name} / without", found, 0.8)


def screening(patched: Patched, table: Table, rounds: int) -> None:
    n = 1024
    screen = Screen(patched.model, patched.prompt)
    blocks = [
        latent_block(sae, point, torch.arange(n) % sae.d_sae, torch.linspace(0, 6, n))
        for point, sae in patched.saes.items()
    ]
    tokens = torch.tensor([patched.prompt])
    n_forward = 10 if patched.model.d_model < 512 else 3

    def exactly() -> None:
        for block in blocks:
            screen.decisions(block, {"decision": [5, 6, 7]})

    @torch.no_grad()
    def forwards() -> None:
        for i in range(n_forward):
            with literal_hook(patched, i):
                patched.model.network(input_ids=tokens, use_cache=False).logits[0, -1].softmax(-1)

    def literally() -> None:
        with literal_hook(patched, 0):
            transformers_generate(patched, use_cache=False)

    ours, forward, seed = "exact screening", "hooked forward", "50 trials the seed's way"
    contenders = [
        Contender(ours, exactly, n * len(blocks), "all layers alike"),
        Contender(forward, forwards, n_forward, "100 tokens, no cache"),
        Contender(seed, literally, 1 / 50, "one of the 50 is run"),
    ]
    timings = interleave(contenders, rounds)
    table.add(f"{patched.name}, screening", timings, [forward, seed], "cell")
    for peer, wanted in ((forward, 200), (seed, 10_000)):
        found = speed_ratio(timings[ours], timings[peer]).median
        table.goal(f"{patched.name}, exact screening / {peer}", found, wanted)


def attribution(patched: Patched, table: Table, rounds: int) -> None:
    screen = Screen(patched.model, patched.prompt)
    values = {point: torch.full((sae.d_sae,), 2.0) for point, sae in patched.saes.items()}
    tokens = torch.tensor([patched.prompt])
    score = probability_of([5, 6, 7])
    embed = patched.model.network.get_input_embeddings()

    def back() -> None:
        inputs = embed(tokens).requires_grad_()
        logits = patched.model.network(inputs_embeds=inputs, use_cache=False).logits[:, -1]
        torch.autograd.grad(score(logits).sum(), [inputs])

    first, integrated, pair = "first order", "8 steps", "forward and backward"
    contenders = [
        Contender(pair, back, 1, "the whole prompt, batch 1"),
        Contender(first, lambda: _discard(attribute(screen, patched.saes, values, score)), 1),
        Contender(
            integrated, lambda: _discard(attribute(screen, patched.saes, values, score, 8)), 1
        ),
    ]
    timings = interleave(contenders, rounds)
    n_latents = sum(sae.d_sae for sae in patched.saes.values())
    table.add(f"{patched.name}, {n_latents:,} latents", timings, [pair], "prompt")
    for name in (first, integrated):
        found = speed_ratio(timings[name], timings[pair]).median
        table.goal(f"{patched.name}, attribution by {name}, passes of 1/5", 5 * found, 1)


def _discard(_: object) -> None:
    return None


def measure(rounds: int, parts: Sequence[str]) -> Outcome:
    table = Table()
    small, large = stories(), wide()
    for part in parts:
        match part:
            case "sampling":
                sampling(small, table, rounds, {ONE: 25, LITERAL: 60, FIFTY: 2})
                sampling(large, table, max(3, rounds // 2), {ONE: 5, LITERAL: 30})
            case "edits":
                edits(large, table, rounds)
            case "screening":
                screening(small, table, rounds)
                screening(large, table, max(3, rounds // 2))
            case "attribution":
                attribution(small, table, rounds)
                attribution(large, table, rounds)
            case _:
                raise SystemExit(f"There is no part {part!r}.")
    return Outcome(
        title="Interventions",
        columns=["where", "way", "CPU time", "times faster than", "note"],
        rows=table.rows,
        timings=table.timings,
        conditions={
            "texts": f"{N_NEW} tokens behind a prompt of {N_PROMPT}, float32",
            "rounds": rounds,
        },
        goals=table.goals,
    )


if __name__ == "__main__":
    parser = output_parser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--parts", default="sampling,edits,screening,attribution")
    arguments: argparse.Namespace = parser.parse_args()
    pin_one_thread()
    publish(measure(arguments.rounds, arguments.parts.split(",")), arguments)
