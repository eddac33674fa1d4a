"""Trials tell a variable from a decoy, a cause from what goes along, and nothing from something."""

import numpy as np
import pytest
import torch

from fluoroscope.organism.decisions import Decisions, decision_streams
from fluoroscope.organism.encoding import Encoder
from fluoroscope.organism.matching import decoys, match_of, partial_spearman
from fluoroscope.organism.network import N_LAYERS, new_network, planted_directions
from fluoroscope.organism.prompts import VARIABLES
from fluoroscope.organism.readout import Readout, exchange
from fluoroscope.organism.tokenizer import learn_tokenizer
from fluoroscope.organism.trials import Pairs, Trials
from fluoroscope.organism.truth import Candidate, Truth, direction
from fluoroscope.organism.world import World

WORLD = World()


@pytest.fixture(scope="module")
def untrained() -> Truth:
    tokenizer = learn_tokenizer(WORLD)
    readout = Readout(new_network(tokenizer, 0).eval(), Encoder(tokenizer))
    return Truth(WORLD, readout, planted_directions(0))


def some_prompts(n=5):
    return [WORLD.prompt(variable, "test", i) for variable in VARIABLES for i in range(n)]


def test_partial_spearman_is_the_correlation_of_what_the_given_leaves():
    luck = np.random.default_rng(0)
    given = luck.standard_normal((4000, 2))
    shared = luck.standard_normal(4000)
    a, b = shared + given[:, 0], shared - 2 * given[:, 1]
    assert partial_spearman(a, b, given) > 0.9
    # Nothing but the given is shared.
    only = given[:, 0] + 0.1 * luck.standard_normal(4000)
    also = given[:, 0] + 0.1 * luck.standard_normal(4000)
    assert abs(partial_spearman(only, also, given)) < 0.1
    assert abs(partial_spearman(np.ones(4000), b, given)) < 1e-3
    # Without anything given it is scipy's.
    from scipy.stats import spearmanr

    plain = partial_spearman(a, b, np.empty((4000, 0)))
    assert plain == pytest.approx(spearmanr(a, b).statistic, abs=1e-9)


@pytest.mark.parametrize("variable", VARIABLES)
def test_the_truth_matches_and_noise_and_decoys_do_not(variable):
    prompts = [WORLD.prompt(variable, "test", i) for i in range(600)]
    truth = np.array([prompt.value for prompt in prompts])
    noise = np.random.default_rng(0).standard_normal(len(truth))
    assert match_of(variable, (-truth + 0.01 * noise)[:, None], prompts).value > 0.95
    assert match_of(variable, noise[:, None], prompts).value < 0.8
    # Neither of the two tells it alone.
    halves = np.column_stack([truth + 3 * noise, noise])
    assert match_of(variable, halves, prompts).value > 0.85
    if variable == "risk":
        assert match_of(variable, decoys(prompts)[:, 1:2], prompts).value < 0.2


@pytest.mark.parametrize("layer", range(N_LAYERS))
def test_a_decision_goes_on_from_any_layer_as_the_whole_network_does(untrained, layer):
    prompts = some_prompts()
    with torch.no_grad():
        found = Decisions(untrained.readout, prompts).outcomes(layer)
    np.testing.assert_allclose(found.numpy(), untrained.readout.outcomes(prompts), atol=1e-6)


def test_an_edit_of_one_token_is_the_edit_of_the_whole_prompt(untrained):
    prompts, readout = some_prompts(), untrained.readout
    wanted = torch.randn(len(prompts), 4, generator=torch.Generator().manual_seed(0))
    whole = readout.outcomes(prompts, exchange(wanted, untrained.directions, 2))
    decisions, vector = Decisions(readout, prompts), untrained.directions[2]
    stream = decisions.streams[3]
    edited = stream + (wanted[:, 2] - stream @ vector)[:, None] * vector
    with torch.no_grad():
        np.testing.assert_allclose(decisions.outcomes(3, edited).numpy(), whole, atol=1e-6)


def test_the_streams_are_those_of_the_network(untrained):
    prompts = some_prompts(2)
    streams = decision_streams(untrained.readout, prompts)
    for row, prompt in enumerate(prompts):
        tokens = torch.tensor([untrained.readout.encoder.prompt(prompt.text)])
        with torch.no_grad():
            states = untrained.readout.network(tokens, output_hidden_states=True).hidden_states
        # The last one that the library gives is behind the final norm.
        for layer in range(N_LAYERS - 1):
            torch.testing.assert_close(
                streams[layer, row], states[layer + 1][0, -1], atol=1e-4, rtol=1e-4
            )


def test_exchanging_everything_makes_the_other_decision_and_nothing_makes_none(untrained):
    pairs = Pairs(untrained, "bias", "test", 24)
    stream = pairs.base.streams[5]
    everything = Candidate("all", "bias", 5, lambda stream: stream, torch.eye(stream.shape[1]))
    nothing = direction("none", "bias", 5, torch.ones(stream.shape[1]))
    with torch.no_grad():
        swapped = everything.exchanged(stream, pairs.source_streams[5])
        torch.testing.assert_close(swapped, pairs.source_streams[5], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(nothing.exchanged(stream, stream), stream)


def test_a_network_that_learned_nothing_has_no_cause(untrained):
    trials = Trials(untrained, "test", 32)
    for variable in VARIABLES:
        got = trials.score(untrained.planted(variable))
        assert abs(got.effect) < 0.05
        assert got.alignment == pytest.approx(1, abs=1e-5)
        assert not got.is_cause
        assert trials.score(untrained.random(variable, 2)).alignment is None


def test_a_probe_reads_what_the_words_say(untrained):
    # Even random layers carry which group and trait are named.
    trials = Trials(untrained, "test", 200)
    for probe in untrained.probes("bias", 400):
        assert float(probe.write.norm()) == pytest.approx(1, abs=1e-5)
        assert trials.match(probe).value > 0.7


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_pair_differs_in_the_variable_and_in_little_else(variable):
    for index in range(40):
        base, other = WORLD.pair(variable, "test", index)
        assert base.value != other.value
        assert base.variable == other.variable == variable
        changed = set(base.text.split()) ^ set(other.text.split())
        assert len(changed) < 0.5 * len(base.text.split()) + 4
        own, others = base.facts, other.facts
        for name in {"balance", "round", "losses", "relation", "trait", "form"} & set(own):
            assert own[name] == others[name]
        # The same text has the same truth, however it came about.
        assert WORLD.pair(variable, "test", index) == (base, other)
