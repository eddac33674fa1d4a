"""Trials: what is put together from two passes is what the treatment itself does."""

import numpy as np
import pytest

from fluoroscope.data.tasks.scorers import ChoiceScorer
from fluoroscope.interventions.replies.answering import Asking
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.studies.unlearning.clamping import Treatment, clamp_edits
from fluoroscope.studies.unlearning.detecting import Detector
from fluoroscope.studies.unlearning.judging import ask
from fluoroscope.studies.unlearning.sets import ForgetSets, Passage
from fluoroscope.studies.unlearning.steps.evaluate import moved_sums
from fluoroscope.studies.unlearning.trials import Flags, Ground, Judged, Outcome, best

POINT = HookPoint("4.resid_post")
ASKING = Asking(ChoiceScorer(is_lettered=False), "options")


class Longer(Detector):
    """Flags prompts that are longer than the threshold."""

    def scores(self, model, prompts):
        return np.array([float(len(prompt)) for prompt in prompts])


def judged(left, lost):
    return Judged(None, None, None, None, left, lost)


def test_best_forgets_most_of_what_keeps_within_the_margin():
    tried = [judged(0.9, 0.0), judged(0.3, 0.02), judged(0.0, 0.5), judged(0.3, 0.0)]
    assert best(tried, 0.02) == 1
    assert best(tried, 0.6) == 2


def test_where_nothing_keeps_within_the_margin_the_nearest_is_best():
    assert best([judged(0.0, 0.9), judged(0.1, 0.2), judged(0.9, 0.1)], 0.02) == 1


def test_below_chance_is_no_better_than_at_chance():
    assert best([judged(0.0, 0.0), judged(-0.1, 0.0)], 0.02) == 0
    assert judged(-0.1, -0.1).shortfall == 0


def test_where_a_text_is_not_flagged_nothing_changes():
    treated = Outcome(np.zeros(2), np.zeros(3), np.zeros((1, 4)), np.zeros((2, 4)))
    before = Outcome(np.ones(2), np.ones(3), np.ones((1, 4)), np.ones((2, 4)))
    flags = Flags(*(np.arange(len(one)) == 0 for one in before))
    found = treated.where(flags, before)
    assert found.forget.tolist() == [0, 1]
    assert found.retain.tolist() == [0, 1, 1]
    assert found.retain_texts[:, 0].tolist() == [0, 1]


def test_a_detector_tried_at_no_price_is_what_the_treatment_does(
    organism_model, organism_saes, people
):
    some = ForgetSets(
        forget=people.forget,
        retain=people.retain,
        forget_held_out=people.forget_held_out,
        retain_held_out=people.retain_held_out,
        forget_validation=people.forget_validation[:12],
        retain_validation=people.retain_validation[:12],
    )
    ground = Ground(organism_model, some, ASKING)
    edits = clamp_edits(organism_model, organism_saes, {POINT: tuple(range(80))}, 60.0)
    prompts = [one.prompt for one in some.forget_validation]
    detector = Longer(organism_saes, float(np.median([len(one) for one in prompts])))
    sides = ground.prompts()
    flags = Flags(*(detector.flags(organism_model, one) for one in sides))
    assert 0 < flags.forget.sum() < 12
    found = ground.outcome(organism_model, edits).where(flags, ground.untreated)
    treatment = Treatment(edits, detector)
    replies = ask(organism_model, some.forget_validation, ASKING, treatment)
    assert found.forget.tolist() == [reply.score.value for reply in replies]
    assert found.forget.mean() < ground.untreated.forget.mean()


def test_texts_are_judged_by_their_perplexity_where_nothing_is_asked(
    organism_model, organism_saes, people
):
    plain = [Passage(one.text, "", one.group) for one in people.forget[:6]]
    kept = [Passage(one.text, "", one.group) for one in people.retain[:6]]
    sets = ForgetSets(tuple(plain[:3]), tuple(kept[:3]), tuple(plain[3:]), tuple(kept[3:]))
    ground = Ground(organism_model, sets, None)
    before = ground.judged(ground.untreated)
    assert (before.left, before.lost) == (1.0, 0.0)
    edits = clamp_edits(organism_model, organism_saes, {POINT: tuple(range(80))}, 60.0)
    after = ground.judged(ground.outcome(organism_model, edits))
    assert after.forget is None
    assert after.forget_ratio > 1
    assert after.left == pytest.approx(1 / after.forget_ratio)
    assert after.lost == pytest.approx(after.retain_ratio - 1)
    found = moved_sums(organism_model, organism_model, Treatment(edits), plain[:3])
    ratio = np.exp((found[:, 2] - found[:, 1]).sum() / found[:, 3].sum())
    assert ratio == pytest.approx(after.forget_ratio, rel=1e-5)


def test_texts_that_are_not_flagged_do_not_move(organism_model, organism_saes, people):
    texts = list({one.text: one for one in people.retain}.values())[-8:]
    edits = clamp_edits(organism_model, organism_saes, {POINT: tuple(range(80))}, 60.0)
    lengths = [len(one.prompt) for one in texts]
    detector = Longer(organism_saes, float(np.median(lengths)))
    sums = moved_sums(organism_model, organism_model, Treatment(edits, detector), texts)
    is_flagged = np.array(lengths) > detector.threshold
    assert 0 < is_flagged.sum() < len(texts)
    assert (sums[~is_flagged, 0] < 1e-6).all()
    assert (sums[is_flagged, 0] > 1e-3).all()
