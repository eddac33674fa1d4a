"""Puts a trained organism, then SAEs of it, where the package ships them from.

    python scripts/ship_organism.py model RUN          a run of `fluoro organism train`
    python scripts/ship_organism.py saes RUN [RUN...]  runs of `--preset dictionary/organism-...`

The model goes first, as SAEs are trained on what is shipped and belong to it.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import torch

from fluoroscope.core.storage import write_csv
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.hub import SHIPPED
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.organism.shipping import SAES_FOLDER
from fluoroscope.runs.ledger import find_run
from fluoroscope.sae.formats.native import load_sae, save_sae, sidecar_of

MAX_BYTES = 6_000_000
"""Of the model, and of all SAEs together."""

WEIGHTS = SHIPPED["organism"]


def ship_model(run: str) -> Path:
    """From `runs/RUN/model/shards/organism/model`; what lay there before goes, SAEs too."""
    source = find_run(run) / "model" / "shards" / "organism" / "model"
    if not source.is_dir():
        sys.exit(f"{source} is not there: is {run} a finished run of `fluoro organism train`?")
    shutil.rmtree(WEIGHTS, ignore_errors=True)
    shutil.copytree(source, WEIGHTS)
    return WEIGHTS


def ship_saes(runs: Sequence[str]) -> Path:
    """The best SAE of every hook point in float16, and one table of how good they were."""
    target = WEIGHTS / SAES_FOLDER
    shutil.rmtree(target, ignore_errors=True)
    model = LanguageModel.load("organism").identity.to_json()
    tables = []
    for run in runs:
        for place in best_saes(find_run(run)):
            about = sidecar_of(place)
            sae = load_sae(place, expect={"model": model})
            point = HookPoint(about["hook_point"])
            folder = target / about["architecture"] / str(point)
            save_sae(sae, folder, point, about["provenance"], dtype=torch.float16)
        tables.append(pl.read_csv(find_run(run) / "tables" / "sae_quality.csv"))
    write_csv(target / "quality.csv", pl.concat(tables, how="diagonal"))
    return target


def best_saes(run: Path) -> Iterator[Path]:
    for record in sorted((run / "saes" / "shards").glob("*/*/best/fluoroscope.json")):
        yield record.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["model", "saes"])
    parser.add_argument("runs", nargs="+")
    arguments = parser.parse_args()
    if arguments.what == "model":
        [run] = arguments.runs
        folder = ship_model(run)
    else:
        folder = ship_saes(arguments.runs)
    n_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {n_bytes / 1e6:.2f} MB")
    if n_bytes > MAX_BYTES:
        sys.exit(f"That is more than the {MAX_BYTES / 1e6:.0f} MB that may be shipped.")


if __name__ == "__main__":
    main()
