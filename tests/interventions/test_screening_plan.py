import pytest

from fluoroscope.interventions.screening import Screen
from fluoroscope.interventions.screening_plan import plan_screening
from fluoroscope.models.hook_points import HookPoint


@pytest.fixture(scope="module")
def screen(double_model):
    return Screen(double_model("llama"), "a prompt of some length")


def test_a_plan_counts_the_passes_and_tokens_of_every_prompt(screen):
    n_edits = {HookPoint("0.resid_post"): 1500, HookPoint("1.resid_pre"): 100}
    plan = plan_screening(screen, {**n_edits, HookPoint("2.resid_post"): 10}, n_prompts=3)
    length = len(screen.prompt)
    assert plan.cells == 3 * 1610
    # Both of the first two run from block 1 on, and go through together.
    assert plan.passes == 3 * (2 + 1 + 2)
    assert plan.block_tokens == 3 * (1600 * 2 + 10 * 0 + length * 3)
    assert plan.naive_block_tokens == 3 * 1610 * length * 3
    assert plan.seconds > 0


def test_measuring_leaves_the_model_as_it_was(screen):
    before = screen.next_tokens([{}])
    plan_screening(screen, {HookPoint("0.resid_post"): 5})
    assert not screen.model.interventions
    assert screen.next_tokens([{}]).equal(before)
