"""The plug-in study at its smallest: a tiny encoder, a tiny large model, and tables of texts in
which a word tells the class.
"""

from pathlib import Path

import numpy as np
import polars as pl

from fluoroscope.core.config import build
from fluoroscope.core.storage import sha256_folder
from fluoroscope.models.tiny import tiny_model
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.runs.run import Run
from fluoroscope.studies.plugin.spec import PluginSpec
from fluoroscope.studies.plugin.study import PluginStudy

STEPS = ("texts", "read", "select", "choose", "train")
WORDS = {"bad": ("dull", "grim", "sour"), "good": ("fine", "warm", "glad"), "so": ("so", "meh")}


def write_table(path: Path, n: int = 120, classes: tuple[str, ...] = ("bad", "good"), seed=0):
    """A csv of its own, whose rows are all different."""
    luck = np.random.default_rng(seed)
    labels = [classes[i % len(classes)] for i in range(n)]
    texts = [
        f"{luck.choice(WORDS[label])} {luck.choice(list('abcdefgh'))} {i}"
        for i, label in enumerate(labels)
    ]
    pl.DataFrame({"text": texts, "label": labels}).write_csv(path)
    return path


def write_model(folder: Path, family: str, **changes: object) -> Path:
    model = tiny_model(family, **changes)
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def write_material(folder: Path) -> Path:
    """`encoder`, `llm`, `texts.csv`, `other.csv` and `three.csv` in a folder."""
    write_model(folder / "encoder", "bert")
    write_model(folder / "llm", "llama")
    write_table(folder / "texts.csv")
    write_table(folder / "other.csv", 60, seed=1)
    write_table(folder / "three.csv", 90, ("bad", "good", "so"))
    return folder


def small_settings(material: Path, **changes: object) -> dict[str, object]:
    return {
        "model": {"source": str(material / "encoder"), "pooling": "cls"},
        "llm": str(material / "llm"),
        "datasets": [f"file:{material / 'texts.csv'}"],
        "epochs": 2,
        "seeds": 1,
        "beside": ["base"],
        "selection": {"n_samples": 60, "also": [], "ilm": {"n_samples": 40}},
        "training": {"batch_size": 16, "max_length": 24, "precision": "float32"},
        "outputs": {"cache": str(material / "layers")},
        **changes,
    }


def small(material: Path, **changes: object) -> PluginSpec:
    return build(PluginSpec, small_settings(material, **changes))


def run_small(material: Path, root: Path, name: str = "small", how=None, **changes) -> Run:
    how = how or How(devices="cpu", retries=0)
    return execute(PluginStudy(), small(material, **changes), name, how, root=root)


def step_bytes(run: Run, *names: str) -> dict[str, str]:
    """Hashes of all that steps and tables hold."""
    folders = [run.folder / name for name in names or (*STEPS, "tables")]
    return {one.name: sha256_folder(one) for one in folders if one.exists()}
