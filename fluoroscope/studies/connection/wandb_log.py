"""Trainings of a connection run for Weights & Biases; the plan's names go before ours.

Of the plan's, `train_loss` is that of the answers (its other parts stand beside it),
`reasoning_steps` is of the validation side, and `memory_used` the peak of the whole training, in
10^9 bytes.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import polars as pl

from fluoroscope.core.storage import read_json
from fluoroscope.runs.run import Run
from fluoroscope.runs.usage import shard_peaks
from fluoroscope.steps.wandb_runs import Logged, Values, training_id, training_tags
from fluoroscope.studies.connection.config import ConnectionConfig
from fluoroscope.studies.connection.report_findings import (
    Findings,
    SetFindings,
    scores_of_training,
)
from fluoroscope.studies.connection.steps.train import training_name
from fluoroscope.studies.connection.steps.training_loop import STATE, training_key

PROJECT = "Connection_Transformer"

_GB = 1e9
_NAMES = {"train_answer": "train_loss", "validation_steps": "reasoning_steps"}


def logged_trainings(
    run: Run, config: ConnectionConfig, found: Iterable[tuple[str, Findings]]
) -> Iterator[Logged]:
    """Every training of some steps, each with what was found in it."""
    for step, own in found:
        peaks, sets = shard_peaks(run.folder, step), {one.name: one for one in own.sets}
        for dataset, arm, seed in own.trainings.select("dataset", "arm", "seed").iter_rows():
            key = training_key(dataset, arm, seed)
            state = read_json(run.step_folder(step) / "shards" / key / STATE)
            measured = {"memory_used": peaks[key].bytes / _GB} if key in peaks else {}
            yield Logged(
                id=training_id(run, config, step, dataset, arm, seed),
                project=PROJECT,
                name=training_name(step, key),
                tags=training_tags(run, f"Step: {step}", f"Dataset: {dataset}", f"Arm: {arm}"),
                settings=_settings(config, step, state),
                curve=_curve(own.curves, dataset, arm, seed),
                test=_test(sets[dataset], arm, seed),
                summary={**_known(state["facts"] or {}), **measured},
            )


def _settings(config: ConnectionConfig, step: str, state: Values) -> Values:
    made = ("dataset", "arm", "seed", "reasoner", "parameters", "matched")
    return {
        **{name: state[name] for name in made},
        "step": step,
        **config.training.model_dump(mode="json"),
        "precision": config.precision,
        "data": config.data.model_dump(mode="json"),
    }


def _curve(
    curves: pl.DataFrame, dataset: str, arm: str, seed: int
) -> list[tuple[int, dict[str, Any]]]:  # Any: numbers.
    whose = ("dataset", "arm", "seed")
    rows = curves.filter(dataset=dataset, arm=arm, seed=seed).drop(whose).iter_rows(named=True)
    return [(int(row.pop("step")), _known(row)) for row in rows]


def _known(values: Values) -> dict[str, Any]:  # Any: numbers.
    """Without what other arms have and this one has not."""
    there = {name: value for name, value in values.items() if value is not None}
    return {_NAMES.get(name, name): value for name, value in there.items()}


def _test(one: SetFindings, arm: str, seed: int) -> dict[str, float]:
    losses = one.answers.filter(arm=arm, seed=seed)["loss"].cast(pl.Float64).to_list()
    return {"loss": sum(losses) / len(losses), **scores_of_training(one, arm, seed)}
