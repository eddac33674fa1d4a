import math

import pytest
import torch

from fluoroscope.core.errors import InterventionError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.interventions.screening import Screen
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.tiny import tiny_model
from fluoroscope.sae.attribution import attribute, log_odds_of, probability_of, rank_agreement
from fluoroscope.sae.jumprelu import JumpReLU, JumpReLUConfig
from fluoroscope.sae.latent_edits import latent_block

PROMPT = "a prompt to attribute"
TOKENS = [70, 71, 72]


@pytest.fixture(scope="module")
def setting():
    # Its norms compute in float64, so that small changes are not lost in rounding.
    model = tiny_model("gpt2")
    model.network.double()
    saes = {}
    for layer in range(3):
        sae = JumpReLU(JumpReLUConfig(d_model=16, d_sae=40, target_l0=10), seed=layer).double()
        with torch.no_grad():
            sae.threshold.fill_(0.2)
        saes[HookPoint(layer, "resid_post")] = sae.requires_grad_(False)
    return model, saes


def exact(screen, saes, values, score):
    """Differences of the score, by exact screening."""
    found = {}
    for point, sae in saes.items():
        block = latent_block(sae, point, torch.arange(sae.d_sae), values[point])
        shares = screen.next_tokens(block)
        found[point] = score(shares.log()) - score(screen.baseline.log()[None])
    return found


@pytest.mark.parametrize("make", [probability_of, log_odds_of])
@pytest.mark.parametrize("steps", [0, 4])
def test_small_changes_are_estimated_to_first_order(setting, make, steps):
    model, saes = setting
    screen, score = Screen(model, PROMPT), make(TOKENS)
    x = {}
    tokens = torch.tensor([screen.prompt])
    with model.hooked({p: lambda v, p=p: x.__setitem__(p, v[0, -1].detach()) for p in saes}):
        model.forward(tokens)
    small = 1e-5
    values = {point: sae.encode(x[point]) + small for point, sae in saes.items()}
    estimate = attribute(screen, saes, values, score, steps)
    truth = exact(screen, saes, values, score)
    for point in saes:
        scale = truth[point].abs().max()
        torch.testing.assert_close(estimate[point] / scale, truth[point] / scale, atol=1e-3, rtol=0)


def test_estimates_rank_large_changes(setting):
    model, saes = setting
    screen, score = Screen(model, PROMPT), log_odds_of(TOKENS)
    values = {point: torch.full((sae.d_sae,), 0.5).double() for point, sae in saes.items()}
    estimate = attribute(screen, saes, values, score)
    truth = exact(screen, saes, values, score)
    point = HookPoint("2.resid_post")
    table = rank_agreement(truth[point], estimate[point])
    rho = dict(zip(table["name"], table["value"], strict=True))["spearman"]
    assert rho > 0.9


def test_rank_agreement_is_one_for_the_truth_and_about_zero_for_noise():
    noise = torch.randn(400, generator=torch_stream(0, "noise"))
    other = torch.randn(400, generator=torch_stream(1, "noise"))
    same = {row["name"]: row for row in rank_agreement(noise, noise).to_dicts()}
    assert {round(row["value"], 12) for row in same.values()} == {1.0}
    apart = {row["name"]: row for row in rank_agreement(noise, other).to_dicts()}
    assert apart["spearman"]["low"] < 0 < apart["spearman"]["high"]
    assert apart["found of the strongest tenth"]["value"] < 0.3
    flipped = {row["name"]: row for row in rank_agreement(noise, -noise).to_dicts()}
    assert flipped["spearman"]["value"] == pytest.approx(-1)
    assert flipped["right sign in the strongest tenth"]["value"] == 0
    constant = rank_agreement(torch.zeros(50), other[:50]).row(0, named=True)
    assert math.isnan(constant["value"])


def test_a_logarithm_of_odds_is_that_of_the_probability():
    logits = torch.randn(5, 20, generator=torch_stream(2, "logits"))
    p = probability_of([1, 2], temperature=0.5)(logits)
    torch.testing.assert_close(log_odds_of([1, 2], temperature=0.5)(logits), torch.logit(p))


def test_what_is_missing_for_an_attribution_is_named(setting):
    model, saes = setting
    screen = Screen(model, PROMPT)
    with pytest.raises(InterventionError, match="No SAE"):
        attribute(screen, {}, {}, probability_of(TOKENS))
    with pytest.raises(InterventionError, match=r"40 latents at 0\.resid_post"):
        attribute(screen, saes, {}, probability_of(TOKENS))
    with pytest.raises(InterventionError, match="three effects"):
        rank_agreement(torch.ones(2), torch.ones(2))
