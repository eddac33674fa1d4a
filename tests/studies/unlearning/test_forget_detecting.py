import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fluoroscope.core.errors import ConfigError, MismatchError
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.studies.unlearning.detecting import (
    LearnedDetector,
    ShareDetector,
    detection_table,
)
from fluoroscope.studies.unlearning.statistics import encoded

EARLY, LATE = HookPoint("0.resid_post"), HookPoint("4.resid_post")


@pytest.fixture(scope="module")
def learned(organism_model, organism_saes, people):
    return LearnedDetector.fit(organism_model, organism_saes, people)


def test_a_share_counts_tokens_in_which_any_latent_is_active(organism_model, organism_saes, people):
    chosen = {EARLY: (1, 5, 9, 100), LATE: (3, 7, 200, 201)}
    detector = ShareDetector(organism_saes, 0.0, chosen)
    prompts = [one.prompt for one in people.forget[:6]]
    fired = {}
    for point, latents, text in encoded(organism_model, organism_saes, prompts):
        dense = latents.dense().detach().numpy()[:, list(chosen[point])]
        for place in range(len(prompts)):
            if (text == place).any():
                fired[point, place] = (dense[text == place] > 0).any(axis=1)
    expected = [(fired[EARLY, i] | fired[LATE, i]).mean() for i in range(len(prompts))]
    np.testing.assert_allclose(detector.scores(organism_model, prompts), expected)


def test_the_threshold_is_a_percentile_of_the_prompts_to_keep(
    organism_model, organism_saes, people
):
    chosen = {LATE: tuple(range(0, 512, 5))}
    detector = ShareDetector.fit(organism_model, organism_saes, people, chosen, percentile=90.0)
    prompts = list(dict.fromkeys(one.prompt for one in people.retain))
    scores = detector.scores(organism_model, prompts)
    assert detector.threshold == pytest.approx(np.percentile(scores, 90))
    assert detector.flags(organism_model, prompts).mean() <= 0.1


def test_the_chosen_people_are_told_from_all_others_in_words_not_seen(
    organism_model, people, learned
):
    table = detection_table(learned, organism_model, people)
    rows = {(row["side"], row["part"]): row for row in table.iter_rows(named=True)}
    forget = [one.prompt for one in people.forget_samples]
    others = [one.prompt for one in people.retain_held_out]
    scores = learned.scores(organism_model, [*forget, *others])
    assert roc_auc_score([1] * len(forget) + [0] * len(others), scores) > 0.97
    assert rows["forget", "held out"]["flagged"] > 0.5
    assert rows["retain", "held out"]["flagged"] < 0.05
    assert rows["forget", "held out"]["n"] == 36
    assert rows["forget", "held out"]["n_groups"] == 12
    assert 0 < rows["forget", "held out"]["flagged_low"] < rows["forget", "held out"]["flagged"]


def test_scores_are_log_odds_of_the_strongest_latents(
    organism_model, organism_saes, people, learned
):
    again = LearnedDetector.from_state(learned.state(), organism_saes)
    prompts = [one.prompt for one in people.retain_held_out[:8]]
    np.testing.assert_array_equal(
        again.flags(organism_model, prompts), learned.flags(organism_model, prompts)
    )
    alone = [learned.scores(organism_model, [prompt])[0] for prompt in prompts]
    np.testing.assert_allclose(learned.scores(organism_model, prompts), alone, atol=1e-3)


def test_no_prompt_has_no_score(organism_model, learned):
    assert learned.scores(organism_model, []).shape == (0,)


def test_a_detector_of_other_saes_is_refused(organism_saes, learned):
    with pytest.raises(MismatchError, match="learnt with other SAEs"):
        LearnedDetector.from_state(learned.state(), {LATE: organism_saes[LATE]})


def test_settings_that_cannot_be_are_named(organism_model, organism_saes, people):
    with pytest.raises(ConfigError, match=r"got 0\.0"):
        LearnedDetector.fit(organism_model, organism_saes, people, penalty=0.0)
    with pytest.raises(ConfigError, match=r"percentile.*got 101"):
        ShareDetector.fit(organism_model, organism_saes, people, {LATE: (1,)}, percentile=101.0)
    with pytest.raises(MismatchError, match=r"needs an SAE of each"):
        ShareDetector.fit(organism_model, organism_saes, people, {HookPoint("2.resid_post"): (1,)})
