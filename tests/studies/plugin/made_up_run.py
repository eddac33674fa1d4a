"""The folder of a plug-in run that was never run: what its classifiers said is made up."""

import json

import numpy as np
import polars as pl
import torch

from fluoroscope.core.storage import write_json, write_parquet
from fluoroscope.runs.run import DONE, Run
from fluoroscope.studies.plugin.config import PluginConfig
from fluoroscope.studies.plugin.metrics import scores_of
from fluoroscope.studies.plugin.selection.features import LayerFeatures
from fluoroscope.studies.plugin.selection.ilm import IlmScores
from fluoroscope.studies.plugin.selection.methods import score_table
from fluoroscope.studies.plugin.steps.train import trainings
from fluoroscope.studies.plugin.steps.training_loop import STATE

N, N_GROUPS, N_LAYERS, SET = 400, 100, 4, "sst2"
CLASSES = ["negative", "positive"]


def made_up_config(**changes):
    said = {
        "datasets": [SET],
        "beside": ["base", "random_layer"],
        "seeds": 2,
        "seed": 0,
        "d_model": 8,
        "encoder_kind": "encoder",
        "max_length": 16,
        "precision": "float32",
        "d_layer": 8,
        "n_layers": N_LAYERS,
        **changes,
    }
    return PluginConfig(**said)


def made_up_run(folder, config, right, parts=None):
    """`right`: how likely an arm (by its key) is right; layer 2 was chosen by `ilm`."""
    for step in ("texts", "read", "select", "choose", "train"):
        write_json(folder / step / DONE, {})
    _selection(folder)
    write_json(
        folder / "texts" / "shards" / SET / "set.json",
        {
            "name": SET,
            "task": "classification",
            "classes": CLASSES,
            "sides": {side: {"negative": 200, "positive": 200} for side in ("train", "test")},
            "origins": {"train": "own", "test": "own"},
            "left_out": {"text twice": 3},
        },
    )
    run = Run(folder, "plugin", config)
    frames, scores, curves = [], [], []
    for one in trainings(run, config):
        frame = _predictions(one, right[one.arm.key], parts)
        frames.append(frame)
        numbers = scores_of(
            torch.tensor(frame["log_probs"].to_list()), torch.tensor(frame["label"].to_list())
        )
        scores.append({**one.params, "side": "test", "part": None, "n": N, **numbers})
        curves += _curve(one)
        write_json(folder / "train" / "shards" / one.key / STATE, {"best_epoch": 2, "steps": 20})
    write_parquet(folder / "train" / "predictions.parquet", pl.concat(frames))
    write_parquet(folder / "train" / "scores.parquet", pl.DataFrame(scores))
    write_parquet(folder / "train" / "curves.parquet", pl.DataFrame(curves))
    return run


def _predictions(one, chance, parts):
    luck = np.random.default_rng([one.seed, sum(map(ord, one.arm.key))])
    labels = np.arange(N) % 2
    predicted = np.where(luck.random(N) < chance, labels, 1 - labels)
    sure = np.log([[0.8, 0.2], [0.2, 0.8]])
    rows = pl.DataFrame(
        {
            "side": ["test"] * N,
            "id": [f"{i:04d}" for i in range(N)],
            "group": [f"group {i % N_GROUPS}" for i in range(N)],
            "part": parts or [""] * N,
            "label": labels,
            "predicted": predicted,
            "log_probs": sure[predicted].tolist(),
        }
    )
    layer = pl.lit(one.arm.layer, pl.Int64).alias("layer")
    keys = {"dataset": one.dataset, "arm": one.arm.name, "seed": one.seed}
    return rows.with_columns(*(pl.lit(value).alias(key) for key, value in keys.items()), layer)


def _curve(one):
    names = ("loss", "accuracy", "macro_f1", "macro_precision", "macro_recall", "mcc")
    return [
        {
            **one.params,
            "epoch": epoch,
            "step": 10 * epoch,
            "train_loss": 1.0 / epoch,
            "train_accuracy": 0.5,
            **{f"validation_{name}": 0.1 * epoch for name in names},
            "learning_rate": 1e-4,
            "is_stopped_early": epoch == 2,
        }
        for epoch in (1, 2)
    ]


def _selection(folder):
    luck = np.random.default_rng(0)
    rising = np.linspace(0.5, 0.8, N_LAYERS)
    nothing = np.full(N_LAYERS, np.nan)
    ilm = IlmScores(
        rising, np.full(N_LAYERS, 0.02), rising, rising, rising, nothing,
        np.array([1.0, 0.9, 0.8, 0.7]), np.array([0.5, 0.54, 0.6, 0.56]),
        luck.random((N_LAYERS, 3)),
    )  # fmt: skip
    shard = folder / "select" / "shards" / SET
    score_table(N_LAYERS, ilm=ilm, method="ilm").write(shard / "layer_scores.csv")
    write_json(shard / "components.json", luck.random((N_LAYERS, 3)).tolist())
    chosen = {"chosen": 2, "by": {"ilm": 2, "ilm_flat": 3, "last": 3, "middle": 2}}
    write_json(folder / "choose" / "choices.json", {SET: chosen})
    record = {"effects": [0.5, 0.54, 0.6, 0.56], "best_llm_layer": 2}
    write_json(folder / "choose" / "shards" / SET / "selection.json", record)
    states = tuple(torch.from_numpy(luck.normal(size=(20, 6))).float() for _ in range(N_LAYERS))
    labels = np.arange(20) % 2
    ids = tuple(f"train {i}" for i in range(20))
    features = LayerFeatures(states, labels, ids, np.array([0.1, 1.0, 2.0, 3.0], dtype=np.float32))
    features.write(folder / "read" / "shards" / SET / "features.safetensors")
    (folder / "events.jsonl").write_text(
        "\n".join(
            json.dumps(event)
            for event in (
                {"event": "shard finished", "time": 1.0, "step": "read", "shard": SET,
                 "seconds": 7},
                {"event": "message", "time": 10.0, "step": "select", "shard": SET,
                 "text": "Layers are scored: ILM."},
                {"event": "message", "time": 12.5, "step": "select", "shard": SET,
                 "text": "Layers are scored: texts."},
                {"event": "shard finished", "time": 16.0, "step": "select", "shard": SET,
                 "seconds": 6},
            )
        )
    )  # fmt: skip
