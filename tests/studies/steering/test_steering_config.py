"""What a user may ask of the steering study, and what is refused before the first reply."""

import os
import subprocess
import sys

import pytest

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError, FluoroscopeError
from fluoroscope.studies.steering.config import ablations, expanded, parts_of, pattern_of
from fluoroscope.studies.steering.recipes import Recipe
from fluoroscope.studies.steering.spec import SteeringSpec
from fluoroscope.studies.steering.study import SteeringStudy

POINTS = ["2.resid_post", "3.resid_post"]
SMALL = {
    "model": "organism",
    "saes": {"source": "organism:batch_topk", "hook_points": "2-3.resid_post"},
    "task": {"name": "organism-bias", "limit": 40},
    "against": ["caa", "random-latents"],
}


def spec(**changes):
    return build(SteeringSpec, {**SMALL, **changes})


def resolved(**changes):
    return SteeringStudy().resolve(spec(**changes))


def names(**changes):
    found = expanded(spec(**changes), POINTS, is_organism=True)
    return [recipe.name for recipe in found]


def test_recipes_are_methods_draws_of_controls_the_ceiling_and_what_is_varied():
    found = names(evaluate={"draws": 2, "ablations": False, "curve": [16]})
    assert found == [
        "corrsteer-a",
        "caa",
        "random-latents 1",
        "random-latents 2",
        "planted",
        "corrsteer-a, 16 samples",
    ]
    assert "planted" not in [one.name for one in expanded(spec(), POINTS, is_organism=False)]
    assert "prompt-only" in names(instruction="Be fair. ")


def test_what_is_there_already_is_not_added_again():
    against = ["planted", "prompt-only"]
    found = names(against=against, instruction="Be fair. ", evaluate={"ablations": False})
    assert found == ["corrsteer-a", *against]
    assert names(method="planted", against=[], evaluate={"ablations": False}) == ["planted"]


def test_what_controls_are_matched_to_is_in_the_run_whether_asked_for_or_not():
    settings = {"evaluate": {"draws": 1, "ablations": False}}
    found = names(method="caa", against=["random-latents", "random-direction"], **settings)
    assert found == ["caa", "corrsteer-a", "random-latents 1", "random-direction 1", "planted"]
    found = names(method="caa", against=["random-latents", "corrsteer-a"], **settings)
    assert found == ["caa", "random-latents 1", "corrsteer-a", "planted"]
    assert "corrsteer-a" not in names(method="caa", against=["probe"], **settings)


def test_a_control_that_is_spelt_out_is_one_and_gets_what_it_is_matched_to():
    own = {"name": "mine", "method": "random-latents", "action": "clamp", "strength": 2.0}
    given = spec(against=[], recipes=[own], evaluate={"ablations": False})
    found = expanded(given, POINTS, is_organism=False)
    assert [one.name for one in found] == ["corrsteer-a", "corrsteer-a for mine", "mine"]
    pattern, control = found[1:]
    assert control.control
    assert not pattern.control
    assert (pattern.method, pattern.action, pattern.strength) == ("corrsteer-a", "clamp", 2.0)
    assert pattern_of(control, found) is pattern
    other = {**own, "method": "caa"}
    found = expanded(spec(against=[], recipes=[other]), POINTS, is_organism=False)
    assert not next(one for one in found if one.name == "mine").control


def test_ablations_change_one_setting_each():
    main = Recipe(name="main", method="corrsteer-a")
    found = ablations(main, ["max", "mean"], POINTS)
    plain = main.model_dump(exclude={"name", "varied"})
    for recipe in found:
        changed = recipe.model_dump(exclude={"name", "varied"})
        assert recipe.varied
        assert sum(changed[key] != plain[key] for key in plain) == 1
    assert len({recipe.name for recipe in found}) == len(found) == 1 + 2 + 3 + 1 + 2


def test_few_layers_are_tried_alone_and_many_in_thirds():
    assert parts_of(POINTS) == [[POINTS[0]], [POINTS[1]]]
    assert parts_of(POINTS[:1]) == []
    many = [f"{layer}.resid_post" for layer in range(26)]
    thirds = parts_of(many)
    assert [len(part) for part in thirds] == [8, 9, 9]
    assert [point for part in thirds for point in part] == many


def test_two_recipes_of_one_name_are_refused():
    recipe = {"name": "caa", "method": "probe"}
    with pytest.raises(ConfigError, match="Two recipes are called 'caa'"):
        resolved(recipes=[recipe])
    with pytest.raises(ConfigError, match="Two recipes are called 'caa'"):
        resolved(against=["caa", "caa"])


def test_a_strength_of_zero_is_refused_in_a_recipe_and_in_the_grid():
    recipe = {"name": "mine", "method": "caa", "strength": 0}
    with pytest.raises(ConfigError, match=r"'mine' has strength 0, which steers nothing"):
        resolved(recipes=[recipe])
    with pytest.raises(ConfigError, match="must not have 0, which steers nothing"):
        spec(strength={"grid": [0.0, 1.0]})
    for grid in ([], [1.0, 1.0], [2.0, 1.0]):
        with pytest.raises(ConfigError, match="numbers that rise"):
            spec(strength={"grid": grid})


def test_a_control_is_not_the_main_method():
    with pytest.raises(ConfigError, match="random-latents is a control"):
        resolved(method="random-latents")


def test_unknown_methods_and_tasks_are_told_the_nearest():
    with pytest.raises(FluoroscopeError, match=r"corrster-a.*corrsteer-a"):
        resolved(method="corrster-a")
    with pytest.raises(FluoroscopeError, match=r"organism-bais.*organism-bias"):
        resolved(task={"name": "organism-bais"})
    with pytest.raises(FluoroscopeError, match=r"organism-fact.*organism-facts"):
        resolved(evaluate={"others": ["organism-fact"]})


def test_files_must_be_somewhere(monkeypatch):
    monkeypatch.delenv("FLUOROSCOPE_DATA", raising=False)
    with pytest.raises(ConfigError, match="data_dir=FOLDER"):
        resolved(task={"name": "stereoset"})


def test_a_bare_word_is_the_name_of_the_task():
    assert spec(task="emgsd").task.name == "emgsd"


def test_a_sampling_temperature_and_a_way_are_settings_of_the_task():
    task = {"name": "organism-bias", "way": "texts", "sampling": {"temperature": 0.7}}
    assert resolved(task=task).task.sampling.temperature == 0.7
    with pytest.raises(ConfigError, match="organism-bias is judged by"):
        resolved(task={"name": "organism-bias", "way": "options"})


def test_the_command_line_says_in_words_what_is_wrong(tmp_path):
    given = ["run", "steering", "--preset", "tiny", "--name", "x", "method=corrster-a"]
    told = subprocess.run(
        [sys.executable, "-m", "fluoroscope", *given],
        env={**os.environ, "FLUOROSCOPE_RUNS": str(tmp_path), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode
    said = told.stdout + told.stderr
    assert "corrsteer-a" in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())
