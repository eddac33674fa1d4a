"""What a user may ask of the unlearning study, and what is refused before the first text."""

import subprocess
import sys

import pytest
from small_unlearning import people_spec, text_files, texts_spec

from fluoroscope.core.errors import FluoroscopeError
from fluoroscope.studies.unlearning.study import UnlearningStudy


def resolved(spec):
    return UnlearningStudy().resolve(spec)


def test_the_spec_is_free_of_torch():
    code = (
        "import sys; from fluoroscope.studies.unlearning.spec import UnlearningSpec; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_plans_are_each_kind_by_each_selection_controls_by_draw_and_fine_tunings():
    config = resolved(people_spec(evaluate={"draws": 2}))
    assert [plan.name for plan in config.plans] == [
        "untreated",
        "conditional-frequency",
        "conditional-importance",
        "share-frequency",
        "share-importance",
        "static-frequency",
        "static-importance",
        "everywhere",
        "zero-conditional",
        "zero-everywhere",
        "random-conditional 1",
        "random-everywhere 1",
        "random-conditional 2",
        "random-everywhere 2",
        "finetuned-uniform",
    ]
    assert config.main == "conditional-frequency"


def test_of_the_organism_people_are_forgotten_if_nothing_else_is_said():
    assert resolved(people_spec(people=None)).people == 12


def test_of_texts_no_people_are_forgotten(tmp_path):
    assert resolved(texts_spec(tmp_path)).people is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"select": {"by": ["luck"]}}, "frequency.*importance"),
        ({"clamp": {"strengths": [0.0]}}, "above 0.*zero-ablation"),
        ({"clamp": {"strengths": [-20.0]}}, "above 0"),
        ({"select": {"n": []}}, r"select\.n"),
        ({"select": {"hook_points": ["9.resid_post"]}}, r"9\.resid_post.*4\.resid_post"),
        ({"finetune": [{"objective": "ordinary"}]}, "forgets nothing"),
        ({"relearn": {"training": {"objective": "uniform"}}}, "must be ordinary"),
        ({"task": "organism-facts"}, r"evaluate\.others"),
    ],
)
def test_what_cannot_be_is_refused_and_named(changes, message):
    with pytest.raises(FluoroscopeError, match=f"(?s){message}"):
        resolved(people_spec(**changes))


def test_one_side_alone_is_refused(tmp_path):
    forget, _ = text_files(tmp_path)
    with pytest.raises(FluoroscopeError, match="retain is missing"):
        resolved(people_spec(people=None, forget=forget))


def test_people_and_texts_at_once_are_refused(tmp_path):
    with pytest.raises(FluoroscopeError, match="one of the two"):
        resolved(texts_spec(tmp_path, people=12))


def test_the_same_texts_on_both_sides_are_refused_under_whatever_name(tmp_path):
    forget, _ = text_files(tmp_path)
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes((tmp_path / "forget.jsonl").read_bytes())
    for other in (forget, str(copy)):
        with pytest.raises(FluoroscopeError, match="are the same texts"):
            resolved(people_spec(people=None, forget=forget, retain=other))


def test_another_model_needs_texts(stories_folder):
    train = {"corpus": "x.txt", "n_tokens": 4000, "sae": {"d_sae": 8, "k": 2}}
    spec = people_spec(model=str(stories_folder), people=None, saes={}, train=train)
    with pytest.raises(FluoroscopeError, match="forget=FILE retain=FILE"):
        resolved(spec)
