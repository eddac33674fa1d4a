"""A finished run's trainings for Weights & Biases, under the plan's own names.

As they are written when the run is done, the choice of a layer, which comes before any training,
reaches the training that it was made for.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from fluoroscope.core.storage import read_json
from fluoroscope.runs.run import Run
from fluoroscope.steps.wandb_runs import Logged, Values, training_id, training_tags
from fluoroscope.studies.plugin.config import Arm, PluginConfig
from fluoroscope.studies.plugin.form import BASE
from fluoroscope.studies.plugin.report_findings import Findings, SetFindings
from fluoroscope.studies.plugin.report_trainings import file_name
from fluoroscope.studies.plugin.seed_layout import short_name
from fluoroscope.studies.plugin.steps.choose import CHOOSE, SELECTION
from fluoroscope.studies.plugin.steps.select import SCORES_CSV, SELECT
from fluoroscope.studies.plugin.steps.texts import set_key
from fluoroscope.studies.plugin.steps.train import SCORES, read_train

PROJECTS = {"classification": "PiFi_Classification", "entailment": "PiFi_TextualEntailment"}

_EPOCH = {
    "TRAIN/Epoch_Loss": "train_loss",
    "TRAIN/Epoch_Acc": "train_accuracy",
    "VALID/Epoch_Loss": "validation_loss",
    "VALID/Epoch_Acc": "validation_accuracy",
    "VALID/Epoch_F1": "validation_macro_f1",
    "Learning_Rate": "learning_rate",
    "Epoch_Index": "epoch",
}
_TEST = {
    "loss": "loss",
    "accuracy": "accuracy",
    "f1": "macro_f1",
    "precision": "macro_precision",
    "recall": "macro_recall",
    "mcc": "mcc",
}


@dataclass(frozen=True)
class LoggedSelection:
    dataset: str
    record: Values
    """selection.json."""

    files: Sequence[Path]
    figures: Mapping[str, Path]


def logged_trainings(run: Run, config: PluginConfig, found: Findings) -> Iterator[Logged]:
    """Every training of a run, in the order of data sets, arms and seeds."""
    scores = read_train(run, SCORES).filter(pl.col("side") == "test")
    if scores["part"].null_count() < len(scores):
        scores = scores.filter(pl.col("part").is_null())
    for one in found.sets:
        for arm in one.arms:
            for seed in config.all_seeds:
                test = _of(scores, one.name, arm, seed).row(0, named=True)
                epochs = _of(found.curves, one.name, arm, seed).iter_rows(named=True)
                chosen = _selection(run, config, one) if arm == one.main else None
                yield Logged(
                    id=training_id(run, config, one.name, arm.key, seed),
                    project=PROJECTS[one.about["task"]],
                    name=run_name(config, one.about["task"], one.name, arm, seed),
                    tags=training_tags(run, *_tags(config, one.name, arm)),
                    settings=_settings(config, one.name, arm, seed),
                    curve=[
                        (int(row["epoch"]), {name: row[column] for name, column in _EPOCH.items()})
                        for row in epochs
                    ],
                    test={name: test[column] for name, column in _TEST.items()},
                    more=None if chosen is None else partial(_write_selection, chosen),
                )


def run_name(config: PluginConfig, task: str, dataset: str, arm: Arm, seed: int) -> str:
    """As the plan has it: `{seed} {TASK} - {DATASET} / {MODEL} - {METHOD} - {LLM}({layer})`."""
    model, llm = short_name(config.model.source), short_name(config.llm.source)
    borrowed = "none" if arm.layer is None else f"{llm}({arm.layer})"
    method = _method(config, arm)
    return f"{seed} {task.upper()} - {dataset.upper()} / {model.upper()} - {method} - {borrowed}"


def _method(config: PluginConfig, arm: Arm) -> str:
    if arm.name == BASE:
        return "BASE"
    return "PIFI" if arm.name == config.variant == "faithful" else arm.name.upper()


def _tags(config: PluginConfig, dataset: str, arm: Arm) -> list[str]:
    tags = [
        "TRAIN",
        "TEST",
        f"Dataset: {dataset}",
        f"Model: {short_name(config.model.source)}",
        f"Method: {_method(config, arm).lower()}",
    ]
    if arm.layer is not None:
        tags += [f"LLM: {short_name(config.llm.source)}", f"LLM_Layer: {arm.layer}"]
    return tags


def _settings(config: PluginConfig, dataset: str, arm: Arm, seed: int) -> Values:
    training = config.training.model_dump(mode="json")
    return {
        "dataset": dataset,
        "arm": arm.name,
        "layer": arm.layer,
        "seed": seed,
        "model": config.model.source,
        "llm": None if arm.layer is None else config.llm.source,
        "pooling": config.model.pooling,
        "epochs": config.epochs,
        **training,
        "precision": config.precision,
        "max_length": config.max_length,
    }


def _selection(run: Run, config: PluginConfig, one: SetFindings) -> LoggedSelection | None:
    if not config.chooses:
        return None
    record, table = (
        run.step_folder(step) / "shards" / set_key(one.name) / name
        for step, name in ((CHOOSE, SELECTION), (SELECT, SCORES_CSV))
    )
    kinds = ("ranks", "ilm", "components", "pca")
    files = {kind: run.folder / "figures" / f"{kind}.{file_name(one.name)}.png" for kind in kinds}
    figures = {kind: file for kind, file in files.items() if file.exists()}
    return LoggedSelection(one.name, read_json(record), (record, table), figures)


def _of(frame: pl.DataFrame, dataset: str, arm: Arm, seed: int) -> pl.DataFrame:
    is_its = (pl.col("dataset") == dataset) & (pl.col("arm") == arm.name)
    is_its &= pl.col("layer").eq_missing(pl.lit(arm.layer)) & (pl.col("seed") == seed)
    return frame.filter(is_its)


def _write_selection(selection: LoggedSelection, logged: Any, step: int) -> None:  # Any: no stubs.
    import wandb

    effects, best = selection.record["effects"], selection.record["best_llm_layer"]
    rows: list[Any] = [[layer, effect] for layer, effect in enumerate(effects)]  # Any: as asked.
    images = {
        f"selection/{kind}": wandb.Image(str(file)) for kind, file in selection.figures.items()
    }
    table = wandb.Table(["layer", "effect"], rows)
    logged.log({"selection/effects_table": table, **images}, step=step)
    logged.summary.update({"best_llm_layer": best, "best_layer_effect": effects[best]})
    name = f"selection-{set_key(selection.dataset)}"
    artifact = wandb.Artifact(name, type="layer_selection")
    for file in selection.files:
        artifact.add_file(str(file))
    logged.log_artifact(artifact)
