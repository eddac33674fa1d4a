"""Drift is what two plain passes over each text by itself say."""

import math

import numpy as np
import pytest
import torch

from fluoroscope.core.errors import ConfigError, InterventionError, ModelError, NumericsError
from fluoroscope.interventions.edits import AddDirection
from fluoroscope.interventions.positions import ALL, GENERATED, LAST, at
from fluoroscope.interventions.replies.drift import drift
from fluoroscope.interventions.steering import steer
from fluoroscope.models.tiny import tiny_model

TEXTS = [
    "some text to go on from",
    "another one",
    "a third text that is somewhat longer than those before it",
    "x y",
]


def naive(model, texts, edits, positions):
    """Text by text: the KL and both -log p of every position that predicts a token."""
    kl, before, after = [], [], []
    for text in texts:
        tokens = model.tokenize([text]).tokens if isinstance(text, str) else torch.tensor([text])
        p = model.forward(tokens)[0, :-1].detach().double().log_softmax(-1)
        with steer(model, edits, positions):
            q = model.forward(tokens)[0, :-1].detach().double().log_softmax(-1)
        own = range(len(p)), tokens[0, 1:]
        kl += (p.exp() * (p - q)).sum(-1).tolist()
        before += (-p[own]).tolist()
        after += (-q[own]).tolist()
    return np.array(kl), np.array(before), np.array(after)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("max_tokens", [1, 30, 10_000])
def test_drift_is_the_mean_over_all_predictions(family, max_tokens, double_model, direction):
    model = double_model(family)
    edits = {"1.resid_post": AddDirection(direction(0)), "0.mlp_out": AddDirection(direction(1))}
    kl, before, after = naive(model, TEXTS, edits, ALL)
    found = drift(model, TEXTS, edits, max_tokens=max_tokens)
    assert found.kl.value == pytest.approx(kl.mean(), rel=1e-9)
    assert found.kl.value > 0
    assert found.perplexity.value == pytest.approx(np.exp(before.mean()), rel=1e-9)
    assert found.perplexity_steered.value == pytest.approx(np.exp(after.mean()), rel=1e-9)
    shift = np.exp(after.mean()) / np.exp(before.mean())
    assert found.perplexity_ratio.value == pytest.approx(shift, rel=1e-9)
    lengths = [model.tokenize([text]).tokens.shape[1] for text in TEXTS]
    assert found.n_positions == sum(lengths) - 4 == len(kl)
    assert found.n_edits == 2 * sum(lengths)
    assert found.n_texts == 4
    # Nothing is left on the network.
    again = naive(model, TEXTS, {}, ALL)
    assert again[1].tolist() == again[2].tolist()


def test_an_edit_that_adds_nothing_moves_nothing(double_model, direction):
    model = double_model("llama")
    for edits in ({}, {"1.resid_post": AddDirection(direction(0), 0.0)}):
        found = drift(model, TEXTS, edits)
        assert found.kl.value == pytest.approx(0, abs=1e-12)
        assert found.perplexity_ratio.value == pytest.approx(1, abs=1e-12)
        assert found.kl.value >= 0


def test_only_the_named_positions_are_edited(double_model, direction):
    model, edits = double_model("gpt2"), {"1.resid_post": AddDirection(direction(0), 3.0)}
    kl, _, _ = naive(model, TEXTS, edits, at([0]))
    found = drift(model, TEXTS, edits, at([0]))
    assert found.kl.value == pytest.approx(kl.mean(), rel=1e-9)
    assert found.n_edits == 4


def test_more_of_a_direction_drifts_further(double_model, direction):
    model = double_model("llama")
    found = [
        drift(model, TEXTS, {"1.resid_post": AddDirection(direction(0), strength)}).kl.value
        for strength in (0.1, 0.3, 1.0)
    ]
    assert found == sorted(found)


def test_intervals_are_over_texts_or_over_groups_of_them(double_model, direction):
    model, edits = double_model("llama"), {"1.resid_post": AddDirection(direction(0))}
    random = np.random.default_rng(0)
    windows = [random.integers(5, 50, size=size).tolist() for size in random.integers(2, 9, 24)]
    alone = drift(model, windows, edits)
    kl, _, _ = naive(model, windows, edits, ALL)
    assert alone.kl.value == pytest.approx(kl.mean(), rel=1e-9)
    for interval in alone[:4]:
        assert interval.low < interval.value < interval.high
    copied = drift(model, windows * 2, edits, groups=[str(i) for i in range(24)] * 2)
    for interval, copy in zip(alone[:4], copied[:4], strict=True):
        assert tuple(copy) == pytest.approx(tuple(interval), rel=1e-9)
    assert math.isnan(drift(model, windows[:5], edits).kl.low)


def test_a_text_longer_than_the_model_reads_is_cut_into_windows(double_model, direction):
    model = double_model("gpt2")
    n = model.context_length
    tokens = np.random.default_rng(1).integers(5, 50, size=2 * n + 1).tolist()
    edits = {"1.resid_post": AddDirection(direction(0))}
    found = drift(model, [tokens], edits)
    # The last token is alone in its window and predicts nothing.
    kl, _, _ = naive(model, [tokens[:n], tokens[n : 2 * n]], edits, ALL)
    assert (found.n_positions, found.n_texts) == (2 * n - 2, 1)
    assert found.kl.value == pytest.approx(kl.mean(), rel=1e-9)


def test_a_model_in_float32_says_what_it_says_in_float64(direction):
    model = tiny_model("llama")
    edits = {"1.resid_post": AddDirection(direction(0).float())}
    single = drift(model, TEXTS, edits)
    model.network.double()
    double = drift(model, TEXTS, edits)
    assert single.kl.value == pytest.approx(double.kl.value, rel=1e-4)
    assert single.perplexity_ratio.value == pytest.approx(double.perplexity_ratio.value, rel=1e-5)


def test_edits_that_no_prediction_sees_are_refused(double_model, direction):
    model, edits = double_model("llama"), {"1.resid_post": AddDirection(direction(0))}
    for positions in (LAST | GENERATED, GENERATED):
        with pytest.raises(InterventionError, match="take ALL"):
            drift(model, TEXTS, edits, positions)


def test_texts_that_cannot_be_read_say_why(double_model, direction):
    model, edits = double_model("llama"), {"1.resid_post": AddDirection(direction(0))}
    with pytest.raises(ConfigError, match="list of texts"):
        drift(model, "text", edits)
    with pytest.raises(ConfigError, match="nothing to predict"):
        drift(model, [[7]], edits)
    with pytest.raises(InterventionError, match="token 100000"):
        drift(model, [[7, 100_000]], edits)
    with pytest.raises(ConfigError, match="needs a group"):
        drift(model, TEXTS, edits, groups=["a"])
    with pytest.raises(ModelError, match="encoder"):
        drift(double_model("bert"), TEXTS, {})
    huge = direction(0) / direction(0).abs().max() * 1e308
    with pytest.raises(NumericsError, match="not finite"):
        drift(model, TEXTS, {"1.resid_post": AddDirection(huge, 10.0)})
