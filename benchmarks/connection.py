"""What slots that hear each other cost: maps of pairs, cheap forms, and texts that get longer.

`operator`  the fast form of the plan's maps, the double loop (at least 80 times as long) and
            `torch.einsum` written from the formula (at least twice), with the floor of arithmetic
`memory`    the peak of a pass of each of the two at the base size; never more than einsum's
`forms`     cheap connections beside the plan's: parameters (at least 20 times fewer), a step of
            the connection and of training (at least 5 times faster)
`accuracy`  how right they were, where finished runs are given
`length`    reading texts of 64 to 2048 tokens, beside a Transformer of as many parameters

    python -m benchmarks.connection [--rounds N] [--parts operator,forms] [--quick]
        [--accuracy FOLDER ...] [--json FILE] [--markdown FILE]

One pinned thread; 5 minutes and 9 GiB of memory. Accuracies are read from the folders of runs,
such as `fluoro run connection --preset connection/pointer`.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.connection_accuracy import accuracy
from benchmarks.connection_forms import forms
from benchmarks.connection_length import length
from benchmarks.connection_memory import memory
from benchmarks.connection_operator import operator
from benchmarks.connection_parts import COLUMNS, check_names
from benchmarks.harness import Outcome, output_parser, pin_one_thread, publish
from benchmarks.plugin_parts import Part

PARTS = ("operator", "memory", "forms", "length")
ROUNDS, QUICK_ROUNDS = 5, 2


def measure(
    rounds: int, names: Sequence[str] = PARTS, is_quick: bool = False, runs: Sequence[Path] = ()
) -> Outcome:
    """`runs` are the folders that accuracies are read from."""
    check_names(names, PARTS)
    parts = {"operator": operator, "memory": memory, "forms": forms, "length": length}
    whole = Part()
    for name in names:
        whole.join(parts[name](rounds, is_quick))
    whole.join(accuracy(runs))
    quick = {"quick": "small sizes: to see that it works, not to be believed"} if is_quick else {}
    return Outcome(
        title="What slots that hear each other cost",
        columns=COLUMNS,
        rows=whole.rows,
        timings=whole.timings,
        conditions={
            **whole.conditions,
            "cost": "CPU time of a pass, a step or a text, by the median round",
            "times faster": "than the first way of the same rows, where nothing else is said",
            "rounds": rounds,
            **quick,
        },
        goals=whole.goals,
    )


if __name__ == "__main__":
    parser = output_parser()
    parser.add_argument("--rounds", type=int, help="rounds that are counted")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument(
        "--accuracy", type=Path, nargs="*", default=[], help="folders of finished runs"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, 2 rounds or as given")
    arguments = parser.parse_args()
    pin_one_thread()
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    names = arguments.parts.split(",")
    publish(measure(rounds, names, arguments.quick, arguments.accuracy), arguments)
