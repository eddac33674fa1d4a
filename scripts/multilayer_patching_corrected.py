"""Experiment 2 of the plan: population-mean patching of the top 300 latents of every layer.

    python scripts/multilayer_patching_corrected.py --gpu_id 2 --layer_start 1 --layer_end 8
    python scripts/multilayer_patching_corrected.py --gpu_id 2,4,6,7 --layer_start 1 --layer_end 31

Writes multilayer_final_gpu2.json and L1_8_features_FINAL.json. What took 1.4 million texts is
computed exactly, and a sample of texts checks it. The second command is the better one: games are
played once, and latents of all layers are tested and corrected together. With `--log` games that
are there already are not played again.
"""

import argparse
import sys
from typing import Any

import polars as pl
from seed_command import add_layers, command, guarded, layer_settings, run_and_write, seed_parser

from fluoroscope.runs.run import Run
from fluoroscope.studies.gambling.seed_files.features import features_json
from fluoroscope.studies.gambling.seed_files.patching import patching_json, seed_trials
from fluoroscope.studies.gambling.seed_files.writing import features_name, patching_name, place


def main() -> None:
    parser = seed_parser(str(__doc__))
    add_layers(parser, 1, 31)
    options = parser.parse_intermixed_args()
    run_and_write(words(options), options.out, lambda run: contents(run, options))


def words(options: argparse.Namespace) -> list[str]:
    return command(options, f"multilayer_{place(options.gpu_id)}", layer_settings(options))


def contents(run: Run, options: argparse.Namespace) -> dict[str, Any]:  # Any: JSON values.
    saes, chosen = run.config.subject.saes, run.config.contrast
    selected = pl.read_parquet(run.step_folder("contrast") / "selected.parquet")
    selection = f"the {chosen.top} of each layer with the largest |{chosen.by}|, whatever their p"
    layers = features_name(options.layer_start, options.layer_end)
    found = {layers: features_json(selected, saes, selection)}
    causal = pl.read_parquet(run.step_folder("doses") / "causal.parquet")
    curves, replies = run.folder / "doses/curves.parquet", run.folder / "confirm/replies.parquet"
    if not curves.exists() or not replies.exists():
        print("Too few games went bankrupt or were stopped: nothing was patched.", file=sys.stderr)
        return found
    trials = seed_trials(pl.read_parquet(replies))
    patching = patching_json(causal, pl.read_parquet(curves), trials, saes)
    return found | {patching_name(options.gpu_id): patching}


if __name__ == "__main__":
    guarded(main)
