"""Trials tell a variable from a decoy, a cause from what goes along, and nothing from something."""

import numpy as np
import pytest
import torch

from fluoroscope.core.errors import ConfigError
from fluoroscope.organism.decisions import Decisions, decision_streams
from fluoroscope.organism.encoding import Encoder
from fluoroscope.organism.matching import Told, decoys, f1, match_of, partial_spearman
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
    luck = np.random.default_rng(0)

    def matched(reading):
        sides = []
        for purpose in ("test a", "test b"):
            prompts = [WORLD.prompt(variable, purpose, i) for i in range(400)]
            truth = np.array([prompt.value for prompt in prompts])
            sides.append(Told(reading(truth, luck.standard_normal(400), prompts), prompts))
        return match_of(variable, *sides)

    found = matched(lambda truth, noise, _: (0.01 * noise - truth)[:, None])
    assert found.value > 0.95
    assert found.low <= found.value <= found.high
    # Saying yes to everything has an F1 of up to 0.73.
    assert matched(lambda truth, noise, _: noise[:, None]).value < 0.8
    # Neither of the two tells it alone.
    assert matched(lambda truth, noise, _: np.column_stack([truth + noise, noise])).value > 0.9
    if variable == "risk":
        by_round = matched(lambda truth, noise, prompts: decoys(prompts)[:, 1:2])
        assert abs(by_round.value) < 0.2


def test_f1_is_that_of_the_textbook():
    from sklearn.metrics import f1_score

    luck = np.random.default_rng(0)
    truth, told = (luck.random(50) < 0.4).astype(float), luck.random(50) < 0.5
    assert f1(truth, told) == pytest.approx(f1_score(truth, told))
    assert f1(np.zeros(5), np.zeros(5, bool)) == 0


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


def test_exchanging_everything_behind_the_last_block_makes_the_others_decision(untrained):
    pairs = Pairs(untrained, "sentiment", "judge", 24)
    everything = Candidate("all", "sentiment", 5, lambda stream: stream, torch.eye(128))
    with torch.no_grad():
        others = pairs.base.outcomes(5, pairs.source_streams[5])
        torch.testing.assert_close(pairs.exchanged(everything), others, atol=1e-6, rtol=1e-4)
        before = pairs.base.outcomes(5)
    assert float((others - before).abs().max()) > 1e-5
    # The slope by hand.
    should = pairs.should.tolist()
    changed = (others - before).tolist()
    slope = sum(c * s for c, s in zip(changed, should, strict=True)) / sum(s * s for s in should)
    assert pairs.effect(everything) == pytest.approx(slope, abs=1e-6)
    assert pairs.effect_interval(everything).value == pytest.approx(slope, abs=1e-6)


def test_writing_what_is_there_changes_nothing(untrained):
    pairs = Pairs(untrained, "bias", "judge", 12)
    pairs.source_streams = pairs.base.streams
    candidate = direction("own", "bias", 2, torch.ones(128))
    assert pairs.effect(candidate) == pytest.approx(0, abs=1e-6)


def test_a_network_that_learned_nothing_has_no_cause(untrained):
    trials = Trials(untrained, 32)
    for variable in VARIABLES:
        got = trials.score(untrained.planted(variable))
        assert abs(got.effect) < 0.05
        assert got.alignment == pytest.approx(1, abs=1e-5)
        assert not got.is_cause
        [random] = untrained.random(variable, 2, 1)
        assert trials.score(random).alignment is None


def test_alignment_counts_what_can_be_written_once(untrained):
    trials = Trials(untrained, 12)
    planted, other = untrained.directions[0], untrained.directions[1]
    for vectors, along in (([other, -other, other], 0), ([planted, -planted, other], 1)):
        write = torch.stack(vectors)
        candidate = Candidate("set", "risk", 3, lambda stream, write=write: stream @ write.T, write)
        assert trials.score(candidate).alignment == pytest.approx(along, abs=1e-5)


def test_no_text_and_no_person_is_both_learned_from_and_judged(untrained):
    trials = Trials(untrained, 30)
    for variable in VARIABLES:
        keys = [
            {p.split_key for p in (*sample.prompts[variable], *sample.pairs[variable].base.prompts)}
            for sample in (trials.learn, trials.judge)
        ]
        assert not keys[0] & keys[1]
        assert not keys[1] & {p.split_key for p in trials.learn.draw(variable, "probe", 60)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": -1}, "A layer is 0 to 5"),
        ({"layer": 6}, "A layer is 0 to 5"),
        ({"write": torch.ones(1, 64)}, r"must be \[k, 128\]"),
        ({"write": torch.ones(0, 128)}, r"must be \[k, 128\]"),
        ({"write": torch.zeros(1, 128)}, "no direction"),
        ({"write": torch.full((1, 128), float("nan"))}, "no direction"),
    ],
)
def test_a_candidate_that_means_nothing_is_refused(change, message):
    fine = {"name": "x", "variable": "risk", "layer": 3, "write": torch.ones(1, 128)}
    with pytest.raises(ConfigError, match=message):
        Candidate(read=lambda stream: stream[:, :1], **{**fine, **change})


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
