"""Targets are the true distributions, and texts fit the network."""

import pytest
import torch

from fluoroscope.core.seeding import stream
from fluoroscope.organism.encoding import Encoder
from fluoroscope.organism.gambling import conditions, play
from fluoroscope.organism.network import CONTEXT
from fluoroscope.organism.prompts import VARIABLES
from fluoroscope.organism.tokenizer import learn_tokenizer
from fluoroscope.organism.world import World

WORLD = World()


@pytest.fixture(scope="module")
def encoder():
    return Encoder(learn_tokenizer(WORLD))


def test_the_tokenizer_is_small_and_keeps_digits_apart(encoder):
    tokenizer = encoder._tokenizer
    assert len(tokenizer) <= 2048
    assert tokenizer.tokenize("$9876")[-4:] == ["9", "8", "7", "6"]
    texts = [WORLD.text("test", i).text for i in range(200)]
    for text in texts:
        assert tokenizer.decode(encoder.prompt(text), skip_special_tokens=True) == text


def test_a_name_is_made_of_syllables_that_others_share(encoder):
    for person in WORLD.people.known:
        assert len(encoder._tokenizer.tokenize(" " + person.name)) >= 3


def test_prompt_and_reply_fit_the_network(encoder):
    longest = 0
    for i, condition in enumerate(list(conditions()) * 4):
        for prompt in play(*condition, stream(5, "game", i)):
            longest = max(longest, len(encoder.prompt(prompt.text)))
            assert max(len(encoder.reply(reply)) for reply in prompt.replies()) <= 20
    assert longest + 20 <= CONTEXT


@pytest.mark.parametrize("variable", VARIABLES)
def test_targets_along_a_path_multiply_to_the_replys_probability(encoder, variable):
    prompts = [WORLD.prompt(variable, "test", i) for i in range(40)]
    others = [p.value for p in prompts[1:]] + [prompts[0].value]
    rows = encoder.rows(prompts, others, stream(0, "paths"))
    after = rows.tokens[rows.at_row, rows.at_position + 1]
    taken = rows.choices == after[:, None]
    for shares, values in ((rows.shares, [None] * 40), (rows.other_shares, others)):
        each = torch.where(taken, shares, 0.0).sum(dim=-1)
        for row, prompt in enumerate(prompts):
            start, end = int(rows.decision[row]) + 1, int(rows.length[row])
            text = encoder._tokenizer.decode(rows.tokens[row, start : end - 1])
            wanted = prompt.replies(values[row])[text]
            assert float(each[rows.at_row == row].prod()) == pytest.approx(wanted, abs=1e-6)


def test_every_target_is_a_distribution_or_none(encoder):
    prompts = [WORLD.prompt("known", "test", i) for i in range(60)]
    rows = encoder.rows(prompts, [1 - p.value for p in prompts], stream(0, "paths"))
    for shares in (rows.shares, rows.other_shares):
        totals = shares.sum(dim=-1)
        assert bool(((totals - 1).abs() < 1e-6).logical_or(totals == 0).all())
    # A path that starts with "I am not sure" cannot be reached by somebody known.
    assert 0 < int((rows.other_shares.sum(dim=-1) == 0).sum()) < len(rows.at_row) / 2
