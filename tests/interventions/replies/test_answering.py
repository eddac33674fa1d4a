"""Replies are what plain passes over each sample by itself say, in all three ways."""

from dataclasses import replace

import pytest
import torch
from asked_samples import (
    POOLS,
    PROMPTS,
    adding,
    asking,
    greedy,
    pooled,
    samples,
    scores_of,
)

from fluoroscope.core.errors import ConfigError
from fluoroscope.data.tasks.base import TASKS
from fluoroscope.interventions.edits import AddDirection
from fluoroscope.interventions.replies.answering import reply_all, usable, way_of
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.texts import Capture

WAYS = ["texts", "options", "sums"]
FAMILIES = ["gpt2", "llama", "gemma2"]
EARLY, LATE = "0.resid_post", "1.resid_post"


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, double_model):
    return double_model(request.param)


@pytest.fixture(scope="module")
def vectors(direction):
    return {EARLY: direction(0), LATE: 0.5 * direction(1)}


@pytest.fixture(scope="module")
def edits(vectors):
    return {point: AddDirection(vector) for point, vector in vectors.items()}


CAPTURES = {
    f"{point} {pool}": Capture(HookPoint(point), pool) for point in (EARLY, LATE) for pool in POOLS
}


def asked(model, way, given, edits=None, **settings):
    """Replies and what was captured, by the sample's id."""
    captured = {}

    def take(place, reply, seen):
        captured[given[place].id] = seen

    replies = reply_all(model, given, asking(way, **settings), edits, CAPTURES, take)
    return {one.id: reply for one, reply in zip(given, replies, strict=True)}, captured


def same(some, others, tolerance=1e-9):
    (replies, captured), (other_replies, other_captured) = some, others
    assert replies.keys() == other_replies.keys()
    for name, reply in replies.items():
        other = other_replies[name]
        assert reply.numbers == pytest.approx(other.numbers, abs=tolerance)
        assert reply.logprob == pytest.approx(other.logprob, abs=tolerance)
        plain = {"numbers": (), "logprob": 0.0}
        assert reply._replace(**plain) == other._replace(**plain)
        for what, value in captured[name].items():
            torch.testing.assert_close(value, other_captured[name][what], rtol=0, atol=tolerance)


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_says_what_each_sample_says_alone(model, way, edits):
    given = samples()
    together = asked(model, way, given, edits)
    alone = [asked(model, way, [one], edits) for one in given]
    replies = {name: reply for found, _ in alone for name, reply in found.items()}
    captured = {name: seen for _, found in alone for name, seen in found.items()}
    same(together, (replies, captured))


@pytest.mark.parametrize("way", WAYS)
def test_order_rows_and_tiles_change_nothing(model, way, edits):
    given = samples()
    found = asked(model, way, given, edits)
    same(found, asked(model, way, given[::-1], edits))
    same(found, asked(model, way, given, edits, rows=2, tile_tokens=1))


@pytest.mark.parametrize("way", WAYS)
def test_no_edits_are_the_unsteered_model_and_edits_are_not(model, way, edits):
    given = samples()
    unsteered = asked(model, way, given)
    same(unsteered, asked(model, way, given, {}), tolerance=0)
    assert all(reply.n_edits == 0 for reply in unsteered[0].values())
    steered = asked(model, way, given, edits)
    assert all(reply.n_edits > 0 for reply in steered[0].values())
    name = f"{LATE} mean"
    changes = [(steered[1][one.id][name] - unsteered[1][one.id][name]).norm() for one in given]
    assert min(changes) > 0.1


def test_generated_texts_are_edited_and_captured_wherever_a_token_was_drawn(model, vectors, edits):
    given = samples()
    replies, captured = asked(model, "texts", given, edits)
    for sample in given:
        prompt = model.tokenizer(sample.prompt)["input_ids"]
        tokens = greedy(model, prompt, 6, vectors)
        seen = dict.fromkeys(vectors)
        logprobs = scores_of(model, prompt, tokens, vectors, seen)
        reply = replies[sample.id]
        assert reply.n_tokens == len(tokens)
        assert reply.logprob == pytest.approx(sum(logprobs), abs=1e-9)
        assert reply.n_edits == 2 * len(tokens)
        is_ended = tokens[-1] == model.tokenizer.eos_token_id
        # The last token drew nothing, and the one that ends a text is no part of it.
        n = len(tokens) - is_ended
        assert reply.text == model.tokenizer.decode(tokens[:n])
        for name, capture in CAPTURES.items():
            steps = seen[str(capture.point)][:n]
            expected = pooled(steps, capture.pool) if n else torch.zeros(steps.shape[1])
            torch.testing.assert_close(
                captured[sample.id][name], expected.double(), rtol=0, atol=1e-9
            )


def test_options_are_edited_and_captured_at_the_prompts_end_alone(model, vectors, edits):
    given = samples()
    replies, captured = asked(model, "options", given, edits)
    for sample in given:
        prompt = model.tokenizer(sample.prompt)["input_ids"]
        firsts = [
            model.tokenizer(option, add_special_tokens=False)["input_ids"][0]
            for option in sample.options
        ]
        seen = dict.fromkeys(vectors)
        with torch.no_grad(), model.hooked(adding(vectors, len(prompt) - 1, seen)):
            p = model.forward(torch.tensor([prompt]))[0, -1].softmax(-1)
        reply = replies[sample.id]
        assert reply.numbers == pytest.approx(p[firsts].tolist(), abs=1e-9)
        assert reply.text == sample.options[int(p[firsts].argmax())]
        assert reply.n_edits == 2
        for name, capture in CAPTURES.items():
            torch.testing.assert_close(captured[sample.id][name], seen[str(capture.point)][-1])


def test_sums_are_edited_wherever_a_token_of_an_option_is_read(model, vectors, edits):
    given = samples()
    replies, captured = asked(model, "sums", given, edits)
    for sample in given:
        prompt = model.tokenizer(sample.prompt)["input_ids"]
        seen = dict.fromkeys(vectors)
        options = [
            model.tokenizer(o, add_special_tokens=False)["input_ids"] for o in sample.options
        ]
        sums = [sum(scores_of(model, prompt, option, vectors, seen)) for option in options]
        reply = replies[sample.id]
        assert reply.numbers == pytest.approx(sums, abs=1e-9)
        assert reply.text == sample.options[sums.index(max(sums))]
        assert reply.n_edits == 2 * reply.n_tokens == 2 * sum(map(len, options))
        for name, capture in CAPTURES.items():
            # Whatever the option, the prompt's end knows none of it.
            torch.testing.assert_close(captured[sample.id][name], seen[str(capture.point)][0])


def test_of_whole_sentences_the_preferred_one_is_captured_from_its_first_token_on(model, edits):
    given = samples(["", ""], [("a cat", "two dogs"), ("up", "down we go")])
    replies, captured = asked(model, "sums", given, edits)
    vectors = {point: edit.direction for point, edit in edits.items()}
    bos = [model.bos_token_id]
    for sample in given:
        ids = [model.tokenizer(o, add_special_tokens=False)["input_ids"] for o in sample.options]
        sums = [sum(scores_of(model, bos, one, vectors)) for one in ids]
        assert replies[sample.id].numbers == pytest.approx(sums, abs=1e-9)
        best, seen = ids[sums.index(max(sums))], dict.fromkeys(vectors)
        scores_of(model, bos, best, vectors, seen)
        for name, capture in CAPTURES.items():
            steps = seen[str(capture.point)][: len(best)]
            torch.testing.assert_close(captured[sample.id][name], pooled(steps, capture.pool))


@pytest.mark.parametrize("way", WAYS)
def test_an_instruction_stands_before_every_prompt(model, way):
    told = samples([f"please: {prompt}" for prompt in PROMPTS])
    same(asked(model, way, samples(), instruction="please: "), asked(model, way, told))


def test_what_is_drawn_by_chance_depends_on_the_sample_and_the_seed_alone(double_model):
    from fluoroscope.models.sampling import Sampling

    model, given = double_model("gpt2"), samples()
    drawn = {"sampling": Sampling(temperature=1.0), "seed": 3}
    found = asked(model, "texts", given, **drawn)
    same(found, asked(model, "texts", given[::-1], **drawn))
    other = asked(model, "texts", given, **{**drawn, "seed": 4})[0]
    assert any(other[name].text != reply.text for name, reply in found[0].items())


def test_samples_without_room_are_left_out_and_said_to_be(double_model):
    model = double_model("gpt2")
    room = model.context_length
    given = samples(["short", "a" * (room + 5), "b" * (room - 4)], [("yes", "no")] * 3)
    kept, left_out = usable(model, given, asking("texts"))
    assert [one.id for one in kept] == ["s0", "s2"]
    assert [one.where for one in left_out] == ["s1"]
    assert f"{room} positions" in left_out[0].reason
    longer = replace(asking("sums"), instruction="one more ")
    kept, left_out = usable(model, given, longer)
    assert [one.id for one in kept] == ["s0"]
    assert [one.where for one in left_out] == ["s1", "s2"]
    # What is kept can be answered.
    assert len(reply_all(model, kept, longer)) == 1


def test_options_that_begin_alike_are_refused_with_what_to_do():
    from fluoroscope.models.tiny import tiny_model

    with pytest.raises(ConfigError, match=r"'s0' begin with the same token.*task.way=texts"):
        reply_all(tiny_model("gpt2"), samples(["a"], [("yes", "yellow")]), asking("options"))


def test_the_way_is_what_the_task_is_judged_by_and_probabilities_where_there_are_any():
    bias, facts = TASKS.load("organism-bias"), TASKS.load("organism-facts")
    assert way_of(bias, bias.scorer()) == "sums"
    assert way_of(facts, facts.scorer()) == "options"
    assert way_of(facts, facts.scorer(), "texts") == "texts"
    with pytest.raises(ConfigError, match=r"organism-bias is judged by .*sums.*got 'options'"):
        way_of(bias, bias.scorer(), "options")


def test_nothing_is_asked_of_no_samples(double_model):
    assert reply_all(double_model("gpt2"), [], asking("texts")) == []
