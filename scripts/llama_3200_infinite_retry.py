"""Experiment 0 of the plan: 3,200 games of Llama-3.1-8B, 50 of each of the 64 conditions.

    python scripts/llama_3200_infinite_retry.py --gpu_id 0

Writes llama_3200_games.json with every prompt and reply; the other scripts take it with `--log`.
Empty replies are asked for again (1,000 times, where the plan said for ever), any other is read or
counted as unread: how often is a table of the report.
"""

import argparse
from typing import Any

from seed_command import LLAMA, command, guarded, run_and_write, seed_parser

from fluoroscope.runs.run import Run
from fluoroscope.studies.gambling.seed_files.games import games_json
from fluoroscope.studies.gambling.seed_files.writing import games_name
from fluoroscope.studies.gambling.steps.play import read_attempts, read_games

RETRIES = {"play.retries.only_empty": "true", "play.retries.max_attempts": 1000}


def main() -> None:
    options = seed_parser(str(__doc__), LLAMA).parse_intermixed_args()
    run_and_write(words(options), options.out, contents)


def words(options: argparse.Namespace) -> list[str]:
    return command(options, "llama_3200", {"saes.source": "null", **RETRIES})


def contents(run: Run) -> dict[str, Any]:  # Any: JSON values.
    header = {"model": run.config.model.name, "seed": run.config.seed}
    found = games_json(read_attempts(run), read_games(run), header)
    return {games_name("llama"): found}


if __name__ == "__main__":
    guarded(main)
