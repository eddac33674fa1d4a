"""The files of the plan, in its own folders, beside those of the run.

CHECKPOINTS/TASK/DATASET/POOLING/MODEL/METHOD/LLM/LAYER/checkpoint.safetensors, state.json
MODELS/...the same.../final_model.safetensors, state.json
RESULTS/layer_selection/TASK/DATASET/MODEL/LLM/selection.json, layer_scores.csv

The paths of the plan do not say the seed, nor any setting; a second training would be taken for
the first. A folder that holds another training is left as it is, and the new one goes to
`run-HASH` below it.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fluoroscope.core.config import settings_hash, what_half
from fluoroscope.core.storage import atomic_path, read_json, sha256_file, write_json
from fluoroscope.runs.run import Run
from fluoroscope.studies.plugin.config import PluginConfig
from fluoroscope.studies.plugin.steps.choose import CHOOSE, SELECTION, chosen_layer
from fluoroscope.studies.plugin.steps.loaded import texts_of
from fluoroscope.studies.plugin.steps.select import SCORES_CSV, SELECT
from fluoroscope.studies.plugin.steps.texts import set_key
from fluoroscope.studies.plugin.steps.train import TRAIN
from fluoroscope.studies.plugin.steps.training_loop import STATE, TRAINED, Training

CHECKPOINT, FINAL = "checkpoint.safetensors", "final_model.safetensors"


def write_seed_layout(run: Run, config: PluginConfig) -> list[Path]:
    """Copies what `config.outputs` asks for; the folders that were written."""
    return [*_models(run, config), *_selections(run, config)]


def _models(run: Run, config: PluginConfig) -> Iterator[Path]:
    outputs = config.outputs
    roots = [(outputs.checkpoints, CHECKPOINT), (outputs.models, FINAL)]
    for dataset in config.datasets:
        arm = config.main_arm(chosen_layer(run, config, dataset))
        for seed in config.all_seeds:
            shard = run.step_folder(TRAIN) / "shards" / Training(dataset, arm, seed).key
            if not (shard / TRAINED).exists():
                continue
            state = {**read_json(shard / STATE), "run": run.name}
            state["training"] = settings_hash([_deciding(config), dict(run.sources), dataset, seed])
            for root, name in roots:
                if root is None:
                    continue
                folder = _free(Path(root).expanduser() / _path(run, config, dataset), state)
                with atomic_path(folder / name) as temporary:
                    shutil.copyfile(shard / TRAINED, temporary)
                write_json(folder / STATE, state)
                yield folder


def _path(run: Run, config: PluginConfig, dataset: str) -> Path:
    layer = chosen_layer(run, config, dataset)
    is_base = layer is None
    return Path(
        texts_of(run, dataset).task,
        set_key(dataset),
        config.model.pooling,
        short_name(config.model.source),
        "base" if is_base else "pifi",
        "none" if is_base else short_name(config.llm.source),
        "none" if is_base else str(layer),
    )


def _free(folder: Path, state: dict[str, Any]) -> Path:  # Any: JSON values.
    """The folder itself, or one below it where another training is in it."""
    there = folder / STATE
    if not there.exists() or read_json(there).get("training") == state["training"]:
        return folder
    return folder / f"run-{state['training'][:8]}"


def _deciding(config: PluginConfig) -> dict[str, Any]:  # Any: JSON values.
    """What the main arm of a data set depends on; what is trained beside it changes nothing. The
    run's first seed is a part of it, as sides and samples are drawn by it.
    """
    other = ("beside", "datasets", "seeds", "keep", "test_on")
    return {name: value for name, value in what_half(config).items() if name not in other}


def _selections(run: Run, config: PluginConfig) -> Iterator[Path]:
    if config.outputs.results is None or not config.chooses:
        return
    for dataset in config.datasets:
        folder = Path(
            Path(config.outputs.results).expanduser(),
            "layer_selection",
            texts_of(run, dataset).task,
            set_key(dataset),
            short_name(config.model.source),
            short_name(config.llm.source),
        )
        sources = [
            run.step_folder(step) / "shards" / set_key(dataset) / name
            for step, name in ((CHOOSE, SELECTION), (SELECT, SCORES_CSV))
        ]
        own = settings_hash([sha256_file(source) for source in sources])
        if any((folder / source.name).exists() and not _same(folder, source) for source in sources):
            folder = folder / f"run-{own[:8]}"
        for source in sources:
            name = source.name
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(source, temporary)
        yield folder


def _same(folder: Path, source: Path) -> bool:
    return sha256_file(folder / source.name) == sha256_file(source)


def short_name(source: str) -> str:
    """A key as it is; of a hub id or a folder, the last part."""
    return Path(source).name or "model"
