"""A training goes on bit for bit, whoever shares it, and no text is left out of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from threaded import trained_together
from training_toys import (
    TOKENIZER,
    questions,
    toy_network,
    toy_reasoner_trainer,
    toy_settings,
    walks,
)

from fluoroscope.core.errors import ConfigError, DoesNotFitError, NumericsError
from fluoroscope.core.sink import Sink
from fluoroscope.core.tensors import read_state, write_state
from fluoroscope.data.questions.encoding import encode_questions
from fluoroscope.studies.connection import evaluating, objective, training
from fluoroscope.studies.connection.asking import Questions
from fluoroscope.studies.connection.evaluating import Answered, answer_all
from fluoroscope.studies.connection.network.connections.penalties import (
    l0_sparsity,
    spectral_penalty,
)
from fluoroscope.studies.connection.network.decoding import answer
from fluoroscope.studies.connection.network.losses import (
    IGNORED,
    answer_loss,
    ponder_divergence,
)
from fluoroscope.studies.connection.network.network_config import HaltingConfig
from fluoroscope.studies.connection.steps.training_loop import curve_table
from fluoroscope.studies.connection.training_config import PricesConfig, ThinkingConfig


class Said(Sink):
    def __init__(self):
        self.texts = []

    def message(self, text):
        self.texts.append(text)


def exact_network():
    """Adam makes much of rounding where a gradient is near 0, so sums are compared in float64."""
    return toy_network(dropout=0).double()


def same(one, other):
    assert one.curve == other.curve
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


def close(one, other, atol=1e-5):
    for name in one.tensors:
        torch.testing.assert_close(one.tensors[name], other.tensors[name], rtol=0, atol=atol)


def test_walks_are_learnt():
    settings = toy_settings({"steps": "by_depth"}, max_epochs=12)
    trained = toy_reasoner_trainer(settings, toy_network(dropout=0), n=60).train()
    assert trained.curve[0]["validation_accuracy"] < 0.7
    assert trained.curve[-1]["validation_accuracy"] > 0.85
    assert trained.curve[-1]["validation_steps"] > 2


@pytest.mark.parametrize("thinking", [{"steps": "sampled"}, {"steps": "by_depth"}])
def test_put_down_after_any_step_it_goes_on_bit_for_bit(thinking, tmp_path):
    settings = toy_settings({**thinking, "supervised": "every"}, eval_every=2)
    whole = toy_reasoner_trainer(settings, toy_network(noise=0.2)).train()
    for stop in (1, 2, 4):
        first = toy_reasoner_trainer(settings, toy_network(noise=0.2))
        for step in range(stop):
            first.advance(step)
        write_state(tmp_path / "state", first.state())
        second = toy_reasoner_trainer(settings, network=toy_network(seed=9, noise=0.2))
        second.load(read_state(tmp_path / "state"))
        done = second.train()
        same(done, whole)
        # To the order of its columns, as files are compared.
        assert curve_table(done.curve).write_json() == curve_table(whole.curve).write_json()


@pytest.mark.parametrize("supervised", ["last", "every", "hops"])
def test_parts_of_a_step_add_up_to_it(supervised):
    # Of walks of one hop and of two, so that parts are not equally deep.
    thinking = {"steps": "by_depth", "supervised": supervised}
    whole, parts = (
        toy_reasoner_trainer(
            toy_settings(thinking, batch_size=size, accumulation=n), exact_network()
        )
        for size, n in ((8, 1), (2, 4))
    )
    close(parts.train(), whole.train())


def test_a_state_that_was_taken_up_is_nobodys_state_afterwards():
    first, second = toy_reasoner_trainer(), toy_reasoner_trainer()
    for iteration in range(2):
        first.advance(iteration)
    second.load(first.state())
    moments = {key: {name: tensor.clone() for name, tensor in of_one.items()}
               for key, of_one in first.state()["optimiser"].items()}  # fmt: skip
    second.advance(2)
    for key, of_one in first.state()["optimiser"].items():
        for name, tensor in of_one.items():
            assert torch.equal(tensor, moments[key][name])


def test_processes_that_share_a_training_do_what_one_does():
    settings = toy_settings({"steps": "halting"})
    wanted = toy_reasoner_trainer(settings, exact_network(), n=17).train()
    trainers = [toy_reasoner_trainer(settings, exact_network(), n=17) for _ in range(2)]
    found = trained_together(trainers)
    same(found[0], found[1])
    close(found[0], wanted)


def test_a_step_that_does_not_fit_is_read_in_parts_and_leaves_nothing_out(monkeypatch):
    cost_of, seen = training.cost_of, []

    def only_small(reasoner, asked, *args, **kwargs):
        if len(asked.texts.ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.append(len(asked.texts.ids))
        return cost_of(reasoner, asked, *args, **kwargs)

    wanted = toy_reasoner_trainer(network=exact_network()).train()
    monkeypatch.setattr(training, "cost_of", only_small)
    trainer, said = toy_reasoner_trainer(network=exact_network()), Said()
    found = trainer.train(said)
    assert found.n_parts == 4
    # Two epochs of twenty, and nothing beside.
    assert sum(seen) == 2 * 20
    assert any("None is left out" in text for text in said.texts)
    close(found, wanted)

    monkeypatch.setattr(training, "cost_of", lambda *_, **__: (_ for _ in ()).throw(
        torch.OutOfMemoryError("CUDA out of memory")))  # fmt: skip
    with pytest.raises(DoesNotFitError, match="smaller batch_size"):
        toy_reasoner_trainer().train()


def test_a_loss_that_is_no_number_ends_it_with_what_to_do():
    with pytest.raises(NumericsError, match="smaller learning_rate"):
        toy_reasoner_trainer(toy_settings(rate=1e30)).train()


@pytest.mark.parametrize(
    ("thinking", "words"),
    [({"steps": "by_depth"}, "how many hops"), ({"supervised": "hops"}, "after each hop")],
)
def test_hops_are_asked_of_questions_that_have_them(thinking, words):
    with pytest.raises(ConfigError, match=words):
        toy_reasoner_trainer(toy_settings(thinking), says_hops=False).train()


@pytest.mark.slow
def test_supervised_hop_by_hop_the_states_on_the_way_answer_too():
    settings = toy_settings({"steps": "by_depth", "supervised": "hops"}, max_epochs=10)
    trainer = toy_reasoner_trainer(settings, toy_network(dropout=0), n=60)
    trainer.train()
    asked = questions(60).ask(np.arange(60), "cpu", with_hops=True)
    network = trainer.reasoner.eval()
    thought = network.think(asked.texts.ids, asked.texts.mask, 2 * asked.depths)
    logits = network.logits(thought, asked.hops[0].target_in, after=2)
    assert (logits.argmax(-1) == asked.hops[0].labels)[:, 0].float().mean() > 0.9


def asked_by_hops(n_steps):
    """Loss by hops of a thought of so many steps about ten texts, and what says parts of it."""
    network = toy_network(dropout=0, max_steps=6).eval()
    asked = questions(10).ask(np.arange(10), "cpu", with_hops=True)
    thought = network.think(asked.texts.ids, asked.texts.mask, n_steps)
    config = toy_settings({"steps": "halting", "supervised": "hops"})

    def part(written, after, kept=None):
        labels = written.labels if kept is None else written.labels.where(kept[:, None], IGNORED)
        return answer_loss(network.logits(thought, written.target_in, after), labels, 0, 20)

    return objective._answer(network, asked, config, thought, 20), asked, part


@pytest.mark.parametrize("n_steps", [1, 2, 3, 4])
def test_of_hops_that_were_not_done_nothing_is_asked_but_the_answer(n_steps):
    loss, asked, part = asked_by_hops(n_steps)
    first, second = asked.hops
    # A hop takes two steps; what is asked in the end is asked however few were done.
    is_done = (asked.depths == 1) | (n_steps >= 2)
    parts = [part(first, min(2, n_steps), is_done), part(second, min(4, n_steps))]
    torch.testing.assert_close(loss, torch.stack(parts).mean())


def test_where_more_is_done_than_hops_need_the_last_states_answer_too():
    loss, asked, part = asked_by_hops(6)
    parts = [part(asked.hops[0], 2), part(asked.hops[1], 4), part(asked.texts, 6)]
    torch.testing.assert_close(loss, torch.stack(parts).mean())


def test_it_ends_early_where_nothing_gets_better_and_keeps_the_best_look():
    settings = toy_settings(rate=1e-12, max_epochs=9, patience=2)
    trained = toy_reasoner_trainer(settings).train()
    assert (len(trained.curve), trained.best_step) == (3, trained.curve[0]["step"])
    assert [row["is_stopped_early"] for row in trained.curve] == [False, False, True]


@pytest.mark.parametrize(("by", "best"), [("accuracy", 3), ("loss", 1)])
def test_of_looks_that_are_as_often_right_the_surer_one_is_kept(by, best, monkeypatch):
    looks = iter([(0.5, 1.0), (0.75, 4.0), (0.75, 2.0), (0.75, 3.0)])

    def answer_all(reasoner, asked, *_, **__):
        accuracy, loss = next(looks)
        right = np.arange(len(asked)) < round(accuracy * len(asked))
        n, once = len(asked), np.ones(len(asked), np.int64)
        return Answered(once[:, None], right, np.full(n, loss), once, np.ones((1, n)))

    monkeypatch.setattr(training, "answer_all", answer_all)
    trainer = toy_reasoner_trainer(toy_settings(max_epochs=4, choose_by=by))
    assert trainer.train().best_step == best * trainer.n_iterations // 4


def test_a_head_that_learns_to_stop_is_paid_and_its_price_is_reported():
    network = toy_network(halting=HaltingConfig(name="learned"))
    settings = toy_settings({"steps": "halting"}, prices=PricesConfig(steps=0.1))
    trained = toy_reasoner_trainer(settings, network).train()
    row = trained.curve[-1]
    assert 0 < row["train_expected_steps"] <= 3
    assert row["train_halting"] > 0


PRICED = {
    "ponder": lambda network, thought: ponder_divergence(thought.halt_logits, 1 / 3),
    "pairs": lambda network, _: l0_sparsity(network.connection),
    "spectral": lambda network, _: spectral_penalty(network.connection),
}


@pytest.mark.parametrize("name", PRICED)
def test_what_is_priced_is_added_and_trains_what_it_is_of(name):
    network = toy_network(dropout=0, halting=HaltingConfig(name="learned")).double()
    with torch.no_grad():
        network.connection.W_s.mul_(2)
    asked = questions(6).ask(np.arange(6), "cpu")

    def cost(**prices):
        settings = toy_settings({"steps": "halting"}, prices=PricesConfig(**prices))
        draws = torch.Generator().manual_seed(0)
        known = {"n_targets": 12, "share": 0.5, "drawn": None, "draws": draws}
        return objective.cost_of(network, asked, settings, **known)

    free, priced = cost(ponder_steps=3), cost(ponder_steps=3, **{name: 0.1})
    value = PRICED[name](network, priced.thought)
    assert value > 0
    torch.testing.assert_close(priced.parts[name], value.detach() / 2)
    torch.testing.assert_close(priced.total - free.total, 0.1 * value.detach() / 2)
    assert name not in free.parts
    assert name in objective.PARTS
    weight = "halting.head.bias" if name == "ponder" else "connection.W_s"
    (of_total,) = torch.autograd.grad(priced.total - free.total, network.get_parameter(weight))
    assert of_total.abs().sum() > 0


def test_answers_do_not_depend_on_batches_and_exact_ones_are_whole():
    network, side = toy_network(), questions(13)
    found = [
        answer_all(network, side, ThinkingConfig(), batch_size=size, max_tokens=3,
                   eos_id=TOKENIZER.eos_id, device="cpu")
        for size in (1, 4, 13)
    ]  # fmt: skip
    for one in found[1:]:
        assert (one.ids == found[0].ids).all()
        np.testing.assert_allclose(one.losses, found[0].losses, atol=1e-6)
    wanted = side.ask(np.arange(13), "cpu").texts.labels.numpy()
    width = wanted.shape[1]
    is_exact = [
        said[:width].tolist() == [max(label, 0) for label in labels] and not said[width:].any()
        for said, labels in zip(found[0].ids, wanted, strict=True)
    ]
    assert found[0].is_exact.tolist() == is_exact


def test_the_beginning_of_an_answer_that_was_cut_is_not_the_answer(monkeypatch):
    whole = walks(5, says_hops=False)
    longer = [replace(one, target=f"{one.target} {one.target}") for one in whole[:2]]
    side = Questions(encode_questions([*longer, *whole[2:]], TOKENIZER, 16, 2))
    assert side.is_target_cut.tolist() == [True, True, False, False, False]
    taught = side.ask(np.arange(5), "cpu").texts.labels

    def says_what_was_taught(reasoner, ids, *args):
        return answer(reasoner, ids, *args)._replace(ids=taught)

    monkeypatch.setattr(evaluating, "answer", says_what_was_taught)
    monkeypatch.setattr(evaluating, "side_batches", lambda lengths, size: [range(len(lengths))])
    found = answer_all(toy_network(), side, ThinkingConfig(), batch_size=5, max_tokens=2,
                       eos_id=TOKENIZER.eos_id, device="cpu")  # fmt: skip
    assert found.is_exact.tolist() == [False, False, True, True, True]
