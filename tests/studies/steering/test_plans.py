"""A plan is its parts: what it adds or clamps, as edits, as a file and as a steering vector."""

import math
from dataclasses import replace

import pytest
import torch

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.interventions.edits import AddDirection
from fluoroscope.interventions.moves import MoveAlong
from fluoroscope.interventions.vectors import load_vector, save_vector
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.tiny import tiny_model
from fluoroscope.sae.jumprelu import JumpReLU, JumpReLUConfig
from fluoroscope.sae.latent_moves import MoveLatent, MoveLatentAlong
from fluoroscope.studies.steering.plan_files import load_plan, save_plan
from fluoroscope.studies.steering.plans import Part, Plan
from fluoroscope.studies.steering.recipes import Recipe

EARLY, LATE = HookPoint("0.resid_post"), HookPoint("1.resid_post")
WIDTH = 16


def vector(seed):
    return torch.randn(WIDTH, generator=torch_stream(seed, "plans"))


@pytest.fixture(scope="module")
def saes():
    made = {}
    for point in (EARLY, LATE):
        sae = JumpReLU(JumpReLUConfig(d_model=WIDTH, d_sae=20, target_l0=5), seed=point.layer)
        made[str(point)] = sae.requires_grad_(False)
    return made


def plan(action="add", latents=False, **settings):
    recipe = Recipe(name="mine", method="caa", action=action, **settings)
    numbers = (3, 4, 5) if latents else (None, None, None)
    parts = [
        Part(LATE, vector(0), 2.0, 2.5, numbers[0], {"r": 0.5, "r_low": math.nan, "q": None}),
        Part(LATE, vector(1), -1.0, 0.0, numbers[1]),
        Part(EARLY, vector(2), 0.5, 0.25, numbers[2], {"frequency": 0.125}),
    ]
    return Plan(recipe, parts, note="a note")


def test_adding_adds_the_sum_of_the_parts_times_the_strength(saes):
    one = plan()
    edits = one.edits(1.5, saes)
    assert list(edits) == [EARLY, LATE]
    x = vector(9)
    for point, expected in ((EARLY, 0.5 * vector(2)), (LATE, 2 * vector(0) - vector(1))):
        (edit,) = edits[point]
        assert isinstance(edit, AddDirection)
        torch.testing.assert_close(edit(x), x + 1.5 * expected)
        torch.testing.assert_close(one.added()[point], expected)


def test_at_strength_zero_or_without_parts_nothing_is_edited(saes):
    assert plan().edits(0, saes) == {}
    assert plan("clamp").edits(0, saes) == {}
    assert Plan(plan().recipe, []).edits(1.0, saes) == {}
    assert Plan(plan().recipe, []).added() == {}


def test_clamping_moves_latents_to_their_targets(saes):
    edits = plan("clamp", latents=True).edits(1.0, saes)
    (edit,) = edits[LATE]
    assert isinstance(edit, MoveLatent)
    x = vector(9)
    sae = saes[str(LATE)]
    f = sae.encode(x[None])[0]
    expected = x + (2.5 - f[3]) * sae.W_dec[3] + (0.0 - f[4]) * sae.W_dec[4]
    torch.testing.assert_close(edit(x), expected, rtol=0, atol=1e-5)


def test_clamping_moves_components_up_or_down_by_the_sign_of_the_coefficient(saes):
    edits = plan("clamp").edits(1.0, saes)
    assert [(edit.side, edit.target) for edit in edits[LATE]] == [(1, 2.5), (-1, 0.0)]
    assert all(isinstance(edit, MoveAlong) for edit in edits[LATE])


def test_what_lends_an_amount_writes_it_along_its_own_direction(saes):
    parts = [replace(part, latent=None, amount_of=3) for part in plan("clamp").parts[::2]]
    edits = Plan(plan("clamp").recipe, parts).edits(0.5, saes)
    (edit,) = edits[LATE]
    assert isinstance(edit, MoveLatentAlong)
    x, sae = vector(9), saes[str(LATE)]
    amount = 0.5 * (2.5 - sae.encode(x[None])[0, 3]) * sae.W_dec[3].norm()
    expected = x + amount * vector(0) / vector(0).norm()
    torch.testing.assert_close(edit(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("latents", [True, False])
def test_a_plan_is_the_same_once_it_was_saved_and_so_are_its_bytes(tmp_path, latents):
    one = plan("clamp", latents)
    one = replace(one, parts=[replace(one.parts[0], amount_of=7), *one.parts[1:]])
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_plan(one, tmp_path / name)
    loaded = load_plan(tmp_path / "a")
    assert (loaded.recipe, loaded.note, loaded.instruction) == (one.recipe, one.note, "")
    for part, other in zip(loaded.parts, one.parts, strict=True):
        assert torch.equal(part.direction, other.direction)
        for name in ("point", "coefficient", "target", "latent", "amount_of"):
            assert getattr(part, name) == getattr(other, name)
    assert loaded.parts[0].facts["r"] == 0.5
    assert math.isnan(loaded.parts[0].facts["r_low"])
    save_plan(loaded, tmp_path / "b")
    for file in ("plan.json", "plan.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_plan_without_parts_is_a_file_as_well(tmp_path):
    save_plan(Plan(plan().recipe, [], "Be fair. "), tmp_path)
    loaded = load_plan(tmp_path)
    assert list(loaded.parts) == []
    assert loaded.instruction == "Be fair. "


def test_what_adds_is_a_steering_vector_that_does_the_same(tmp_path, saes):
    model = tiny_model("gpt2")
    one = plan()
    save_vector(one.vector(1.5, model.identity), tmp_path / "vector")
    loaded = load_vector(tmp_path / "vector")
    assert loaded.coefficient == 1.5
    for point, (edit,) in one.edits(1.5, saes).items():
        direction = loaded.directions[point]
        torch.testing.assert_close(loaded.coefficient * direction, edit(torch.zeros(WIDTH)))


def test_what_clamps_or_only_asks_is_no_steering_vector():
    model = tiny_model("gpt2")
    with pytest.raises(ConfigError, match="mine is no steering vector: it clamps"):
        plan("clamp").vector(1.0, model.identity)
    with pytest.raises(ConfigError, match="adds nothing"):
        Plan(plan().recipe, [], "Be fair. ").vector(1.0, model.identity)
