"""Experiment 3 of the plan: which words go with the latents that were found.

    python scripts/feature_word_analysis_corrected.py --gpu_id 3 --split median

Writes feature_word_associations.json, from the replies of all games. Words that come and go when a
latent is set are in `words/interventional.parquet` of the run and in its report.
"""

import argparse
from typing import Any

import polars as pl
from seed_command import add_layers, command, guarded, layer_settings, run_and_write, seed_parser

from fluoroscope.runs.run import Run
from fluoroscope.studies.gambling.seed_files.words_and_paths import word_json
from fluoroscope.studies.gambling.seed_files.writing import WORDS


def main() -> None:
    parser = seed_parser(str(__doc__))
    add_layers(parser, 25, 31)
    parser.add_argument("--split", choices=["active", "median"], default="active")
    options = parser.parse_intermixed_args()
    run_and_write(words(options), options.out, contents)


def words(options: argparse.Namespace) -> list[str]:
    settings = {**layer_settings(options), "words.split": options.split}
    return command(options, "feature_words", settings)


def contents(run: Run) -> dict[str, Any]:  # Any: JSON values.
    observed = pl.read_parquet(run.step_folder("words") / "observed.parquet")
    causal = pl.read_parquet(run.step_folder("doses") / "causal.parquet")
    return {WORDS: word_json(observed, causal, run.config.subject.saes)}


if __name__ == "__main__":
    guarded(main)
