"""Experiment 1 of the plan: the latents of blocks 1 to 31 through whole games.

    python scripts/layer_pathway_tracking.py --gpu_id 3

Writes layer_pathway.json: the largest latents of every layer at every decision of 50 games. What is
made of them (probes, P(stop) by layer, edges) is in `pathway/` of the run and in its report.
"""

import argparse
from typing import Any

from seed_command import add_layers, command, guarded, layer_settings, run_and_write, seed_parser

from fluoroscope.runs.run import Run
from fluoroscope.studies.gambling.seed_files.words_and_paths import pathway_json
from fluoroscope.studies.gambling.seed_files.writing import PATHWAY
from fluoroscope.studies.gambling.steps.latents import read_latents
from fluoroscope.studies.gambling.steps.play import read_games
from fluoroscope.studies.gambling.steps.record import read_states


def main() -> None:
    parser = seed_parser(str(__doc__))
    add_layers(parser, 1, 31)
    parser.add_argument("--games", type=int, default=50, help="games that are followed")
    options = parser.parse_intermixed_args()
    run_and_write(words(options), options.out, contents)


def words(options: argparse.Namespace) -> list[str]:
    settings = {**layer_settings(options), "pathway.games": options.games}
    return command(options, "layer_pathway", settings)


def contents(run: Run) -> dict[str, Any]:  # Any: JSON values.
    config = run.config
    latents = {point: read_latents(run, config, point) for point in config.hook_points}
    found = pathway_json(
        read_states(run), read_games(run), latents, config.subject.saes, config.pathway.games
    )
    return {PATHWAY: found}


if __name__ == "__main__":
    guarded(main)
