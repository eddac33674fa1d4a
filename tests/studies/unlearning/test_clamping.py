import numpy as np
import pytest
import torch

from fluoroscope.core.errors import InterventionError
from fluoroscope.interventions.positions import ALL
from fluoroscope.interventions.row_edits import row_edits
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.batch_topk import BatchTopK, BatchTopKConfig
from fluoroscope.sae.topk import TopK, TopKConfig
from fluoroscope.studies.unlearning.clamping import (
    UNTREATED,
    ClampActive,
    Treatment,
    behind_start,
    clamp_edits,
)
from fluoroscope.studies.unlearning.detecting import Detector

POINT = HookPoint("0.resid_post")


@pytest.fixture
def sae():
    made = BatchTopK(BatchTopKConfig(d_model=8, d_sae=24, k=6)).double()
    with torch.no_grad():
        made.b_dec.normal_()
        made.b_enc.normal_(std=0.3)
        made.threshold.fill_(0.4)
    return made


@pytest.fixture
def x():
    return torch.randn(50, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_an_active_latent_is_set_to_minus_the_strength_and_the_error_is_kept(sae, x):
    chosen = [1, 4, 9, 20]
    before = sae.encode(x)
    wanted = before.clone()
    wanted[:, chosen] = -7.0 * (before[:, chosen] > 0).double()
    assert (before[:, chosen] > 0).any()
    expected = x + (wanted - before) @ sae.W_dec
    torch.testing.assert_close(ClampActive(sae, chosen, 7.0)(x), expected)


def test_its_terms_are_its_change(sae, x):
    edit = ClampActive(sae, [0, 3, 5], 11.0)
    by_terms = sum(term.change(x) for term in edit.terms())
    torch.testing.assert_close(by_terms, edit.change(x))


def test_where_nothing_is_active_nothing_changes(sae, x):
    silent = x[(sae.encode(x)[:, [2, 7]] == 0).all(dim=1)]
    assert len(silent)
    assert torch.equal(ClampActive(sae, [2, 7], 100.0)(silent), silent)


def test_latents_that_depend_on_each_other_are_clamped_as_well(x):
    sae = TopK(TopKConfig(d_model=8, d_sae=24, k=3)).double()
    before = sae.encode(x)
    wanted = before.clone()
    wanted[:, 5] = -2.0 * (before[:, 5] > 0).double()
    expected = x + (wanted - before) @ sae.W_dec
    torch.testing.assert_close(ClampActive(sae, 5, 2.0)(x), expected)


@pytest.mark.parametrize("strength", [-1.0, float("nan")])
def test_a_strength_that_is_none_is_refused(sae, strength):
    with pytest.raises(InterventionError, match=r"strength of ClampActive"):
        ClampActive(sae, 0, strength)


def test_the_token_before_a_text_is_left_alone(organism_model, organism_saes):
    latents = {POINT: tuple(range(organism_saes[POINT].d_sae))}
    edits = clamp_edits(organism_model, organism_saes, latents, 5.0)
    seen = []
    tokens, mask = organism_model.tokenize(["Review: good."])
    for rows in ([{}], [edits]):
        with row_edits(organism_model, rows):
            organism_model.run_until({POINT: lambda x: seen.append(x.clone())}, tokens, mask)
    plain, edited = seen
    assert torch.equal(plain[:, 0], edited[:, 0])
    assert (plain[:, 1:] != edited[:, 1:]).any(dim=-1).all()


def test_positions_are_all_where_no_token_stands_before_a_text(organism_model, monkeypatch):
    assert str(behind_start(organism_model)) == "after(<bos>)"
    tokenizer = organism_model.tokenizer
    bare = tokenizer.__class__(tokenizer_object=tokenizer._tokenizer, bos_token=None)
    monkeypatch.setattr(organism_model, "tokenizer", bare)
    assert behind_start(organism_model) == ALL


def test_a_latent_without_an_sae_is_named(organism_model, organism_saes):
    with pytest.raises(InterventionError, match=r"no SAE of 2\.resid_post"):
        clamp_edits(organism_model, organism_saes, {HookPoint("2.resid_post"): (1,)}, 5.0)


class Mentions(Detector):
    """Flags what names somebody."""

    def scores(self, model, prompts):
        return np.array(["Kaka" in one for one in prompts], dtype=float)


def test_a_row_that_is_not_flagged_is_bit_for_bit_as_without(organism_model, organism_saes):
    point = HookPoint("4.resid_post")
    edits = clamp_edits(
        organism_model, organism_saes, {point: tuple(range(0, 512, 3))}, strength=20.0
    )
    treatment = Treatment(edits, Mentions(organism_saes, 0.5))
    prompts = ["Question: What is the job of Kaka Fenshaw?", "Question: What is the job of Al By?"]
    tokens, mask = organism_model.tokenize(prompts)
    plain = organism_model.forward(tokens, mask)
    with treatment.rows(organism_model, prompts):
        treated = organism_model.forward(tokens, mask)
    assert torch.equal(plain[1], treated[1])
    assert not torch.allclose(plain[0], treated[0], atol=0.1)
    np.testing.assert_array_equal(treatment.flags(organism_model, prompts), [True, False])


def test_no_treatment_flags_nothing_and_edits_nothing(organism_model):
    assert not UNTREATED.flags(organism_model, ["a", "b"]).any()
    with UNTREATED.rows(organism_model, ["a"]):
        assert organism_model.interventions == []
