import numpy as np
import pytest
from methods_material import GOOD, LATE, MadeUp, recipe

from fluoroscope.data.tasks.samples import Sample
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.studies.steering.methods.trials import Gain, Trials
from fluoroscope.studies.steering.plans import Part


def trials_of(groups, monkeypatch):
    samples = [Sample(id=str(i), group_id=g, prompt="?") for i, g in enumerate(groups)]
    return trials_of_samples(samples, monkeypatch)


def trials_of_samples(samples, monkeypatch, towards=None, within=None):
    monkeypatch.setattr(MadeUp, "validation", property(lambda self: samples))
    monkeypatch.setattr(MadeUp, "judge", lambda self, edits: np.zeros(len(samples)))
    material = MadeUp(towards=towards)
    material.within = within
    return Trials(recipe("corrsteer-p"), material)


def test_a_gain_is_the_mean_over_folds_with_its_standard_error(monkeypatch):
    trials = trials_of(list("abcde"), monkeypatch)
    change = np.array([0.1, 0.3, 0.2, 0.0, 0.4])
    gain = trials.gain(change)
    assert gain.value == pytest.approx(0.2)
    # Deviations -.1 .1 0 -.2 .2: variance .1 / 4 = .025, over 5 folds.
    assert gain.error == pytest.approx((0.025 / 5) ** 0.5)
    assert gain.is_clear
    assert trials.gain(change, over=change).value == 0


def test_a_gain_must_exceed_its_standard_error_and_rounding():
    assert not Gain(0.1, 0.1).is_clear
    assert Gain(0.11, 0.1).is_clear
    assert not Gain(0.0, 0.0).is_clear
    assert not Gain(-0.5, 0.1).is_clear
    assert not Gain(1e-9, 0.0).is_clear


def test_samples_of_a_group_are_in_one_fold(monkeypatch):
    # What differs within groups alone is no spread over folds.
    trials = trials_of(list("aabbccddee"), monkeypatch)
    gain = trials.gain(np.tile([1.0, 0.0], 5))
    assert gain == Gain(0.5, 0.0)
    # Four groups make four folds.
    by_group = trials_of(list("aabbccdd"), monkeypatch).gain(np.repeat([0.0, 1, 0, 1], 2))
    assert by_group.error == pytest.approx((1 / 3) ** 0.5 / 2)


def test_a_gain_is_how_much_nearer_each_part_comes_to_the_aim(monkeypatch):
    samples = [
        Sample(id=str(i), group_id="aabb"[i], prompt="?", facts={"kind": "yn"[i % 2]})
        for i in range(4)
    ]
    trials = trials_of_samples(samples, monkeypatch, towards=0.5, within="kind")
    # 0.5 off in both parts at 0, and 0.25 off on either side of the aim now.
    scores = np.array([0.25, 0.75, 0.25, 0.75])
    assert trials.gain(scores) == Gain(0.25, 0.0)
    # As far past the aim as short of it before is no gain, which the mean would call 1.
    assert trials.gain(np.ones(4)) == Gain(0.0, 0.0)
    assert trials.best([np.ones(4), scores, np.zeros(4)]) == 1
    # One part makes up for the other where all are one part, and without an aim more is better.
    assert trials_of_samples(samples, monkeypatch, towards=0.5).gain(scores) == Gain(0.5, 0.0)
    plain = trials_of_samples(samples, monkeypatch)
    assert plain.gain(np.ones(4)) == Gain(1.0, 0.0)
    assert plain.best([np.ones(4), scores, np.zeros(4)]) == 0


def test_what_does_nothing_but_chance_is_kept_one_time_in_five(monkeypatch):
    trials = trials_of([str(i) for i in range(50)], monkeypatch)
    random = np.random.default_rng(0)
    n = 2000
    kept = np.mean([trials.gain(random.normal(size=50)).is_clear for _ in range(n)])
    # P(t > 1) at four degrees of freedom.
    assert abs(kept - 0.187) < 4 * (0.187 * 0.813 / n) ** 0.5


def test_scores_are_those_of_the_edits_that_parts_mean():
    material = MadeUp()
    trials = Trials(recipe("corrsteer-p", strength=3.0), material)
    direction = material.saes[LATE].W_dec[GOOD].detach()
    trials.scores([Part(HookPoint(LATE), direction, 2.0, 2.0, GOOD)])
    plain, tried = material.judged
    assert plain == {}
    ((added,),) = tried.values()
    assert added.coefficient == 3.0
    assert float(added.direction @ direction) == pytest.approx(2.0, abs=1e-5)
