"""What a search of strengths goes by, and what controls are given."""

import math

import polars as pl
import pytest
import torch

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError
from fluoroscope.data.tasks.samples import Sample, Score
from fluoroscope.data.tasks.scorers import ChoiceScorer
from fluoroscope.interventions.replies.answering import Asking, Reply
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.tiny import tiny_model
from fluoroscope.steps.task_parts import check_within, part_of
from fluoroscope.studies.steering.config import SteeringConfig, expanded
from fluoroscope.studies.steering.judging import goal, judged, text_perplexity, watched_texts
from fluoroscope.studies.steering.plans import Part, Plan
from fluoroscope.studies.steering.recipes import Recipe
from fluoroscope.studies.steering.spec import SteeringSpec
from fluoroscope.studies.steering.steps.evaluate import Trial, is_steered
from fluoroscope.studies.steering.steps.tune import with_fixed

POINT = HookPoint("1.resid_post")


def sample(i, kind="yes", prompt="A prompt"):
    return Sample(id=str(i), group_id=str(i), prompt=prompt, category="c", facts={"kind": kind})


def reply(value, text="x"):
    return Reply(text, Score(value, True, "so"))


SAMPLES = [sample(0), sample(1), sample(2, "no"), sample(3, "no")]


def test_the_goal_is_the_mean_score_or_the_distance_of_each_parts_mean():
    replies = [reply(value) for value in (0.0, 0.2, 0.9, 0.9)]
    assert goal(SAMPLES, replies, None, None) == pytest.approx(0.5)
    # All together are fair, and no part is: 1 - (0.4 + 0.4) / 2.
    assert goal(SAMPLES, replies, 0.5, None) == pytest.approx(1.0)
    assert goal(SAMPLES, replies, 0.5, "kind") == pytest.approx(0.6)


def test_parts_are_facts_or_categories_and_a_fact_must_be_there():
    assert part_of(SAMPLES[0], None) == "c"
    assert part_of(SAMPLES[0], "kind") == "kind yes"
    with pytest.raises(ConfigError, match=r"evaluate.within=kid: .*there are: kind"):
        part_of(SAMPLES[0], "kid")
    with pytest.raises(ConfigError, match=r"evaluate\.within=kid"):
        check_within(SAMPLES, "kid")
    check_within(SAMPLES, "kind")
    check_within(SAMPLES, None)


def test_watched_texts_are_prompts_without_repeats_or_paragraphs_of_a_file(tmp_path):
    prompts = [sample(i, prompt=f"Prompt {i % 3}") for i in range(9)]
    assert watched_texts(None, prompts, 2) == ["Prompt 0", "Prompt 1"]
    pairs = [Sample(id="p", group_id="p", prompt="", options=("One thing", "another"))]
    assert watched_texts(None, pairs, 5) == ["One thing"]
    (tmp_path / "texts.txt").write_text("One.\n\nTwo\nlines.\n\n\n\n")
    assert watched_texts(str(tmp_path / "texts.txt"), [], 5) == ["One.", "Two\nlines."]
    with pytest.raises(ConfigError, match=r"strength.texts=.*is no file"):
        watched_texts(str(tmp_path / "no.txt"), [], 5)


def test_the_perplexity_of_texts_is_that_of_each_in_a_pass_of_its_own():
    model = tiny_model("gpt2")
    model.network.double()
    said = ["and so on", " ", "more"]
    asked = [sample(i, prompt=p) for i, p in enumerate(("Some text", "ab", "x y"))]
    total, n = 0.0, 0
    for one, text in zip(asked, said, strict=True):
        if not text.strip():
            continue
        tokens = model.tokenize([one.prompt + text]).tokens
        behind = tokens.shape[1] - len(model.tokenizer(one.prompt)["input_ids"])
        with torch.no_grad():
            total -= float(model.token_scores(tokens)[0, -behind:].sum())
        n += behind
    found = text_perplexity(
        model, asked, [reply(1.0, text) for text in said], Asking(ChoiceScorer(), "texts")
    )
    assert found == pytest.approx(math.exp(total / n), rel=1e-9)
    silent = text_perplexity(model, asked[:1], [reply(1.0, " ")], Asking(ChoiceScorer(), "texts"))
    assert math.isnan(silent)


def test_the_norm_that_is_watched_is_that_of_what_is_added_and_of_nothing_that_clamps():
    part = Part(POINT, torch.eye(16)[0], 3.0, 3.0)
    norms = {POINT: 10.0}
    for action, share in (("add", 0.6), ("clamp", None)):
        recipe = Recipe(name="r", method="caa", action=action)
        found = judged(Plan(recipe, [part]), 2.0, 0.5, [reply(1.0)], None, norms, None)
        assert found.norm_share == pytest.approx(share)
        assert found.perplexity_ratio is None
        assert found.repetition is None
    text = judged(Plan(recipe, [part]), 2.0, 0.5, [reply(1.0, "a a a a a a")], None, norms, 1.3)
    assert text.perplexity_ratio == 1.3
    assert text.repetition > 0


def config(**changes):
    """Recipes with what `with_fixed` looks at."""
    settings = {"model": "organism", "task": "organism-bias", "against": [], **changes}
    settings["evaluate"] = {"ablations": False, "draws": 1}
    spec = build(SteeringSpec, settings)
    recipes = expanded(spec, ["1.resid_post", "2.resid_post"], is_organism=False)
    return SteeringConfig.model_construct(all_recipes=recipes)


def chosen(strengths):
    rows = [
        {"recipe": name, "strength": strength, "is_any_better": strength != 0, "note": ""}
        for name, strength in strengths.items()
    ]
    return pl.DataFrame(rows)


def fixed(settings, strengths):
    found = with_fixed(chosen(strengths), settings)
    assert found["recipe"].to_list() == [recipe.name for recipe in settings.all_recipes]
    return {row["recipe"]: (row["strength"], row["note"]) for row in found.iter_rows(named=True)}


def test_controls_are_as_strong_as_what_they_are_matched_to():
    settings = config(against=["caa", "random-latents", "random-direction"])
    found = fixed(settings, {"corrsteer-a": 1.5, "caa": 3.0})
    for name in ("random-latents 1", "random-direction 1"):
        assert found[name] == (1.5, "as strong as corrsteer-a")


def test_controls_are_matched_to_corrsteer_a_whatever_the_main_method_is():
    settings = config(method="caa", against=["random-latents", "corrsteer-a"])
    found = fixed(settings, {"corrsteer-a": 0.5, "caa": 3.0})
    assert found["random-latents 1"] == (0.5, "as strong as corrsteer-a")
    alone = config(method="caa", against=["random-latents"])
    found = fixed(alone, {"corrsteer-a": 0.5, "caa": 3.0})
    assert found["random-latents 1"] == (0.5, "as strong as corrsteer-a")


def test_controls_of_a_method_that_is_best_left_out_are_judged_at_one_and_say_so():
    settings = config(against=["random-latents"])
    strength, note = fixed(settings, {"corrsteer-a": 0.0})["random-latents 1"]
    assert strength == 1.0
    assert "corrsteer-a is judged at strength 0, and this at 1" in note


def test_a_fixed_strength_stays():
    settings = config(recipes=[{"name": "mine", "method": "caa", "strength": 7}])
    assert fixed(settings, {"corrsteer-a": 0.0})["mine"] == (7.0, "fixed by the recipe")


def test_a_trial_steers_if_it_edits_or_asks():
    recipe = Recipe(name="r", method="caa")
    part = Part(POINT, torch.eye(16)[0], 3.0, 3.0)
    plans = {"r": Plan(recipe, [part]), "empty": Plan(recipe, []), "asks": Plan(recipe, [], "Be.")}
    said = [
        is_steered(Trial(name, "t", strength, False), plans)
        for name, strength in (("r", 1.0), ("r", 0.0), ("empty", 1.0), ("asks", 1.0), ("", 0.0))
    ]
    assert said == [True, False, False, True, False]
