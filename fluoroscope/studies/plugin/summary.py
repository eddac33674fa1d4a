"""A finished run in a few lines, as the plan's scripts end: scores by data set and seed, files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from fluoroscope.core.errors import DamagedError
from fluoroscope.core.intervals import Interval, clustered_share_interval
from fluoroscope.core.storage import read_json
from fluoroscope.runs.interval_text import between
from fluoroscope.runs.run import DONE, Run
from fluoroscope.studies.plugin.seed_layout import short_name
from fluoroscope.studies.plugin.steps.texts import ABOUT, TEXTS, set_key
from fluoroscope.studies.plugin.steps.train import SCORES, TRAIN, read_train, trainings
from fluoroscope.studies.plugin.steps.training_loop import PREDICTIONS, STATE, TRAINED

_SCHEMA = {
    "data set": pl.String,
    "arm": pl.String,
    "layer": pl.Int64,
    "seed": pl.Int64,
    "test accuracy": pl.String,
    "macro-F1": pl.Float64,
}


def is_trained(run: Run) -> bool:
    """Whether every training of the run is done."""
    return (run.folder / TRAIN / DONE).exists()


def summary(run: Run) -> pl.DataFrame:
    """A row a training, the main arm first: `data set`, `arm`, `layer`, `seed`, `test accuracy`
    with its 95 % interval over the groups of test examples, `macro-F1`. No rows before all
    trainings are done.
    """
    if not is_trained(run):
        return pl.DataFrame(schema=_SCHEMA)
    key = ["dataset", "arm", "layer", "seed"]
    scores = read_train(run, SCORES).filter(pl.col("part").is_null() & (pl.col("side") == "test"))
    tested = read_train(run, PREDICTIONS).filter(pl.col("side") == "test")
    rows = []
    for row in scores.iter_rows(named=True):
        same = [pl.col(name).eq_missing(pl.lit(row[name])) for name in key]
        found = _accuracy(tested.filter(*same))
        shown = between(found.value, found.low, found.high, "")
        rows.append((*(row[name] for name in key), shown, row["macro_f1"]))
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def _accuracy(tested: pl.DataFrame) -> Interval:
    is_right = (tested["label"] == tested["predicted"]).to_numpy()
    groups = np.unique(tested["group"].to_numpy(), return_inverse=True)[1]
    return clustered_share_interval(is_right, groups)


def written_files(run: Run) -> list[Path]:
    """Where the results lie: the report, the trained classifiers, and the plan's own folders."""
    return [path for path in _places(run) if path.exists()]


def _places(run: Run) -> Iterator[Path]:
    yield run.folder / "report.html"
    outputs = run.config.outputs
    roots = [Path(root).expanduser() for root in (outputs.models, outputs.checkpoints) if root]
    if roots and is_trained(run):
        for root in roots:
            yield from _in_layout(run, root)
    if outputs.results and run.config.chooses:
        yield Path(outputs.results).expanduser() / "layer_selection"
    if not roots and is_trained(run):
        for one in trainings(run, run.config):
            yield run.folder / TRAIN / "shards" / one.key / TRAINED


def _in_layout(run: Run, root: Path) -> Iterator[Path]:
    """Folders of the plan that hold a training of this run. All else in `root` is left alone: it
    may be large, and not ours.
    """
    config = run.config
    for dataset in config.datasets:
        about = read_json(run.step_folder(TEXTS) / "shards" / set_key(dataset) / ABOUT)
        source = short_name(config.model.source)
        above = root / about["task"] / set_key(dataset) / config.model.pooling / source
        # Below it: METHOD/LLM/LAYER, and there a folder for each further training. A path of the
        # plan says no seed, so that only what lies in a folder tells whose it is.
        for pattern in ("*/*/*", "*/*/*/run-*"):
            for state in sorted(above.glob(f"{pattern}/{STATE}")):
                if _run_of(state) == run.name:
                    yield state.parent


def _run_of(path: Path) -> str | None:
    """The run that a state file names; None of another's file."""
    try:
        state = read_json(path)
    except (DamagedError, OSError):
        return None
    return state.get("run") if isinstance(state, dict) else None
