"""The plan's configuration files and its command line."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fluoroscope.core.config import parse_overrides
from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.connection.seed_config import REASONS, TAKEN, translate
from fluoroscope.studies.settings import study_spec

SCRIPTS = Path(__file__).parents[3] / "scripts" / "connection"
CONFIGS = sorted((SCRIPTS / "configs").glob("*.yaml"))


def spec_of(file: Path, *words: str):
    said = []
    return study_spec("connection", None, file, words, said.append), said


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_file_of_the_plan_is_read_and_each_key_is_answered_for(file):
    spec, said = spec_of(file)
    given = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert len(said) == len(given)
    assert spec.network.n_slots == given["num_slots"]
    assert spec.training.optimiser.floor == 0.1
    assert (spec.training.optimiser.schedule, spec.training.patience) == ("cosine", 5)


def test_the_plans_phases_are_all_there():
    names = {file.stem for file in CONFIGS}
    assert {f"nd_{n}_256" for n in (64, 128, 256, 512)} <= names
    assert {f"rank_{rank}" for rank in (8, 16, 32, 64)} <= names
    assert {"linear_baseline", "bilinear_base", "bilinear_large", "final_best"} <= names
    linear, _ = spec_of(SCRIPTS / "configs" / "linear_baseline.yaml")
    assert (linear.network.connection.name, linear.network.n_slots) == ("linear_slot", 256)
    large, _ = spec_of(SCRIPTS / "configs" / "bilinear_large.yaml")
    assert (large.network.d_model, large.network.connection.rank) == (512, 64)
    assert large.training.batch_size * large.training.accumulation == 64


def test_groups_of_the_plan_are_taken_apart():
    given = {
        "base_config": {"d_model": 64, "num_slots": 32},
        "optimization_config": {"bf16": True, "fp16": False, "num_workers": 4},
        "training_config": {"learning_rate": 1e-3, "scheduler": "linear_warmup_cosine"},
        "fixed_steps": 4,
        "dataset": "GSM8K",
    }
    ours, said = translate(given)
    assert ours["network"] == {
        "d_model": 64,
        "n_slots": 32,
        "max_steps": 4,
        "halting": {"name": "fixed"},
    }
    assert ours["training"]["precision"] == "bfloat16"
    assert ours["data"] == {"sets": ["GSM8K"]}
    assert any("num_workers has no effect" in sentence for sentence in said)


SIZES = {
    "base_config": {"train_batch": 32, "eval_batch": 64, "gradient_accumulation": 2},
    "large_config": {"train_batch": 16, "eval_batch": 32, "gradient_accumulation": 4},
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_batches_are_those_of_the_files_network(name):
    ours, said = translate({name: {"d_model": 64}, "batch_sizes": SIZES})
    assert ours["training"]["batch_size"] == SIZES[name]["train_batch"]
    assert ours["training"]["accumulation"] == SIZES[name]["gradient_accumulation"]
    assert ours["eval_batch"] == SIZES[name]["eval_batch"]
    (other,) = SIZES.keys() - {name}
    assert f"batch_sizes.{other} has no effect: the network is {name}." in said
    alone, _ = translate({"d_model": 64, "batch_sizes": {name: SIZES[name]}})
    assert alone == ours


def test_every_switch_of_precision_is_answered_for():
    ours, said = translate({"d_model": 8, "fp16": True, "bf16": False})
    assert ours["training"]["precision"] == "float16"
    assert [one.split()[0] for one in said] == ["d_model", "fp16", "bf16=False"]
    neither, said = translate({"fp16": False, "bf16": False})
    assert neither["training"]["precision"] == "float32"
    assert all("off too the pass is in float32" in one for one in said)
    assert "precision" not in translate({"d_model": 8, "fp16": False})[0]["training"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"fp16": True, "bf16": True}, "both true.*Set one to false"),
        ({"optimization_config": {"fp16": 1}, "bf16": True}, "both true"),
        ({"optimizer": "SGD"}, "optimizer is AdamW, got 'SGD'"),
        ({"d_model": 8, "batch_sizes": SIZES}, "does not say of which"),
        (
            {"large_config": {"d_model": 8}, "batch_sizes": {"base_config": {"train_batch": 4}}},
            "it has large_config",
        ),
        ({"num_slot": 3, "d_model": 8}, "Did you mean 'num_slots'"),
        ({"base_config": {"d_model": 8}, "d_model": 16}, "given twice"),
        (
            {"connection": "linear", "connection_type": "bilinear"},
            "connection=linear_slot and connection_type=bilinear are both network.connection.name",
        ),
        ({"N": 64, "num_slots": 128}, "N=64 and num_slots=128 are both network.n_slots"),
        ({"scheduler": "cyclic"}, "one of linear_warmup_cosine"),
        ({"decoder_layers": 6, "d_model": 8}, "no key 'decoder_layers'"),
    ],
)
def test_keys_of_nobody_are_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        translate(given)


def test_every_key_of_the_plan_is_either_taken_or_answered():
    assert not TAKEN.keys() & REASONS.keys()
    ours = {"network": {"d_model": 8}, "seeds": 1}
    assert translate(ours) == (ours, ())


def dry(*words: str) -> str:
    environment = {**os.environ, "DRY_RUN": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=SCRIPTS, env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_the_plans_command_is_a_run_of_the_study():
    words = ("train.py", "--config", "configs/nd_128_256.yaml", "--dataset", "LogiQA", "seeds=3")
    assert dry(*words) == (
        "fluoro run connection --config configs/nd_128_256.yaml 'arms=[slots]' seeds=1 "
        "'data.sets=[\"LogiQA\"]' seeds=3"
    )
    words = shlex.split(dry(*words[:-2], "file:my, own.csv"))
    assert parse_overrides(words[-1:]) == {"data": {"sets": ["file:my, own.csv"]}}


@pytest.mark.parametrize(
    "keys", [("max_reasoning_steps", "fixed_steps"), ("fixed_steps", "max_reasoning_steps")]
)
def test_a_fixed_number_of_steps_stands_whatever_the_order(keys):
    values = {"max_reasoning_steps": 6, "fixed_steps": 4}
    ours, _ = translate({key: values[key] for key in keys})
    assert ours["network"] == {"max_steps": 4, "halting": {"name": "fixed"}}
