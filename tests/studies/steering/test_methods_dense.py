import numpy as np
import pytest
import torch
from methods_material import EARLY, LATE, MadeUp, N, good_share, recipe
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fluoroscope import organism
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.interventions.moves import MoveAlong
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.organism.vectors import planted_vector
from fluoroscope.studies.steering.methods.base import make_plan
from fluoroscope.studies.steering.methods.dense import PCA

DENSE = ["caa", "probe", "pca"]
POINT = "3.resid_post"


@pytest.fixture(scope="module")
def material():
    return MadeUp()


def sides(material, point):
    x, y = material.dense(point), material.outcomes()
    return x[y == 1], x[y == 0]


@pytest.mark.parametrize("method", DENSE)
def test_the_planted_direction_is_found_at_the_layer_that_helps(method):
    material = MadeUp()
    plan = make_plan(recipe(method), material)
    (part,) = plan.parts
    assert str(part.point) == LATE
    assert good_share(part, material) > 0.85
    assert "1.resid_post is the best of 2 layers" in plan.note
    # The unsteered model and each layer, once each.
    assert len(material.judged) == 3


@pytest.mark.parametrize("method", DENSE)
def test_the_layer_that_leads_past_the_aim_is_not_picked(method):
    # About 3 is added along the good direction: to 0.8 at one layer, to 1.4 at the other.
    helps = {EARLY: 0.3, LATE: 0.1}
    for towards, picked in ((None, EARLY), (0.8, LATE)):
        (part,) = make_plan(recipe(method), MadeUp(helps=helps, towards=towards)).parts
        assert str(part.point) == picked
    # The gain is what is left of the distance of 0.3.
    assert part.facts["validation_gain"] == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize("method", DENSE)
def test_a_part_is_a_unit_vector_with_the_distance_of_the_means(material, method):
    plan = make_plan(recipe(method, layers=[EARLY, LATE]), material)
    assert [str(part.point) for part in plan.parts] == [EARLY, LATE]
    for part in plan.parts:
        high, low = sides(material, part.point)
        u = part.direction.double().numpy()
        assert np.linalg.norm(u) == pytest.approx(1, abs=1e-6)
        assert part.coefficient == pytest.approx(high.mean(0) @ u - low.mean(0) @ u, abs=1e-5)
        assert part.coefficient > 0
        assert part.target == pytest.approx(high.mean(0) @ u, abs=1e-4)
        assert part.latent is None
        assert part.direction.dtype == torch.float32


def test_caa_is_the_difference_of_means(material):
    (part,) = make_plan(recipe("caa", layers=[LATE]), material).parts
    high, low = sides(material, LATE)
    added = part.coefficient * part.direction.double().numpy()
    np.testing.assert_allclose(added, high.mean(0) - low.mean(0), atol=1e-5)


def test_layers_that_are_named_are_not_tried():
    material = MadeUp()
    make_plan(recipe("caa", layers=[EARLY, LATE]), material)
    assert not material.judged


def test_the_probe_is_the_gradient_of_the_regression_on_standardised_activations(material):
    (part,) = make_plan(recipe("probe", layers=[LATE]), material).parts
    x, y = material.dense(LATE), material.outcomes() == 1
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=part.facts["C"], max_iter=1000).fit(scaler.transform(x), y)
    step = 1e-3 * part.direction.double().numpy()
    base = model.decision_function(scaler.transform(x[:1]))
    along = model.decision_function(scaler.transform(x[:1] + step)) - base
    # No step of the same length changes the logit more.
    gradient = model.coef_[0] / scaler.scale_
    assert along[0] == pytest.approx(1e-3 * np.linalg.norm(gradient), rel=1e-4)
    assert 0.9 < part.facts["auroc"] <= 1


def test_the_auroc_of_a_probe_of_noise_is_that_of_chance():
    material = MadeUp()
    random = np.random.default_rng(1)
    material._dense = {p: random.normal(size=(N, 16)) for p in (EARLY, LATE)}
    (part,) = make_plan(recipe("probe", layers=[LATE]), material).parts
    assert 0.35 < part.facts["auroc"] < 0.65


def test_a_probe_without_groups_on_both_sides_says_no_auroc(monkeypatch):
    material = MadeUp()
    alone = ["one" if y else f"g{i}" for i, y in enumerate(material.outcomes())]
    monkeypatch.setattr(material, "groups", lambda samples=None: alone)
    (part,) = make_plan(recipe("probe", layers=[LATE]), material).parts
    assert part.facts["auroc"] is None
    assert part.facts["C"] == 1e-2


def test_pca_maximises_the_square_along_it(material):
    x, y = material.dense(LATE), material.outcomes() == 1
    found, facts = PCA().direction(x, y, np.arange(N), 0)
    rows = np.where(y[:, None], x - x[~y].mean(0), x - x[y].mean(0))
    values, vectors = np.linalg.eigh(rows.T @ rows)
    assert abs(found @ vectors[:, -1]) == pytest.approx(1, abs=1e-6)
    assert facts["share"] == pytest.approx(values[-1] / values.sum())


def test_clamping_a_direction_moves_up_to_the_mean_of_the_successes(material):
    plan = make_plan(recipe("caa", layers=[LATE], action="clamp"), material)
    ((move,),) = plan.edits(1.0, material.saes).values()
    assert isinstance(move, MoveAlong)
    _, low = sides(material, LATE)
    u = plan.parts[0].direction.double()
    moved = move(torch.from_numpy(low.mean(0)[None]))[0] @ u
    assert float(moved) == pytest.approx(plan.parts[0].target, abs=1e-4)


def test_a_direction_that_leads_nowhere_is_refused():
    material = MadeUp()
    material._dense = {p: np.ones((N, 16)) for p in (EARLY, LATE)}
    with pytest.raises(ConfigError, match="leads nowhere"):
        make_plan(recipe("caa", layers=[LATE]), material)


def test_a_validation_side_of_one_group_is_refused(monkeypatch):
    material = MadeUp()
    monkeypatch.setattr(MadeUp, "validation", property(lambda self: []))
    for method in ("caa", "corrsteer-p", "corrsteer-greedy"):
        with pytest.raises(ConfigError, match="validation side of two groups"):
            make_plan(recipe(method), material)


def test_random_latents_stand_for_the_picks_by_the_same_amount(material):
    picks = make_plan(recipe("corrsteer-a"), material).parts
    drawn = make_plan(recipe("random-latents"), material).parts
    for pick, part in zip(picks, drawn, strict=True):
        assert part.point == pick.point
        assert part.latent != pick.latent
        assert part.facts["control_of"] == pick.latent
        assert part.coefficient == pick.coefficient
        assert torch.equal(part.direction, material.saes[str(part.point)].W_dec[part.latent])
        assert part.facts["r"] != pick.facts["r"]


def test_random_latents_of_picks_that_go_with_failure_are_removed(material):
    settings = {"sign": "negative", "action": "clamp"}
    picks = make_plan(recipe("corrsteer-a", **settings), material).parts
    drawn = make_plan(recipe("random-latents", **settings), material).parts
    assert [p.target for p in drawn] == [0.0, 0.0]
    assert [p.coefficient for p in drawn] == [p.coefficient for p in picks]


@pytest.mark.parametrize("method", ["random-latents", "random-direction"])
def test_draws_differ_by_the_name_of_the_recipe_and_by_nothing_else(material, method):
    def drawn(name):
        parts = make_plan(recipe(method, name=name), material).parts
        return torch.stack([part.direction for part in parts])

    assert torch.equal(drawn("first"), drawn("first"))
    assert any(not torch.equal(drawn("first"), drawn(name)) for name in ("second", "third"))


def test_random_directions_add_as_much_as_a_does(material):
    whole = make_plan(recipe("corrsteer-a"), material).added()
    control = make_plan(recipe("random-direction"), material).added()
    assert list(control) == list(whole)
    for point, added in control.items():
        assert float(added.norm()) == pytest.approx(float(whole[point].norm()), rel=1e-5)
        assert abs(float(torch.cosine_similarity(added, whole[point], dim=0))) < 0.9


@pytest.mark.parametrize("method", ["random-latents", "random-direction"])
@pytest.mark.parametrize("sign", ["positive", "negative"])
def test_clamped_controls_change_every_sample_as_much_as_what_they_control_for(
    material, method, sign
):
    settings = {"action": "clamp", "sign": sign}
    whole = make_plan(recipe("corrsteer-a", **settings), material)
    control = make_plan(recipe(method, **settings), material)
    assert [str(part.point) for part in control.parts] == [EARLY, LATE]
    for part, pick in zip(control.parts, whole.parts, strict=True):
        assert part.amount_of == pick.latent != part.latent
        rows = material.saes[str(part.point)].W_dec.detach()
        # Activations in some of which the pick is active, and in others not.
        random = torch.randn(64, rows.shape[1], generator=torch_stream(0, "activations"))
        x = random + torch.linspace(0, 9, 64)[:, None] * rows[pick.latent]
        (own,), (other,) = (plan.edits(1.5, material.saes)[part.point] for plan in (whole, control))
        own_change, change = (edit(x).detach() - x for edit in (own, other))
        size = own_change.norm(dim=1)
        torch.testing.assert_close(change.norm(dim=1), size, rtol=0, atol=1e-3)
        assert size.max() > 0.1
        most = int(size.argmax())
        cosine = torch.cosine_similarity(change[most], own_change[most], dim=0)
        assert abs(float(cosine)) < 0.95
        along = torch.cosine_similarity(change[most], part.direction, dim=0)
        assert abs(float(along)) == pytest.approx(1, abs=1e-3)
        if method == "random-latents":
            cosine = torch.cosine_similarity(part.direction, rows[part.latent], dim=0)
            assert float(cosine) > 0.999


@pytest.mark.parametrize("method", ["random-latents", "random-direction"])
def test_controls_that_add_read_no_latent(material, method):
    parts = make_plan(recipe(method), material).parts
    assert [part.amount_of for part in parts] == [None, None]


def test_asking_is_an_instruction_without_parts(material):
    plan = make_plan(recipe("prompt-only"), MadeUp(instruction="Be fair. "))
    assert plan.instruction == "Be fair. "
    assert not plan.parts
    with pytest.raises(ConfigError, match="there is none"):
        make_plan(recipe("prompt-only"), material)


@pytest.fixture(scope="module")
def whole():
    return organism.load()


class OnTheOrganism(MadeUp):
    """Activations whose successes lie by so much further towards less bias."""

    def __init__(self, whole, distance):
        super().__init__()
        self.model = whole.model
        self.saes = {POINT: whole.saes[3, "batch_topk"]}
        self.bias = planted_vector("bias").directions[HookPoint(POINT)].double().numpy()
        random = np.random.default_rng(0)
        noise = random.normal(size=(N, len(self.bias)))
        self._dense = {POINT: noise - distance * np.outer(self._y, self.bias)}


def test_the_planted_direction_points_to_less_bias(whole):
    material = OnTheOrganism(whole, 8.0)
    (part,) = make_plan(recipe("planted"), material).parts
    assert str(part.point) == POINT
    np.testing.assert_allclose(part.direction.numpy(), -material.bias, atol=1e-6)
    assert part.coefficient == pytest.approx(8, abs=0.5)


def test_the_planted_direction_is_not_turned_by_an_outcome_that_is_no_fairness(whole):
    with pytest.raises(ConfigError, match="further towards more"):
        make_plan(recipe("planted"), OnTheOrganism(whole, -8.0))


def test_only_the_organism_has_a_planted_direction(material):
    with pytest.raises(ConfigError, match="Only the organism"):
        make_plan(recipe("planted"), material)
