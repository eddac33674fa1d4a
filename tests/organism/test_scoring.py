"""Scores tell a variable from a decoy, and nothing from something."""

import numpy as np
import pytest
import torch

from fluoroscope.organism.encoding import Encoder
from fluoroscope.organism.network import new_network, planted_directions
from fluoroscope.organism.prompts import VARIABLES
from fluoroscope.organism.readout import Readout
from fluoroscope.organism.scoring import Found, decoys, match_of, partial_spearman, probe, score
from fluoroscope.organism.tokenizer import learn_tokenizer
from fluoroscope.organism.world import World

WORLD = World()


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
    assert match_of(variable, -truth + 0.01 * noise, prompts) > 0.95
    assert match_of(variable, noise, prompts) < 0.75
    if variable == "risk":
        assert match_of(variable, decoys(prompts)[:, 1], prompts) < 0.2


def test_a_network_that_learned_nothing_has_no_cause():
    tokenizer = learn_tokenizer(WORLD)
    readout = Readout(new_network(tokenizer, 0).eval(), Encoder(tokenizer))
    for place, variable in enumerate(VARIABLES):
        found = Found("planted", variable, planted_directions(0)[place])
        got = score(found, readout, WORLD, 32)
        assert abs(got.effect) < 0.05
        assert not got.is_cause


def test_a_probe_reads_what_the_words_say():
    # Even random layers carry which group and trait are named.
    tokenizer = learn_tokenizer(WORLD)
    readout = Readout(new_network(tokenizer, 0).eval(), Encoder(tokenizer))
    found = probe(readout, WORLD, "bias", 400)
    assert float(found.direction.norm()) == pytest.approx(1, abs=1e-5)
    prompts = [WORLD.prompt("bias", "test", i) for i in range(400)]
    with torch.no_grad():
        reading = readout.components(prompts, found.direction[None])[:, 0].numpy()
    assert match_of("bias", reading, prompts) > match_of("bias", np.zeros(400), prompts)
