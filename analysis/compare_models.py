"""The plan's comparison of two models: `fluoro compare`, with the results named as it does.

    python analysis/compare_models.py --small ./results/gpt2-small --medium ./results/gpt2-medium

A place of results is a run's name, its folder, the folder that it was exported to, or a path that
ends in the run's name. More words go on to `fluoro compare`.
"""

import argparse
import sys

from fluoroscope.cli import main as fluoro
from fluoroscope.core.errors import UserError
from fluoroscope.studies.hallucination.export import run_of_results


def words(arguments: list[str]) -> list[str]:
    """What `fluoro` is asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", required=True, help="results of the smaller model")
    parser.add_argument("--medium", required=True, help="results of the larger model")
    given, more = parser.parse_known_args(arguments)
    runs = [str(run_of_results(results)) for results in (given.small, given.medium)]
    return ["compare", *runs, *more]


def main() -> None:
    try:
        sys.argv = ["fluoro", *words(sys.argv[1:])]
    except UserError as error:
        sys.exit(str(error))
    fluoro()


if __name__ == "__main__":
    main()
