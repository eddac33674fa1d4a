import json

import numpy as np
import polars as pl
import pytest
import torch
from methods_material import BAD, D_SAE, EARLY, GOOD, LATE, MadeUp, N, recipe

from fluoroscope.core.errors import ConfigError
from fluoroscope.features.correlation_selection import top_per_layer
from fluoroscope.features.examples import unembedded
from fluoroscope.interventions.edits import AddDirection
from fluoroscope.interventions.positions import at
from fluoroscope.interventions.steering import steer
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.latent_moves import MoveLatent
from fluoroscope.studies.steering.methods.base import METHODS, Method, make_plan
from fluoroscope.studies.steering.methods.corrsteer import candidates
from fluoroscope.studies.steering.methods.output_score import (
    FACTOR,
    NEUTRAL_PROMPT,
    OutputScore,
    output_scores,
)

OF_EVERY_LAYER = ["corrsteer-a", "mutual-information", "fisher", "latent-difference"]


@pytest.fixture(scope="module")
def material():
    return MadeUp()


def latents(plan):
    return [(str(part.point), part.latent) for part in plan.parts]


@pytest.mark.parametrize("name", list(METHODS))
def test_every_name_is_a_method_that_says_what_it_does(name):
    method = METHODS.load(name)
    assert issubclass(method, Method)
    assert method.about.endswith(".")
    assert method.plan is not Method.plan


def test_an_unknown_method_is_told_the_nearest(material):
    with pytest.raises(ConfigError, match="Did you mean 'corrsteer-a'"):
        make_plan(recipe("corsteer-a"), material)


@pytest.mark.parametrize("method", OF_EVERY_LAYER)
def test_the_planted_latent_of_every_layer_is_found(material, method):
    plan = make_plan(recipe(method), material)
    assert latents(plan) == [(EARLY, GOOD), (LATE, GOOD)]
    down = make_plan(recipe(method, sign="negative", action="clamp"), material)
    assert latents(down) == [(EARLY, BAD), (LATE, BAD)]


def test_s_is_the_larger_of_the_picks_of_a(material):
    (part,) = make_plan(recipe("corrsteer-s"), material).parts
    all_parts = make_plan(recipe("corrsteer-a"), material).parts
    assert part.facts["r"] == max(one.facts["r"] for one in all_parts)


def test_a_part_has_the_decoder_row_and_the_mean_over_successes(material):
    part = make_plan(recipe("corrsteer-a"), material).parts[1]
    x, y = material.latents[LATE][:, GOOD], material.outcomes()
    assert torch.equal(part.direction, material.saes[LATE].W_dec[GOOD].detach())
    assert part.coefficient == pytest.approx(x[y == 1].mean())
    assert part.facts["r"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert part.facts["is_significant"]
    json.dumps(part.facts, allow_nan=False)


def test_clamping_moves_to_the_coefficient_or_to_zero(material):
    up = make_plan(recipe("corrsteer-a", action="clamp"), material).parts[0]
    assert up.target == up.coefficient > 0
    plan = make_plan(recipe("corrsteer-a", action="clamp", sign="negative"), material)
    assert [part.target for part in plan.parts] == [0.0, 0.0]
    assert all(part.coefficient < 0 for part in plan.parts)
    edits = plan.edits(1.0, material.saes)
    (move,) = edits[HookPoint(LATE)]
    assert isinstance(move, MoveLatent)
    assert move.latents == (BAD,)


def test_only_the_layers_and_samples_that_are_named_are_looked_at(material):
    plan = make_plan(recipe("corrsteer-a", layers=[LATE], samples=80), material)
    assert latents(plan) == [(LATE, GOOD)]
    x, y = material.latents[LATE][:80, GOOD], material.outcomes()[:80]
    assert plan.parts[0].coefficient == pytest.approx(x[y == 1].mean())


@pytest.mark.parametrize("method", ["corrsteer-s", "fisher", "output-score", "caa", "probe"])
def test_layers_that_were_not_collected_are_named(material, method):
    with pytest.raises(ConfigError, match=r"asks for 2\.resid_post.*0\.resid_post, 1\.resid_post"):
        make_plan(recipe(method, layers=["2.resid_post"]), material)


@pytest.mark.parametrize("method", ["corrsteer-a", "output-score", "caa", "pca", "random-latents"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_outcome_of_one_side_alone_is_refused(method, value):
    # Outcomes vary, so that r could be told, but none is on the other side of the threshold.
    outcomes = np.abs(value - 0.4 * (np.arange(N) % 2))
    lacking = "failure" if value else "success"
    with pytest.raises(ConfigError, match=f"of 240 training samples none is a {lacking}"):
        make_plan(recipe(method), MadeUp(outcomes=outcomes))


def test_no_eligible_latent_says_how_many_were_tested():
    silent = {point: np.zeros((N, D_SAE)) for point in (EARLY, LATE)}
    for x in silent.values():
        x[:5, 0] = 1
    with pytest.raises(ConfigError, match="0 of 48 latents vary and are active often enough"):
        make_plan(recipe("corrsteer-a"), MadeUp(latents=silent))
    with pytest.raises(ConfigError, match="no significant latent with a positive r"):
        make_plan(recipe("output-score"), MadeUp(latents=silent))


def test_a_latent_that_would_add_nothing_is_left_out_and_named():
    material = MadeUp()
    y = material.outcomes()
    # Only ever active in failures, so that its mean over successes is 0.
    material.latents[EARLY][:, BAD] = 3 * (1 - y)
    plan = make_plan(recipe("corrsteer-a", sign="negative"), material)
    assert latents(plan) == [(LATE, BAD)]
    assert "Left out, as coefficient=positive is 0 or not known: 0.resid_post:9" in plan.note
    removed = make_plan(recipe("corrsteer-a", sign="negative", action="clamp"), material)
    assert latents(removed) == [(EARLY, BAD), (LATE, BAD)]
    with pytest.raises(ConfigError, match=r"is 0 or not known for each latent"):
        make_plan(recipe("corrsteer-a", sign="negative", layers=[EARLY]), material)
    quantile = recipe("corrsteer-a", sign="negative", layers=[EARLY], coefficient="quantile")
    with pytest.raises(ConfigError, match="coefficient=quantile"):
        make_plan(quantile, material)


def test_picks_that_may_be_chance_are_named():
    random = np.random.default_rng(5)
    noise = {point: np.maximum(random.normal(size=(N, D_SAE)), 0) for point in (EARLY, LATE)}
    plan = make_plan(recipe("corrsteer-a"), MadeUp(latents=noise))
    assert "Not beyond chance among 48 tests" in plan.note


def test_p_keeps_the_layer_that_helps_and_says_which_fell(material):
    plan = make_plan(recipe("corrsteer-p"), material)
    assert latents(plan) == [(LATE, GOOD)]
    assert "left out: 0.resid_post" in plan.note
    part = plan.parts[0]
    assert part.facts["validation_gain"] > part.facts["validation_error"] > 0
    # The gain is what the made-up side gives for what is added alone.
    assert part.facts["validation_gain"] == pytest.approx(0.1 * part.coefficient, abs=0.02)


def test_p_tries_at_the_strength_of_the_recipe():
    material = MadeUp()
    plan = make_plan(recipe("corrsteer-p", strength=2.0), material)
    assert {edit.coefficient for edits in material.judged for (edit,) in edits.values()} == {2.0}
    part = plan.parts[0]
    assert part.facts["validation_gain"] == pytest.approx(0.2 * part.coefficient, abs=0.02)


def test_p_has_no_parts_where_nothing_helps():
    plan = make_plan(recipe("corrsteer-p"), MadeUp(helps=()))
    assert not plan.parts
    assert plan.note.endswith("Nothing is left to steer with.")


@pytest.mark.parametrize("method", ["corrsteer-p", "corrsteer-greedy"])
def test_what_leads_past_the_aim_is_not_kept(method):
    # The pick of one layer brings 0.5 to about 0.7, that of the other to about 1.1.
    helps = {EARLY: 0.3, LATE: 0.1}
    more = make_plan(recipe(method), MadeUp(helps=helps))
    aimed = make_plan(recipe(method), MadeUp(helps=helps, towards=0.7))
    assert {(EARLY, GOOD), (LATE, GOOD)} <= set(latents(more))
    assert (LATE, GOOD) in latents(aimed)
    assert EARLY not in {point for point, _ in latents(aimed)}


def test_greedy_takes_what_helps_and_stops(material):
    plan = make_plan(recipe("corrsteer-greedy"), material)
    assert latents(plan)[0] == (LATE, GOOD)
    assert all(point == LATE for point, _ in latents(plan))
    assert "would gain" in plan.note


def test_greedy_adds_a_second_latent_only_beside_the_first():
    both = MadeUp(helps=(EARLY, LATE))
    plan = make_plan(recipe("corrsteer-greedy"), both)
    assert set(latents(plan)[:2]) == {(EARLY, GOOD), (LATE, GOOD)}
    gains = [part.facts["validation_gain"] for part in plan.parts[:2]]
    expected = [0.1 * part.coefficient for part in plan.parts[:2]]
    # Paired with what was kept before: the second gain is its own, not that of both.
    assert gains == pytest.approx(expected, abs=0.03)


def test_candidates_of_greedy_come_from_all_layers_in_turn(material):
    found = candidates(recipe("corrsteer-greedy"), material)
    assert len(found) == 10
    assert found["hook_point"].value_counts()["count"].to_list() == [5, 5]
    best = top_per_layer(material.table("max"))
    assert set(found.head(2)["latent"]) == set(best["latent"])


def test_sequential_adds_what_earlier_layers_have_not_moved():
    material = MadeUp(moved=0.5)
    whole = make_plan(recipe("corrsteer-a"), material).parts
    plan = make_plan(recipe("corrsteer-sequential"), material)
    assert plan.parts[0].coefficient == whole[0].coefficient
    assert plan.parts[1].coefficient == pytest.approx(whole[1].coefficient - 0.5)
    assert plan.parts[1].facts["moved_before"] == pytest.approx(0.5)
    # The first layer has nothing before it; the second is read with the first one's pick.
    ((point, edits),) = material.measured
    assert point == LATE
    ((where, (added,)),) = edits.items()
    assert str(where) == EARLY
    assert isinstance(added, AddDirection)
    assert torch.allclose(added.direction, whole[0].coefficient * whole[0].direction)


def test_sequential_never_adds_more_than_a_nor_the_other_way_round():
    whole = make_plan(recipe("corrsteer-a"), MadeUp()).parts
    against = make_plan(recipe("corrsteer-sequential"), MadeUp(moved=-0.2)).parts
    assert against[1].coefficient == whole[1].coefficient
    beyond = make_plan(recipe("corrsteer-sequential"), MadeUp(moved=5.0))
    assert latents(beyond) == [(EARLY, GOOD)]
    assert "Moved far enough by earlier layers: 1.resid_post:5." in beyond.note


def test_sequential_clamps_as_a_does():
    material = MadeUp(moved=0.5)
    plan = make_plan(recipe("corrsteer-sequential", action="clamp"), material)
    whole = make_plan(recipe("corrsteer-a", action="clamp"), material)
    assert [p.target for p in plan.parts] == [p.target for p in whole.parts]
    assert not material.measured


def test_output_scores_are_those_of_one_latent_at_a_time(material):
    """Brute force by the published code: sorted tokens, their places, one forward pass each."""
    model, sae, point = material.model, material.saes[LATE], HookPoint(LATE)
    wanted = [3, GOOD, BAD]
    found = output_scores(model, point, sae, wanted)
    batch = model.tokenize([NEUTRAL_PROMPT])
    seen = []
    model.run_until({point: lambda x: seen.append(x[0, -1])}, batch.tokens)
    with torch.no_grad():
        amount = FACTOR * float(sae.encode(seen[0][None]).max())
    last = batch.tokens.shape[1] - 1
    for latent, score in zip(wanted, found, strict=True):
        direction = sae.W_dec[latent].detach()
        lens = unembedded(model, direction[None])[0].topk(20).indices
        with torch.no_grad(), steer(model, {point: AddDirection(direction, amount)}, at([last])):
            p = model.forward(batch.tokens)[0, -1].double().softmax(dim=0)
        places = p.argsort(descending=True).argsort()
        expected = (1 - int(places[lens].min()) / len(p)) * float(p[lens].max())
        assert score == pytest.approx(expected, rel=1e-5)


def test_output_score_picks_by_r_among_the_latents_that_act(material, monkeypatch):
    table = material.table("max").filter(pl.col("is_significant") & (pl.col("r") > 0))
    assert set(table["latent"]) == {GOOD}
    acting = {EARLY: 0.01, LATE: 0.9}

    def scores(model, point, sae, chosen):
        return np.array([acting[str(point)]] * len(chosen))

    home = "fluoroscope.studies.steering.methods.output_score.output_scores"
    monkeypatch.setattr(home, scores)
    plan = OutputScore().plan(recipe("output-score"), material)
    assert latents(plan) == [(LATE, GOOD)]
    assert plan.parts[0].facts["output_score"] == 0.9
    assert "The 1 of 2 significant latents with an output score of 0.9 or more" in plan.note
    assert "none of them in 0.resid_post" in plan.note
