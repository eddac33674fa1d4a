"""The plan's export for a paper: `fluoro export`, tables, numbers and figures of a run.

    python scripts/export_paper_results.py --model gpt2-medium --output ./paper/results/

`--model` is a run's name, as `launch_model_analysis.sh` names it, its folder, or the folder that it
was exported to. With `--seed-files` tracks, scores and SAEs are written as well, in the forms of
the plan's own files (`fluoro hallucination export`): beside OUTPUT, in OUTPUT-seed (here
`paper/results-seed`), for `fluoro export` replaces OUTPUT as a whole and refuses to where it holds
files of others, below it too. More words go on to `fluoro export`.
"""

import argparse
import sys
from pathlib import Path

from fluoroscope.cli import main as fluoro
from fluoroscope.core.errors import UserError
from fluoroscope.studies.hallucination.export import run_of_results


def commands(arguments: list[str]) -> list[list[str]]:
    """What `fluoro` is asked, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a run")
    parser.add_argument("--output", required=True, help="folder that is written to")
    parser.add_argument(
        "--seed-files", action="store_true", help="the plan's own files as well, in OUTPUT-seed"
    )
    given, more = parser.parse_known_args(arguments)
    run = str(run_of_results(given.model))
    found = [["export", run, "--to", given.output, *more]]
    if given.seed_files:
        output = Path(given.output).resolve()
        seed = output.with_name(f"{output.name}-seed")
        found.append(["hallucination", "export", run, "--out", str(seed)])
    return found


def main() -> None:
    try:
        asked = commands(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
    for words in asked:
        sys.argv = ["fluoro", *words]
        try:
            fluoro()
        except SystemExit as end:
            if end.code:
                raise


if __name__ == "__main__":
    main()
