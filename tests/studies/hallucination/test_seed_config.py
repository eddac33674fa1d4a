"""The plan's settings file: what it says is taken or answered, key by key."""

import re
import subprocess
import sys

import pytest
import yaml

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.hallucination.seed_config import (
    SeedSettings,
    is_seed_settings,
    translate,
)
from fluoroscope.studies.hallucination.study import HallucinationStudy
from fluoroscope.studies.settings import preset_files, study_spec

MEDIUM = """
project: {name: medium, version: 0.1.0, description: tracks}
model: {base_model: gpt2-medium, d_model: 1024, n_layers: 24, device: cuda}
sae: {architecture: jumprelu, d_model: 1024, d_hidden: 5120, threshold: 0.1, lambda_sparse: 0.01}
sae_training:
  epochs: 20
  batch_size: 128
  learning_rate: 1e-4
  weight_decay: 0.0
  gradient_clip: 1.0
  num_tokens: 1e8
  max_length: 512
  validation_every: 1000
  target_recon_loss: 0.01
  target_sparsity_min: 50
  target_sparsity_max: 100
tracking:
  top_k_features: 40
  semantic_weight: 0.6
  activation_weight: 0.2
  position_weight: 0.2
  association_threshold: 0.5
  birth_threshold: 0.5
  death_threshold: 0.1
  use_feature_id_matching: false
detection:
  entropy_threshold: 1.5
  churn_threshold: 0.3
  entropy_weight: 0.4
  churn_weight: 0.3
  ml_weight: 0.3
  threshold: 0.5
dataset:
  {primary: truthfulqa, split_train: 0.7, split_val: 0.15, split_test: 0.15, stratify_by: category}
paths:
  {data_dir: ./data, cache_dir: ./data/cache, models_dir: ./models, results_dir: ./results,
   logs_dir: ./logs}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "gpt2-medium.yaml"
    path.write_text(MEDIUM)
    return path


def spec_of(file, *overrides, preset=None):
    said = []
    spec = study_spec("hallucination", preset, file, overrides, said.append)
    return spec.model_dump(), said


def test_the_plans_file_is_the_study_that_it_describes(file):
    spec, _ = spec_of(file)
    assert spec["model"]["source"] == "openai-community/gpt2-medium"
    train = spec["train"]
    assert (train["sae"]["architecture"], train["sae"]["d_sae"]) == ("jumprelu", 5120)
    assert train["sae"]["target_l0"] == 75
    assert train["n_tokens"] == 20 * 100_000_000
    assert train["corpus"]["source"] == "hf:wikimedia/wikipedia"
    assert train["corpus"]["take"] == "first:200000"
    assert train["corpus"]["context"] == 512
    assert train["training"]["batch_size"] == 128
    assert train["training"]["learning_rate"] == 1e-4
    assert train["training"]["validate_every"] == 1000
    # A quarter of the layers in one loop: four GPUs have six each.
    assert train["hook_points_per_loop"] == 6
    assert spec["tracking"]["top"] == 40
    assert (spec["data"]["name"], spec["data"]["answers"]) == ("truthfulqa", "stated")


def test_every_key_of_the_plan_is_answered_once(file):
    _, said = spec_of(file)
    text = "\n".join(said)
    given = yaml.safe_load(MEDIUM)
    for section, keys in given.items():
        for key in keys:
            name = f"{section}.{key}"
            found = len(re.findall(rf"(?<![\w.]){re.escape(name)}(?!\w)", text))
            # These two are said in the line of another.
            assert found == 1 or key in ("epochs", "target_sparsity_max"), name
    assert "sae_training.num_tokens x epochs -> train.n_tokens=2000000000" in text
    assert "death_threshold: nothing ever used it" in text
    assert "d_model: it is read from the model" in text


def test_keys_that_were_not_given_are_not_spoken_of(tmp_path):
    path = tmp_path / "short.yaml"
    path.write_text("model: {base_model: some/model}\n")
    spec, said = spec_of(path)
    assert spec["model"]["source"] == "some/model"
    assert not any(note.startswith("Not taken") for note in said)
    assert "d_hidden" not in said[0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sae: {d_hiden: 5120}", r"'sae\.d_hiden' does not exist\. Did you mean 'd_hidden'"),
        ("sae_trainig: {epochs: 2}", r"'sae_trainig' does not exist\. Did you mean 'sae_training'"),
        ("dataset: {primary: trutfulqa}", r"Did you mean 'truthfulqa'"),
        ("sae_training: {epochs: none}", r"'sae_training\.epochs'"),
        ("tracking: 5", "'tracking'"),
    ],
)
def test_an_unknown_key_is_an_error_with_the_nearest_name(tmp_path, line, said):
    path = tmp_path / "bad.yaml"
    path.write_text(f"model: {{base_model: gpt2}}\n{line}\n")
    with pytest.raises(ConfigError, match=said):
        spec_of(path)


def test_the_model_is_needed(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("sae_training: {epochs: 2}\n")
    with pytest.raises(ConfigError, match="'model' is needed"):
        spec_of(path)


@pytest.mark.parametrize(
    ("said", "architecture", "aim"),
    [
        ("JumpReLU", "jumprelu", {"target_l0": 30}),
        ("topk", "topk", {"k": 30}),
        ("batch_topk", "batch_topk", {"k": 30}),
        ("relu", "relu", {}),
    ],
)
def test_an_architecture_gets_the_sparsity_that_it_can_aim_at(tmp_path, said, architecture, aim):
    path = tmp_path / "one.yaml"
    path.write_text(
        f"model: {{base_model: gpt2}}\nsae: {{architecture: {said}}}\n"
        "sae_training: {target_sparsity_min: 20, target_sparsity_max: 40}\n"
    )
    spec, notes = spec_of(path)
    sae = spec["train"]["sae"]
    assert sae["architecture"] == architecture
    assert {name: sae[name] for name in ("target_l0", "k") if name in sae} == aim
    assert ("no target" in "".join(notes)) == (architecture == "relu")


def test_what_stands_on_the_command_line_wins_over_the_file(file):
    spec, _ = spec_of(file, "train.n_tokens=5000", "data.path=here", "model.dtype=bfloat16")
    assert spec["train"]["n_tokens"] == 5000
    assert spec["data"]["path"] == "here"
    assert spec["model"] == {
        "source": "openai-community/gpt2-medium",
        "dtype": "bfloat16",
        "revision": None,
    }


def test_our_own_files_are_left_as_they_are():
    ours = [path for name, path in preset_files().items() if name.startswith("hallucination/")]
    assert len(ours) >= 2
    for path in ours:
        settings = yaml.safe_load(path.read_text())
        assert not is_seed_settings(settings)
        assert translate(settings) == (settings, ())
        spec, said = spec_of(path)
        assert said == []
        assert spec["model"]["source"]


def test_every_setting_that_is_not_taken_has_its_reason():
    """No field of the plan is read and then forgotten."""
    everything = yaml.safe_load(MEDIUM)
    for name, field in SeedSettings.model_fields.items():
        assert set(field.annotation.model_fields) == set(everything[name]), name


def test_what_was_taken_is_said_once_and_the_study_takes_it(file, capsys):
    spec = study_spec("hallucination", None, file, [])
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("tracking.death_threshold: nothing ever used it.") == 1
    config = HallucinationStudy().sketch(spec)
    assert len(config.points) == 24
    assert set(config.widths) == {5120}
    # Four loops of six layers: a GPU has a quarter of them.
    assert [len(plans) for plans in config.train.groups.values()] == [6, 6, 6, 6]


def test_reading_a_settings_file_needs_no_torch(file):
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from fluoroscope.studies.settings import study_spec\n"
        f"study_spec('hallucination', None, Path({str(file)!r}), [])\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, stderr=subprocess.DEVNULL)
    assert done.returncode == 0
