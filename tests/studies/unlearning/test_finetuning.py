import math

import numpy as np
import pytest
import torch

from fluoroscope.core.errors import ConfigError, CorpusError, NumericsError
from fluoroscope.core.tensors import read_state, write_state
from fluoroscope.data.tasks.scorers import ChoiceScorer
from fluoroscope.interventions.replies.answering import Asking
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.studies.unlearning.clamping import Treatment, clamp_edits
from fluoroscope.studies.unlearning.config import FineTuningConfig
from fluoroscope.studies.unlearning.finetuning import (
    FineTuner,
    _read,
    even_loss,
    reply_loss,
)
from fluoroscope.studies.unlearning.relearning import NOT_TAUGHT, TAUGHT, part_to_teach, relearn
from fluoroscope.studies.unlearning.sets import Passage

ASKING = Asking(ChoiceScorer(is_lettered=False), "options")


def config(**settings):
    return FineTuningConfig(n_iterations=4, batch_size=4, learning_rate=3e-4, **settings)


def weights(model):
    return torch.cat([one.detach().flatten() for one in model.network.parameters()])


def test_the_loss_of_a_reply_is_that_of_its_tokens_alone(organism_model, people):
    some = [people.forget[0], people.retain[-1]]
    read = _read(organism_model, some)
    with torch.no_grad():
        found = reply_loss(read, organism_model.forward(read.tokens, read.mask))
    scores = []
    for one in some:
        tokens, mask = organism_model.tokenize([one.text])
        n_prompt = len(organism_model.tokenizer(one.prompt)["input_ids"])
        with torch.no_grad():
            scores += organism_model.token_scores(tokens, mask)[0, n_prompt - 1 :].tolist()
    assert float(found) == pytest.approx(-np.mean(scores), abs=1e-5)


def test_an_even_reply_has_the_least_even_loss(organism_model, people):
    some = [people.forget[0]]
    read = _read(organism_model, some)
    logits = torch.full((1, read.tokens.shape[1], organism_model.vocab_size), -100.0)
    firsts = [
        organism_model.tokenizer(some[0].prompt + one)["input_ids"][read.starts[0]]
        for one in some[0].alternatives
    ]
    logits[0, read.starts[0] - 1, firsts] = 0.0
    even = float(even_loss(organism_model, some, read, logits))
    assert even == pytest.approx(math.log(12), abs=1e-5)
    logits[0, read.starts[0] - 1, firsts[0]] = 3.0
    assert float(even_loss(organism_model, some, read, logits)) > even


@pytest.mark.parametrize("objective", ["difference", "uniform"])
def test_what_is_to_be_forgotten_becomes_less_likely(organism_model, people, objective):
    tuner = FineTuner(organism_model, people.forget, people.retain, config(objective=objective))
    read = _read(organism_model, people.forget[:8])

    def loss(model):
        with torch.no_grad():
            return float(reply_loss(read, model.forward(read.tokens, read.mask)))

    before = loss(organism_model)
    after = loss(tuner.train())
    assert after > before


def test_the_model_that_is_given_is_left_as_it_is(organism_model, people):
    before = weights(organism_model).clone()
    FineTuner(organism_model, people.forget, people.retain, config()).train()
    assert torch.equal(weights(organism_model), before)
    assert not any(one.requires_grad for one in organism_model.network.parameters())


def test_a_resumed_training_is_the_uninterrupted_one_bit_for_bit(organism_model, people, tmp_path):
    settings = config(validate_every=1)

    def validate(model):
        return float(weights(model).abs().sum())

    def tuner():
        return FineTuner(organism_model, people.forget, people.retain, settings, validate)

    whole, first, second = tuner(), tuner(), tuner()
    whole.train()
    for iteration in range(2):
        first.advance(iteration)
    write_state(tmp_path / "state.safetensors", first.state())
    second.load(read_state(tmp_path / "state.safetensors"))
    for iteration in range(2, 4):
        second.advance(iteration)
    assert torch.equal(weights(whole.model), weights(second.model))
    assert torch.equal(weights(whole.best()), weights(second.best()))
    assert whole.curve == second.curve


def test_the_weights_that_validation_likes_best_are_kept_and_training_stops(organism_model, people):
    losses = iter([3.0, 1.0, 2.0, 2.0, 0.0])
    kept = []

    def validate(model):
        kept.append(weights(model).clone())
        return next(losses)

    settings = config(validate_every=1, patience=2)
    tuner = FineTuner(organism_model, people.forget, people.retain, settings, validate)
    best = tuner.train()
    assert tuner.has_stopped
    assert tuner.best_iteration == 2
    assert torch.equal(weights(best), kept[1])
    tuner.advance(4)
    assert len(kept) == 4


def test_texts_without_a_reply_are_learnt_from_whole(organism_model):
    read = _read(organism_model, [Passage("Review: good.", "", "a")])
    assert read.starts == (1,)


def test_what_cannot_be_trained_on_is_named(organism_model, people):
    with pytest.raises(CorpusError, match="0 to keep"):
        FineTuner(organism_model, people.forget, (), config())
    tuner = FineTuner(organism_model, people.forget, people.retain, config())
    with torch.no_grad():
        next(tuner.model.network.parameters()).fill_(math.nan)
    with pytest.raises(NumericsError, match=r"smaller learning_rate than 0\.0003"):
        tuner.advance(0)


def test_some_people_are_taught_again_and_others_only_asked_about(people):
    part = part_to_teach(people.forget, people.forget_samples, 0.5, seed=0)
    taught = {one.group_id for one in part.taught}
    assert len(taught) == 6
    assert {one.group for one in part.passages} == taught
    assert not taught & {one.group_id for one in part.not_taught}
    assert len(part.taught) + len(part.not_taught) == len(people.forget_samples)
    with pytest.raises(ConfigError, match=r"0\.01 of 12 groups is 0"):
        part_to_teach(people.forget, people.forget_samples, 0.01, seed=0)


def test_what_is_hidden_by_a_clamp_is_asked_for_with_the_clamp_on(
    organism_model, organism_saes, people
):
    point = HookPoint("4.resid_post")
    edits = clamp_edits(organism_model, organism_saes, {point: tuple(range(512))}, 60.0)
    part = part_to_teach(people.forget, people.forget_samples, 0.5, seed=0)
    settings = config(objective="ordinary", validate_every=2)
    free = relearn(organism_model, part, ASKING, settings)
    clamped = relearn(organism_model, part, ASKING, settings, Treatment(edits))
    for table in (free, clamped):
        assert table["iteration"].unique().sort().to_list() == [0, 2, 4]
        assert set(table["of"]) == {TAUGHT, NOT_TAUGHT}
    first = {"iteration": 0, "category": "all", "of": NOT_TAUGHT}
    assert free.filter(**first)["accuracy"].item() == 1
    assert clamped.filter(**first)["accuracy"].item() < 0.5


def test_relearning_is_ordinary_training(organism_model, people):
    part = part_to_teach(people.forget, people.forget_samples, 0.5, seed=0)
    with pytest.raises(ConfigError, match="got 'difference'"):
        relearn(organism_model, part, ASKING, config())
