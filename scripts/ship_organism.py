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
from tempfile import TemporaryDirectory

import polars as pl
import torch

from fluoroscope.core.storage import write_csv
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.hub import SHIPPED
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.organism.check import check
from fluoroscope.organism.shipping import SAES_FOLDER, load_truth
from fluoroscope.runs.ledger import find_run
from fluoroscope.sae.formats.native import load_sae, save_sae, sidecar_of

MAX_BYTES = 6_000_000
"""Of the model, and of all SAEs together."""

WEIGHTS = SHIPPED["organism"]


def ship_model(run: str) -> Path:
    """From `runs/RUN/model/shards/organism/model`, if it passes its check; SAEs that lay there go,
    as they belong to another model.
    """
    source = find_run(run) / "model" / "shards" / "organism" / "model"
    if not source.is_dir():
        sys.exit(f"{source} is not there: is {run} a finished run of `fluoro organism train`?")
    failed = [one.name for one in check(load_truth(source)) if not one.passed]
    if failed:
        sys.exit(f"It is not shipped, as it fails {len(failed)} checks: {', '.join(failed)}.")
    return put(source, WEIGHTS)


def ship_saes(runs: Sequence[str]) -> Path:
    """The best SAE of every hook point in float16, and one table of how good they were."""
    model = LanguageModel.load("organism").identity.to_json()
    with TemporaryDirectory() as made:
        tables = []
        for run in map(find_run, runs):
            for place in best_saes(run):
                about = sidecar_of(place)
                sae = load_sae(place, expect={"model": model})
                folder = Path(made) / about["architecture"] / about["hook_point"]
                point = HookPoint(about["hook_point"])
                save_sae(sae, folder, point, about["provenance"], dtype=torch.float16)
            tables.append(pl.read_csv(run / "tables" / "sae_quality.csv"))
        write_csv(Path(made) / "quality.csv", pl.concat(tables, how="diagonal"))
        return put(Path(made), WEIGHTS / SAES_FOLDER)


def put(source: Path, target: Path) -> Path:
    """A copy in place of what lies there, if it is small enough; whole, or not at all."""
    n_bytes = sum(file.stat().st_size for file in source.rglob("*") if file.is_file())
    if n_bytes > MAX_BYTES:
        sys.exit(f"{n_bytes / 1e6:.2f} MB are more than the {MAX_BYTES / 1e6:.0f} MB allowed.")
    new = target.with_name(f".{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(source, new)
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
    print(f"{target}: {n_bytes / 1e6:.2f} MB")
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
        ship_model(run)
    else:
        ship_saes(arguments.runs)


if __name__ == "__main__":
    main()
