"""What a plugged-in layer costs, and what choosing it costs, against the plan's own ways.

`step`       a training step with a layer (pifi) and without (base): at most 1.10 times as long
`layer`      the fused form for one token and the layer of transformers: never slower, fewer bytes
`selection`  vectors of all layers in one pass, and in one pass for each layer; time and memory
`padding`    training on texts padded to 100 tokens, and in buckets

    python -m benchmarks.plugin [--rounds N] [--parts step,layer] [--threads N] [--quick]

Each part's ways are held to its first one. With two threads their CPU seconds are added up, those
that one waits for the other among them; the clock's seconds stand beside, which are worth
something on a machine that does nothing else.
"""

import torch

from benchmarks.harness import Outcome, output_parser, publish
from benchmarks.plugin_layers import layers
from benchmarks.plugin_parts import COLUMNS, N_ROUNDS, Part
from benchmarks.plugin_selection import selection
from benchmarks.plugin_training import padding, steps

PARTS = {"step": steps, "layer": layers, "selection": selection, "padding": padding}


def measure(rounds: int, names: list[str], is_quick: bool) -> Outcome:
    whole = Part()
    for name in names:
        whole.join(PARTS[name](rounds, is_quick))
    return Outcome(
        title="What a plugged-in layer costs",
        columns=COLUMNS,
        rows=whole.rows,
        timings=whole.timings,
        conditions={
            **whole.conditions,
            "times": "of the first way in the same round; below 1 takes less",
            "intervals": "of the median over rounds, paired, by order statistics",
            "rounds": f"{rounds}; of selection and padding at most {N_ROUNDS}",
            **(
                {"quick": "small sizes: to see that it works, not to be believed"}
                if is_quick
                else {}
            ),
        },
        goals=whole.goals,
    )


if __name__ == "__main__":
    parser = output_parser()
    parser.add_argument("--rounds", type=int, default=15, help="rounds that are counted")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="small sizes, 2 rounds or as given")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rounds = 2 if arguments.quick and arguments.rounds == 15 else arguments.rounds
    publish(measure(rounds, arguments.parts.split(","), arguments.quick), arguments)
