"""A training learns, goes on bit for bit wherever it was put down, and keeps its best epoch."""

import math

import pytest
import torch
from accelerate.state import AcceleratorState
from plug_toys import toy_classifier, toy_config, toy_side, toy_trainer

from fluoroscope.core.errors import ConfigError, CorpusError, NumericsError
from fluoroscope.core.sink import Sink
from fluoroscope.core.tensors import read_state, write_state
from fluoroscope.models.training.rates import rate_share
from fluoroscope.studies.plugin.form import Form
from fluoroscope.studies.plugin.metrics import SCORES, scores_of
from fluoroscope.studies.plugin.optimising import new_optimiser
from fluoroscope.studies.plugin.predicting import predict
from fluoroscope.studies.plugin.schedule import steps_of_training
from fluoroscope.studies.plugin.training import PlugTrainer
from fluoroscope.studies.plugin.training_config import OptimiserConfig, TrainingConfig


class Said(Sink):
    def __init__(self):
        self.numbers, self.sentences = [], []

    def metrics(self, step, values):
        self.numbers.append((step, dict(values)))

    def message(self, text):
        self.sentences.append(text)


def same(one, other):
    """Bit for bit."""
    assert one.tensors.keys() == other.tensors.keys()
    assert one[1:] == other[1:]
    return all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


def test_a_separable_problem_is_learnt():
    trainer = PlugTrainer(
        toy_classifier(),
        {"train": toy_side(96), "validation": toy_side(60, 1)},
        toy_config(),
        epochs=12,
        seed=1,
        device="cpu",
    )
    found = trainer.train()
    assert max(row["validation_accuracy"] for row in found.curve) > 0.95
    assert found.curve[0]["validation_accuracy"] < 0.8


def resumed_after_every_step(config, path, **changes):
    trainer = toy_trainer(config, **changes)
    for step in range(trainer.n_iterations):
        trainer.advance(step)
        write_state(path, trainer.state())
        trainer = toy_trainer(config, **changes)
        trainer.load(read_state(path))
    return trainer.result()


@pytest.mark.parametrize(
    ("name", "schedule"),
    [("adam", "constant"), ("adamw", "linear"), ("sgd", "cosine"), ("adadelta", "linear")],
)
def test_a_training_put_down_after_every_step_is_the_one_that_was_not(name, schedule, tmp_path):
    config = toy_config({"name": name, "schedule": schedule})
    whole = toy_trainer(config, epochs=2).train()
    assert same(resumed_after_every_step(config, tmp_path / "state", epochs=2), whole)
    assert whole.n_steps == 8
    assert [row["step"] for row in whole.curve] == [4, 8]


def test_put_down_at_any_one_step_it_goes_on_to_the_same_bytes(tmp_path):
    config = toy_config(padding="max_length", label_smoothing=0.05)
    whole = toy_trainer(config, epochs=2)
    for step in range(whole.n_iterations):
        whole.advance(step)
        write_state(tmp_path / str(step), whole.state())
    for step in range(whole.n_iterations):
        again = toy_trainer(config, epochs=2)
        again.load(read_state(tmp_path / str(step)))
        assert same(again.train(), whole.result())


@pytest.mark.parametrize("form", [Form(), Form(reads="sequence", is_residual=True)])
def test_a_frozen_layer_stays_as_it_is_and_out_of_states_while_the_rest_goes_on(
    form, llama_layer, tmp_path
):
    plugged = {"epochs": 1, "form": form, "layer": llama_layer}
    trainer = toy_trainer(**plugged)
    plug = trainer.classifier.plug
    frozen, into = plug.frozen_hash(), plug.into.weight.detach().clone()
    whole = trainer.train()
    assert plug.frozen_hash() == frozen
    assert not torch.equal(plug.into.weight, into)
    assert not any(".middle." in name for name in whole.tensors)
    assert same(resumed_after_every_step(toy_config(), tmp_path / "state", **plugged), whole)


def test_early_stopping_survives_a_resume_and_leaves_the_rest_undone(tmp_path):
    # A rate at which nothing is learnt, so that no epoch is better than the first.
    config = toy_config({"learning_rate": 1e-12, "new_learning_rate": 1e-12}, patience=1)
    said = Said()
    trainer = toy_trainer(config, epochs=3)
    found = trainer.train(said)
    assert (found.best_epoch, found.n_steps, len(found.curve)) == (1, 8, 2)
    assert [row["is_stopped_early"] for row in found.curve] == [False, True]
    assert trainer.is_done
    assert trainer.n_iterations == 12
    assert said.sentences == [
        "Training ends after step 8: its validation side was best after step 4."
    ]
    assert same(resumed_after_every_step(config, tmp_path / "state", epochs=3), found)


@pytest.mark.parametrize(("patience", "n_epochs"), [(0, 2), (2, 3), (5, 4), (None, 4)])
def test_patience_counts_epochs_without_a_better_one(patience, n_epochs):
    config = toy_config({"learning_rate": 1e-12, "new_learning_rate": 1e-12}, patience=patience)
    found = toy_trainer(config, epochs=4).train()
    assert len(found.curve) == n_epochs
    assert found.best_epoch == 1


@pytest.mark.parametrize("choose_by", ["accuracy", "macro_f1", "mcc", "loss"])
def test_the_best_epoch_is_the_earliest_with_the_best_score_and_its_weights_are_kept(choose_by):
    config = toy_config(choose_by=choose_by, patience=None)
    trainer = toy_trainer(config, epochs=5)
    found = trainer.train()
    values = [row[f"validation_{choose_by}"] for row in found.curve]
    best = min(values) if choose_by == "loss" else max(values)
    assert found.best_epoch == values.index(best) + 1
    classifier, side = toy_classifier(seed=9), toy_side(20, 1)
    classifier.load_trained(found.tensors)
    logits = predict(classifier, side, batch_size=32, device="cpu", precision="float32")
    scores = scores_of(logits, torch.from_numpy(side.labels))
    row = found.curve[found.best_epoch - 1]
    assert scores == {name: row[f"validation_{name}"] for name in SCORES}


def test_a_share_follows_the_schedule_of_the_whole_and_is_validated_where_it_ends():
    config = toy_config({"warmup_share": 0.0})
    said = Said()
    found = toy_trainer(config, epochs=3, share=0.45).train(said)
    whole = toy_trainer(config, epochs=3)
    for step in range(6):
        whole.advance(step)
    # ceil(0.45 * 12) steps: an epoch of 4, and 2 more.
    assert [(row["epoch"], row["step"]) for row in found.curve] == [(1, 4), (2, 6)]
    assert found.curve[0] == whole.state()["curve"][0]
    assert found.curve[-1]["learning_rate"] == pytest.approx(1e-2 * (12 - 5) / 12)
    assert said.numbers[-1][0] == 6


def test_one_seed_is_one_result_and_another_another():
    one, again, other = (toy_trainer(seed=seed).train() for seed in (1, 1, 2))
    assert same(one, again)
    assert not all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


def test_training_draws_nothing_from_the_streams_of_others():
    trainer = toy_trainer()
    before = torch.get_rng_state()
    trainer.train()
    assert torch.equal(torch.get_rng_state(), before)


def test_trainings_of_other_precisions_take_turns_as_if_alone():
    configs = [toy_config(precision=precision) for precision in ("float32", "bfloat16")]
    alone = [toy_trainer(config, epochs=1).train() for config in configs]
    both = [toy_trainer(config, epochs=1) for config in configs]
    for step in range(4):
        for trainer in both:
            trainer.advance(step)
    for trainer, wanted in zip(both, alone, strict=True):
        assert same(trainer.result(), wanted)
    assert alone[0].curve[0]["train_loss"] != alone[1].curve[0]["train_loss"]
    assert all(t.dtype == torch.float32 for t in alone[1].tensors.values())


def test_a_launcher_around_this_process_does_not_make_it_wait_for_others(monkeypatch):
    wanted = toy_trainer(epochs=1).train()
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "2"), ("PMI_SIZE", "2")):
        monkeypatch.setenv(name, value)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert same(toy_trainer(epochs=1).train(), wanted)


def test_a_step_is_that_of_the_formula_of_adam():
    """Kingma and Ba (2015): the first step is the rate times the sign of the gradient."""
    optimiser = {"name": "adam", "schedule": "constant", "warmup_share": 0.0, "clip": None}
    config = toy_config({**optimiser, "weight_decay": 0.0}, padding="longest")
    trainer = toy_trainer(config, epochs=1, dropout=0.0)
    before = trainer.state()["tensors"]
    trainer.advance(0)
    after = trainer.state()["tensors"]
    moved = {name: (after[name] - before[name]).abs().max() for name in before}
    assert moved["encoder.network.embeddings.word_embeddings.weight"] == pytest.approx(1e-2, 1e-3)
    assert moved["head.3.weight"] == pytest.approx(2e-2, rel=1e-3)


def test_training_numbers_are_means_over_the_examples_of_the_epoch():
    # A rate of nothing: every batch is judged by the classifier as it began.
    config = toy_config(
        {"learning_rate": 1e-12, "new_learning_rate": 1e-12}, label_smoothing=0.1, patience=None
    )
    side = toy_side(28)
    classifier = toy_classifier(dropout=0.0)
    logits = predict(classifier, side, batch_size=8, device="cpu", precision="float32").double()
    labels = torch.from_numpy(side.labels)
    loss = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    row = toy_trainer(config, epochs=1, dropout=0.0).train().curve[0]
    assert row["train_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert row["train_accuracy"] == pytest.approx(
        float((logits.argmax(1) == labels).double().mean())
    )
    smooth = scores_of(logits, labels)["loss"]
    assert row["train_loss"] != pytest.approx(smooth, rel=1e-5)


def test_matrices_alone_decay_and_new_parts_have_their_own_rate():
    config = OptimiserConfig(learning_rate=1e-5, new_learning_rate=1e-3, weight_decay=0.1)
    found = new_optimiser(toy_classifier().parameter_groups(), config).param_groups
    assert [(group["peak"], group["weight_decay"]) for group in found] == [
        (1e-5, 0.1),
        (1e-5, 0.0),
        (1e-3, 0.1),
        (1e-3, 0.0),
    ]
    assert [{p.ndim for p in group["params"]} for group in found] == [{2}, {1}, {2}, {1}]
    alike = config.model_copy(update={"new_learning_rate": None})
    groups = new_optimiser(toy_classifier().parameter_groups(), alike).param_groups
    assert {group["peak"] for group in groups} == {1e-5}


def test_rates_rise_then_fall_as_the_schedule_says():
    linear = [rate_share(step, 10, "linear", 0.2) for step in range(10)]
    assert linear == pytest.approx([0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    cosine = [rate_share(step, 4, "cosine", 0.0) for step in range(4)]
    assert cosine == pytest.approx([(1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)])
    assert [rate_share(step, 3, "constant", 0.0) for step in range(3)] == [1.0, 1.0, 1.0]


def test_steps_are_counted_with_and_without_the_last_batch():
    config = toy_config()
    assert steps_of_training(28, config, epochs=3) == 12
    assert steps_of_training(28, toy_config(drop_last=True), epochs=3) == 9
    assert steps_of_training(80, config, epochs=3, share=0.1) == 3
    with pytest.raises(CorpusError, match="5 examples make none of 8 with drop_last"):
        steps_of_training(5, toy_config(drop_last=True), epochs=3)
    with pytest.raises(ConfigError, match="share=0"):
        steps_of_training(28, config, epochs=3, share=0.0)


def test_a_loss_that_is_no_number_ends_training_and_says_where():
    config = toy_config({"name": "sgd", "learning_rate": 1e30, "clip": None, "warmup_share": 0.0})
    with pytest.raises(NumericsError, match=r"step \d+ .*smaller learning_rate than 1e\+30"):
        toy_trainer(config, epochs=3).train()


def test_what_cannot_be_trained_is_refused():
    classifier, side = toy_classifier(), toy_side(28)
    with pytest.raises(ConfigError, match=r"got \['train'\]: give it validation"):
        PlugTrainer(classifier, {"train": side}, toy_config(), epochs=1, seed=0, device="cpu")
    with pytest.raises(ConfigError, match="shared by 1 processes, but processes=2"):
        toy_trainer(toy_config(processes=2))
    with pytest.raises(ConfigError, match="got auto"):
        toy_trainer(TrainingConfig())
    classifier.requires_grad_(False)
    with pytest.raises(ConfigError, match="Nothing of this classifier learns"):
        PlugTrainer(
            classifier,
            {"train": side, "validation": side},
            toy_config(),
            epochs=1,
            seed=0,
            device="cpu",
        )
