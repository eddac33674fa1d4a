"""Defects of the authors' code, each of which is shown to be absent here, in the order in which
the plan's critique lists them. Those that other tests show:

layer called with a mask of +1     test_one_token: it_is_the_real_layer_on_a_sequence_of_one_token
output indexed as a tuple          test_whole_layer: the_stream_is_found_in_whatever_a_layer_ret...
first token of a decoder pooled    test_plug_bad_input, test_pooling, test_layer_features
pads seen in sequence mode         test_plugs: a_plug_of_sequences_sees_what_is_before_and_no_pa...
the whole large model in memory    test_layer_loading: no_more_than_twice_a_layer_is_in_memory
frozen weights in checkpoints      test_plug_study: what_is_saved_is_what_learnt_and_the_layers...
segments by a list of names        test_encoders: segments_count_where_tokenizer_and_network_kno...
cache keyed by neither length      test_labelled_encoding: the_cache_gives_the_same_and_is_anoth...
split by order of calls            test_labelled_splitting: what_is_drawn_depends_on_the_seed_an...
literal [SEP] between texts        test_layer_features: pairs_are_joined_by_a_newline_or_as_the...
matched side of MNLI unused        test_labelled_sets: both_sides_of_mnli_are_parts_of_the_test...
metrics averaged over batches      test_plug_metrics: the_whole_side_is_not_the_mean_of_its_batches
patience that cannot act           test_plug_training: patience_counts_epochs_without_a_better_one
layers chosen on the test side     test_selection_leak
a middle layer taken unseen        test_layer_methods: last_and_middle_need_no_scores_and_others...
a missing padding token            test_layer_features: a_tokenizer_without_padding_is_no_hindrance
last states behind the final norm  test_layer_features: the_last_layer_is_before_the_final_norm_...
components out of the score        test_ilm: the_manual_scores_are_those_of_the_components_...
depth rewards negative scores      test_ilm: depth_pays_for_a_negative_score_in_the_code_as_in_t...
left-out layers score 0            test_ilm: layers_that_are_left_out_score_0_in_the_code_and_ar...
the test set's default overwritten test_seed_scripts: what_is_tested_besides_is_only_what_was_asked
the choice missing in W&B          test_wandb_log: the_choice_of_a_layer_reaches_the_main_arm_alone
every tensor watched               test_wandb_log: every_number_of_a_training_is_written
resumed epochs in the first order  test_plug_killed, test_plug_training
resume at ends of epochs alone     test_plug_killed
chosen again at every resume       test_plug_killed
another seed taken for done        test_plug_study: the_plans_files_are_written_and_another_...
random states not restored         test_plug_training: put_down_at_any_one_step_it_goes_on_to_th...
"""

import math
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from plug_toys import sgd, toy_classifier, toy_config, toy_side, toy_trainer
from small_plug_study import run_small, small, small_settings, write_model

from fluoroscope.core.storage import read_json
from fluoroscope.core.tensors import read_tensors
from fluoroscope.models.encoder_names import ENCODERS
from fluoroscope.runs.run import Run
from fluoroscope.studies.plugin.metrics import scores_of
from fluoroscope.studies.plugin.predicting import predict
from fluoroscope.studies.plugin.selection.features import LayerFeatures
from fluoroscope.studies.plugin.selection.ilm import ilm_scores
from fluoroscope.studies.plugin.selection.ilm_config import IlmConfig
from fluoroscope.studies.plugin.study import PluginStudy
from fluoroscope.studies.settings import study_spec

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def last_layer(small_material: Path, tmp_path_factory) -> tuple[Run, Path]:
    """A run of layer -1 with the plan's files beside it."""
    root = tmp_path_factory.mktemp("last")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fluoroscope.runs.report.save_chart", lambda *_: None)
        outputs = {name: str(root / name) for name in ("models", "checkpoints", "preprocessed")}
        changes = {"mode": "pifi", "layer": -1, "outputs": outputs, "epochs": 1}
        training = {**small_settings(small_material)["training"], "label_smoothing": 0.3}
        return run_small(small_material, root, **changes, training=training), root


def test_the_last_layer_has_its_own_number_wherever_it_is_written(last_layer, small_material):
    run, root = last_layer
    assert run.config.layer == 2
    scores = pl.read_parquet(run.step_folder("train") / "scores.parquet")
    assert set(scores.filter(arm="faithful")["layer"]) == {2}
    (model,) = (root / "models").rglob("final_model.safetensors")
    assert model.parent.name == "2"
    assert read_json(model.parent / "state.json")["made_of"]["layer"]["layer"] == 2
    counted = PluginStudy().resolve(small(small_material, mode="pifi", layer=2))
    assert counted.layer == run.config.layer


def test_no_file_of_a_run_is_a_pickle(last_layer):
    run, root = last_layer
    files = [one for folder in (run.folder, root) for one in folder.rglob("*") if one.is_file()]
    assert len(files) > 20
    assert not [one for one in files if one.suffix in (".pt", ".pth", ".bin", ".pkl", ".pickle")]
    # What torch.save writes is a zip file, and a pickle by itself begins with its protocol.
    assert not [one for one in files if zipfile.is_zipfile(one)]
    assert not [one for one in files if one.read_bytes()[:1] == b"\x80"]


def test_reported_losses_are_without_label_smoothing(last_layer):
    run, _ = last_layer
    train = run.step_folder("train")
    said = pl.read_parquet(train / "predictions.parquet").filter(arm="faithful")
    for side in ("validation", "test"):
        rows = said.filter(side=side)
        plain = -np.mean([row[label] for row, label in zip(rows["log_probs"], rows["label"])])  # noqa: B905
        score = pl.read_parquet(train / "scores.parquet").filter(arm="faithful", side=side)
        assert score["loss"][0] == pytest.approx(plain)
    curve = pl.read_parquet(train / "curves.parquet").filter(arm="faithful")
    validation = pl.read_parquet(train / "scores.parquet").filter(arm="faithful", side="validation")
    assert curve["validation_loss"][0] == pytest.approx(validation["loss"][0])


def test_smoothing_is_of_what_is_learnt_and_not_of_what_is_judged():
    config = toy_config({"learning_rate": 1e-12, "new_learning_rate": 1e-12}, label_smoothing=0.5)
    row = toy_trainer(config, epochs=1, dropout=0.0).train().curve[0]
    side = toy_side(20, 1)
    logits = predict(
        toy_classifier(dropout=0.0), side, batch_size=8, device="cpu", precision="float32"
    )
    plain = scores_of(logits, torch.from_numpy(side.labels))["loss"]
    assert row["validation_loss"] == pytest.approx(plain, rel=1e-5)


def test_a_text_may_be_as_long_as_the_encoder_reads_and_no_longer(small_material, tmp_path):
    """Of KcBERT's 300 positions the plan's code knows by its name alone."""
    write_model(tmp_path / "short", "bert", max_position_embeddings=20)
    changes = {
        "mode": "base",
        "model": str(tmp_path / "short"),
        "training": {**small_settings(small_material)["training"], "max_length": 300},
        "epochs": 1,
    }
    assert PluginStudy().resolve(small(small_material, **changes)).max_length == 20
    frame = pl.read_csv(small_material / "texts.csv")
    frame = frame.with_columns(text=pl.col("text") + " and so on and so forth")
    frame.write_csv(tmp_path / "long.csv")
    run_small(small_material, tmp_path, **changes, datasets=[f"file:{tmp_path / 'long.csv'}"])


def test_every_encoder_of_the_manual_is_a_repository_of_its_own():
    assert len(set(ENCODERS.values())) == len(ENCODERS) == 11
    assert ENCODERS["roberta-large"] == "FacebookAI/roberta-large"


def test_pairs_may_have_a_layer_that_learns(small_material, tmp_path):
    """The plan's code freezes it in entailment, whatever it is told."""
    frame = pl.read_csv(small_material / "texts.csv")
    pairs = frame.select("label", premise="text", hypothesis=pl.col("text").str.reverse())
    pairs.write_csv(tmp_path / "pairs.csv")
    changes = {"mode": "pifi", "layer": 0, "beside": [], "epochs": 1}
    changes["datasets"] = [f"file:{tmp_path / 'pairs.csv'}"]
    run = run_small(small_material, tmp_path, **changes, variant="unfrozen")
    (file,) = run.step_folder("train").rglob("trained.safetensors")
    layer = {name: one for name, one in read_tensors(file).items() if "plug.middle.layer" in name}
    about = read_json(file.parent / "state.json")["made_of"]
    assert about["form"]["tuning"] == "unfrozen"
    assert layer
    lent = torch.cat([one.flatten() for one in layer.values()])
    own = read_tensors(small_material / "llm" / "model.safetensors")
    known = {tuple(one.shape) for name, one in own.items() if name.startswith("model.layers.0.")}
    assert {tuple(one.shape) for one in layer.values()} & known
    assert bool(lent.isfinite().all())


def test_flags_of_the_plan_that_do_nothing_are_known_to_do_nothing():
    """Its second ranking goes by the same numbers as the first; patches are of an older version."""
    luck, labels = np.random.default_rng(0), np.arange(40) % 2
    states = tuple(
        torch.from_numpy(luck.normal(size=(40, 6)) + labels[:, None]).float() for _ in range(3)
    )
    features = LayerFeatures(states, labels, tuple(f"{i:02d}" for i in range(40)), np.ones(3))
    plain = ilm_scores(features, IlmConfig(), 0)
    other = ilm_scores(features, IlmConfig(topk_rerank=1, patch_lambda=(2.0,)), 0)
    np.testing.assert_array_equal(plain.final, other.final)


def test_the_sound_preset_has_what_the_papers_lacks_and_the_papers_is_as_published():
    sound, paper = (study_spec("plugin", name, None, []) for name in ("sound", "paper"))
    rates = sound.training.optimiser
    assert rates.warmup_share > 0
    assert rates.new_learning_rate > rates.learning_rate
    assert rates.schedule != "constant"
    assert sound.seeds >= 3
    assert sound.training.patience < sound.epochs
    assert {"base", "random_layer", "permuted_layer", "linear", "mlp"} <= set(sound.beside)
    own = paper.training.optimiser
    assert (own.name, own.learning_rate, own.new_learning_rate) == ("adam", 5e-5, None)
    assert (own.warmup_share, own.schedule, own.weight_decay, own.clip) == (0, "constant", 0, 5)
    training = paper.training
    assert (paper.epochs, paper.seed, paper.split) == (3, 2023, "paper")
    assert (training.batch_size, training.max_length, training.label_smoothing) == (32, 100, 0.05)
    assert (training.dropout, training.drop_last, training.patience) == (0.2, True, 5)


def test_rates_of_the_encoder_and_of_what_is_new_are_told_apart():
    trainer = toy_trainer(toy_config(sgd(0.05) | {"new_learning_rate": 0.1}), epochs=1)
    trainer.advance(0)
    rates = {group["lr"] for group in trainer._optimiser.param_groups}
    assert len(rates) == 2
    assert math.isclose(max(rates) / min(rates), 2)


@pytest.mark.parametrize("mode", ["base", "pifi"])
def test_labels_that_texts_do_not_tell_are_told_by_chance(small_material, tmp_path, mode):
    luck = np.random.default_rng(5)
    frame = pl.read_csv(small_material / "texts.csv")
    frame = pl.concat([frame, frame.with_columns(text=pl.col("text") + " too")])
    labels = luck.permutation(frame["label"].to_numpy())
    sides = ["train"] * 120 + ["dev"] * 40 + ["test"] * 80
    frame.with_columns(label=labels, split=luck.permutation(sides)).write_csv(tmp_path / "luck.csv")
    optimiser = {"learning_rate": 1e-3, "new_learning_rate": 3e-3}
    training = {**small_settings(small_material)["training"], "optimiser": optimiser}
    changes = {"mode": mode, "beside": [], "epochs": 4, "training": training}
    run = run_small(small_material, tmp_path, **changes, datasets=[f"file:{tmp_path / 'luck.csv'}"])
    scores = pl.read_parquet(run.step_folder("train") / "scores.parquet").filter(side="test")
    # Four standard errors of a fair coin.
    assert abs(scores["accuracy"][0] - 0.5) < 4 * 0.5 / math.sqrt(scores["n"][0])
