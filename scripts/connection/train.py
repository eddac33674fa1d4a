"""The plan's own command line (seed 003), as one `fluoro run connection`.

    cd scripts/connection
    python train.py --config configs/nd_128_256.yaml --dataset LogiQA

One slot network is trained, with one seed, as in the plan; `arms=[slots,none,transformer]` and
`seeds=3` behind it train what it is to be compared with. Words as key=value are settings of the
study (`fluoro run connection --help` lists them), and every other option is one of `fluoro run`.
With DRY_RUN=1 the command is printed and not run.
"""

import argparse
import json
import os
import shlex
import sys

from fluoroscope.cli import main as fluoro


def command(arguments: list[str]) -> list[str]:
    """Words for `fluoro`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--config", required=True, help="a file in the plan's keys, or in ours")
    parser.add_argument("--dataset", help="LogiQA, GSM8K, StrategyQA, CommonsenseQA, SST-2 ...")
    given, others = parser.parse_known_args(arguments)
    words = ["run", "connection", "--config", given.config, "arms=[slots]", "seeds=1"]
    # Quoted, as paths may have commas; what is said last counts, so `others` are behind it.
    sets = [f"data.sets={json.dumps([given.dataset])}"] if given.dataset else []
    return [*words, *sets, *others]


def main() -> None:
    words = command(sys.argv[1:])
    if os.environ.get("DRY_RUN") == "1":
        sys.stdout.write(f"{shlex.join(['fluoro', *words])}\n")
        return
    sys.argv = ["fluoro", *words]
    fluoro()


if __name__ == "__main__":
    main()
