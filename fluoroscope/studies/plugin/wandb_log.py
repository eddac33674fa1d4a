"""A finished run's trainings for Weights & Biases, under the plan's own names; offline by default.

Written from the run when it is done, so that a training that was killed and went on is one run
there, and the choice of a layer, which comes before any training, reaches it. JSON lines of the
same are in events.jsonl in any case. Ids are of the run and the training: writing again replaces
what is offline, and what was sent already is not sent twice.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import polars as pl

from fluoroscope.core.config import settings_hash, what_half
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.storage import read_json
from fluoroscope.runs.record import FILE, read_record
from fluoroscope.runs.run import Run
from fluoroscope.studies.plugin.config import Arm, PluginConfig
from fluoroscope.studies.plugin.form import BASE
from fluoroscope.studies.plugin.report_findings import Findings, SetFindings
from fluoroscope.studies.plugin.report_trainings import file_name
from fluoroscope.studies.plugin.seed_layout import short_name
from fluoroscope.studies.plugin.steps.choose import CHOOSE, SELECTION
from fluoroscope.studies.plugin.steps.select import SCORES_CSV, SELECT
from fluoroscope.studies.plugin.steps.texts import set_key
from fluoroscope.studies.plugin.steps.train import SCORES, read_train

FOLDER = "wandb"
PROJECTS = {"classification": "PiFi_Classification", "entailment": "PiFi_TextualEntailment"}

_LONGEST_TAG = 64
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

Values = Mapping[str, Any]  # Any: numbers and texts of tables.


@dataclass(frozen=True, kw_only=True)
class Logged:
    """One training as it is written there."""

    id: str
    project: str
    name: str
    tags: tuple[str, ...]
    settings: Values
    epochs: Sequence[Values]
    test: Values
    selection: "LoggedSelection | None"
    """With the main arm alone."""


@dataclass(frozen=True)
class LoggedSelection:
    dataset: str
    record: Values
    """selection.json."""

    files: Sequence[Path]
    figures: Mapping[str, Path]


def check_wandb() -> None:
    """Raises `ConfigError` where the package is not installed or WANDB_MODE is none; to be asked
    before training.
    """
    if find_spec("wandb") is None:
        raise ConfigError(
            "outputs.wandb=true needs the package wandb, which is not installed here: "
            "`pip install 'fluoroscope[wandb]'`. Without it, events.jsonl of the run has the same "
            "numbers."
        )
    _mode()


def write_wandb(run: Run, config: PluginConfig, found: Findings) -> int:
    """Into `wandb/` in the run's folder; the number of runs there. Not sent anywhere, unless
    WANDB_MODE is `online`; WANDB_PROJECT and WANDB_ENTITY go before the plan's own names.
    """
    check_wandb()
    all_logged = list(logged_trainings(run, config, found))
    shutil.rmtree(run.folder / FOLDER / "data", ignore_errors=True)
    with _environment(run.folder / FOLDER):
        for one in all_logged:
            _write(run, one)
    return len(all_logged)


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Artifacts wait in the run's folder, not in the user's home; the package's own errors are
    told to nobody.
    """
    wanted = {"WANDB_DATA_DIR": str(folder / "data"), "WANDB_ERROR_REPORTING": "false"}
    missing = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]


def _mode() -> Literal["online", "offline", "disabled"]:
    mode = os.environ.get("WANDB_MODE") or "offline"
    if mode not in ("online", "offline", "disabled"):
        raise ConfigError(f"WANDB_MODE is online, offline or disabled, got {mode!r}.")
    return mode


def logged_trainings(run: Run, config: PluginConfig, found: Findings) -> Iterator[Logged]:
    """Every training of a run, in the order of data sets, arms and seeds."""
    scores = read_train(run, SCORES).filter(pl.col("side") == "test")
    if scores["part"].null_count() < len(scores):
        scores = scores.filter(pl.col("part").is_null())
    for one in found.sets:
        for arm in one.arms:
            for seed in config.all_seeds:
                test = _of(scores, one.name, arm, seed).row(0, named=True)
                yield Logged(
                    id=_id(run, config, one.name, arm, seed),
                    project=os.environ.get("WANDB_PROJECT") or PROJECTS[one.about["task"]],
                    name=run_name(config, one.about["task"], one.name, arm, seed),
                    tags=_tags(run, config, one.name, arm),
                    settings=_settings(config, one.name, arm, seed),
                    epochs=[
                        {name: row[column] for name, column in _EPOCH.items()}
                        for row in _of(found.curves, one.name, arm, seed).iter_rows(named=True)
                    ],
                    test={name: test[column] for name, column in _TEST.items()},
                    selection=_selection(run, config, one) if arm == one.main else None,
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


def _tags(run: Run, config: PluginConfig, dataset: str, arm: Arm) -> tuple[str, ...]:
    is_recorded = (run.folder / FILE).exists()
    code = (read_record(run.folder).provenance.get("code") or {}) if is_recorded else {}
    tags = [
        "TRAIN",
        "TEST",
        f"Dataset: {dataset}",
        f"Model: {short_name(config.model.source)}",
        f"Method: {_method(config, arm).lower()}",
    ]
    if arm.layer is not None:
        tags += [f"LLM: {short_name(config.llm.source)}", f"LLM_Layer: {arm.layer}"]
    if code:
        tags.append(f"GIT:{str(code['revision'])[:7]}")
    return tuple(tag[:_LONGEST_TAG] for tag in tags)


def _id(run: Run, config: PluginConfig, dataset: str, arm: Arm, seed: int) -> str:
    what = [run.name, what_half(config), dataset, arm.key, seed]
    return hashlib.sha256(settings_hash(what).encode()).hexdigest()[:16]


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


def _write(run: Run, one: Logged) -> None:
    import wandb

    for old in (run.folder / FOLDER).glob(f"offline-run-*-{one.id}"):
        shutil.rmtree(old)
    logged = wandb.init(
        project=one.project,
        entity=os.environ.get("WANDB_ENTITY") or None,
        id=one.id,
        name=one.name,
        group=run.name,
        tags=one.tags,
        config=dict(one.settings),
        dir=str(run.folder),
        mode=_mode(),
        resume="allow",
        reinit="create_new",
        settings=wandb.Settings(
            silent=True, console="off", disable_git=True, x_disable_stats=True, x_disable_meta=True
        ),
    )
    with logged:
        # A step that is there already is not taken again.
        for values in one.epochs:
            logged.log(dict(values), step=int(values["Epoch_Index"]))
        last = int(one.epochs[-1]["Epoch_Index"]) + 1
        logged.log(
            {
                **{f"TEST/{name}": value for name, value in one.test.items()},
                "TEST_Result": wandb.Table(list(one.test), [list(one.test.values())]),
            },
            step=last,
        )
        logged.summary.update({f"TEST/{name}": value for name, value in one.test.items()})
        if one.selection is not None:
            _write_selection(logged, one.selection, last + 1)


def _write_selection(logged: Any, selection: LoggedSelection, step: int) -> None:  # Any: no stubs.
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
