"""Every method has its row, and the ones that are set beside each other the same repeats."""

from types import SimpleNamespace

import pytest

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.detection import DETECTORS
from fluoroscope.studies.hallucination.methods import (
    BASELINE,
    COMBINED,
    RAW,
    RAW_OF_SAMPLES,
    TRACKING,
    WORDS_APART,
    by,
    methods,
)
from fluoroscope.studies.hallucination.settings import AnswerSettings, DetectionSettings
from fluoroscope.studies.hallucination.steps.features import COLUMNS

POINTS = [HookPoint("1.resid_post"), HookPoint("2.resid_post")]


def config(samples=2, **detection):
    """The part of a study's configuration that methods follow from."""
    return HallucinationConfig.model_construct(
        answers=AnswerSettings(samples=samples),
        detection=build(DetectionSettings, detection),
        saes=[SimpleNamespace(hook_point=str(point)) for point in POINTS],
        train=None,
    )


def test_every_method_has_columns_and_a_detector_that_there_are():
    for method in methods(config()).values():
        probe = method.columns.removeprefix("probe ")
        assert method.columns in COLUMNS or HookPoint(probe) in POINTS
        assert method.kind == "raw" or DETECTORS.load(method.detector)


def test_the_headline_hangs_on_one_detector_and_the_others_stand_beside_it():
    found = methods(config(detector="forest", also=["logistic", "forest", "logistic"], repeats=3))
    assert found[COMBINED].detector == "forest"
    again = [method for method in found.values() if method.detector == "logistic"]
    assert [one.name for one in again] == [
        by(name, "logistic") for name in (BASELINE, TRACKING, COMBINED)
    ]
    assert [one.columns for one in again] == [BASELINE, TRACKING, COMBINED]
    # Trees take long, so these have fewer repeats: the first ones.
    assert {one.repeats for one in again} == {1}
    assert {one.repeats for one in found.values()} == {1, 3}
    assert found[COMBINED].repeats == 3
    assert {one.repeats for one in methods(config(repeats=2, also_repeats=5)).values()} == {2}


def test_without_samples_nothing_of_samples_is_judged():
    with_samples, without = methods(config()), methods(config(samples=0))
    gone = {*RAW_OF_SAMPLES, "agreement of samples", "self-check"}
    assert set(with_samples) - set(without) == gone
    assert set(RAW) | {WORDS_APART, BASELINE, COMBINED} <= set(without)


def test_a_detector_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="also"):
        build(DetectionSettings, {"also": ["forrest"]})
