"""The score of every action, by one pass over a prompt, is what replies under that action score."""

import numpy as np
import pytest
import torch

from fluoroscope.core.errors import ConfigError
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.interventions.replies.answering import reply_all
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.organism import load
from fluoroscope.steps.task_data import read_task
from fluoroscope.steps.task_spec import TaskSpec
from fluoroscope.studies.policy.candidates import MAX_CANDIDATES, MAX_MULTIPLES, Candidates
from fluoroscope.studies.policy.enumeration import enumerate_scores
from fluoroscope.studies.policy.settings import MOST_CANDIDATES, MOST_MULTIPLES
from fluoroscope.studies.policy.table_files import joined, load_scores, save_scores
from fluoroscope.studies.policy.worth import text_worth, worth

POINT = HookPoint("3.resid_post")


@pytest.fixture(scope="module")
def organism():
    return LanguageModel.load("organism")


@pytest.fixture(scope="module")
def acting():
    sae = load().saes[(3, "batch_topk")]
    chosen = [(POINT, 249, -28.0), (POINT, 207, -16.0), (POINT, 246, 5.0)]
    return Candidates.of_latents({POINT: sae}, chosen, multiples=(1.0, 2.0))


def data_of(model, name, way=None):
    return read_task(model, TaskSpec(name=name, limit=40, way=way), None, 0)


@pytest.mark.parametrize(
    ("task", "way"), [("organism-bias", "sums"), ("organism-facts", "options")]
)
def test_scores_are_those_of_replies_while_the_action_is_held(organism, acting, task, way):
    data = data_of(organism, task, way)
    samples = data.sides["test"][:6]
    found = enumerate_scores(organism, acting, samples, data.asking)
    for action in range(acting.n_actions):
        replies = reply_all(organism, samples, data.asking, acting.edit(action))
        scores = [reply.score.value for reply in replies]
        assert found.table.rewards[:, action].tolist() == pytest.approx(scores, abs=1e-5)
        said = [sample.options[i] for sample, i in zip(samples, found.said[:, action], strict=True)]
        assert said == [reply.text for reply in replies]
    assert found.table.kl[:, 0].tolist() == [0.0] * len(samples)
    assert float(found.table.kl[:, 2].min()) > 0


def test_what_a_table_says_survives_its_file_and_being_joined(organism, acting, tmp_path):
    data = data_of(organism, "organism-bias")
    samples = data.sides["test"][:4]
    whole = enumerate_scores(organism, acting, samples, data.asking, is_masked=True)
    parts = [
        enumerate_scores(organism, acting, some, data.asking, is_masked=True)
        for some in (samples[:1], samples[1:])
    ]
    save_scores(joined(parts), tmp_path / "table.safetensors")
    found = load_scores(tmp_path / "table.safetensors")
    torch.testing.assert_close(found.table.rewards, whole.table.rewards, atol=1e-6, rtol=0)
    assert torch.equal(found.table.allowed, whole.table.allowed)
    assert torch.equal(found.said, whole.said)
    # Active or no-op, as the activations say.
    active = (found.activations > 0).repeat_interleave(2, dim=1)
    assert torch.equal(found.table.allowed[:, 1:], active)


def test_whole_sentences_without_a_prompt_are_refused(organism, acting):
    data = data_of(organism, "organism-bias")
    bare = Sample(id="a", group_id="a", prompt="", options=("x", "y"), roles=("1", "2"))
    with pytest.raises(ConfigError, match="no prompt at whose end"):
        enumerate_scores(organism, acting, [bare], data.asking)


def test_a_score_is_worth_most_at_the_goal_and_nothing_at_the_far_end():
    scores = torch.tensor([[0.0, 0.25, 0.5, 1.0]])
    assert worth(scores, None) is scores
    assert worth(scores, 0.5).tolist() == [[0.0, 0.75, 1.0, 0.0]]
    assert worth(scores, 1.0)[0, 0] == 0
    assert worth(scores, 1.0)[0, 3] == 1


def test_drawn_replies_are_worth_on_average_what_their_probability_is():
    """Over all sequences of three replies, each weighed by its probability."""
    share, expected = 0.3, 0.0
    for bits in np.ndindex(2, 2, 2):
        scores = np.array(bits, float)
        chance = np.prod(np.where(scores == 1, share, 1 - share))
        expected += chance * text_worth(scores, ["p"] * 3, 0.5).mean()
    assert expected == pytest.approx(float(worth(torch.tensor([[share]]), 0.5)))


def test_replies_are_weighed_with_those_to_the_same_prompt_alone():
    found = text_worth(np.array([1.0, 1.0, 0.0, 1.0]), ["a", "b", "b", "a"], 0.5)
    assert found.tolist() == [0.0, 2.0, 2.0, 0.0]
    with pytest.raises(ConfigError, match="has one reply"):
        text_worth(np.array([1.0]), ["a"], 0.5)


def test_settings_allow_what_candidates_do():
    assert (MOST_CANDIDATES, MOST_MULTIPLES) == (MAX_CANDIDATES, MAX_MULTIPLES)
