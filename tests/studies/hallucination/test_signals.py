"""What is read while an answer is given is what the model shows one answer at a time."""

import math

import numpy as np
import pytest
import torch

from fluoroscope.activations.capture import capture
from fluoroscope.core.errors import ConfigError, CorpusError, NumericsError
from fluoroscope.core.seeding import stream
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.tiny import tiny_model
from fluoroscope.sae.batch_topk import BatchTopK, BatchTopKConfig
from fluoroscope.studies.hallucination.signals.reading import PLACES, read_answers
from fluoroscope.studies.hallucination.signals.samples import (
    eigen_score,
    largest_surprise,
    lexical_similarity,
    semantic_entropy,
    similarity_to_samples,
    surprise_of_words,
    weighted_semantic_entropy,
)
from fluoroscope.studies.hallucination.signals.tokens import answer_tokens

POINTS = (HookPoint("0.resid_post"), HookPoint("2.resid_post"))
TEXTS = [("Q: who?\nA:", " me"), ("Q:", " nobody at all, I think"), ("Where is it? ", "x")]


@pytest.fixture(scope="module")
def model():
    made = tiny_model("llama")
    made.network.double()
    return made


@pytest.fixture(scope="module")
def saes(model):
    made = {}
    for i, point in enumerate(POINTS):
        config = BatchTopKConfig(d_model=model.d_model, d_sae=32, k=4)
        made[point] = BatchTopK(config, seed=i).double()
        made[point].threshold.data.fill_(0.02)
    return made


# --- where the answer stands ---


def test_a_completion_begins_behind_the_prompt_and_its_span_ends_at_its_last_token(model):
    found = answer_tokens(model, "ab: ", "it is Paris.", span=(6, 11))
    n = len(model.tokenizer("ab: ")["input_ids"])
    assert found.n_prompt == n
    assert model.tokenizer.decode(list(found.tokens[n:])) == "it is Paris."
    assert model.tokenizer.decode([found.tokens[found.exact]]) == "s"
    assert list(found.positions) == list(range(n - 1, len(found.tokens)))
    assert answer_tokens(model, "ab: ", "it is Paris.").exact == len(found.tokens) - 1


def test_a_token_of_both_is_one_of_the_completion(organism_model):
    whole = answer_tokens(organism_model, "Answer: I am not s", "ure.")
    text = organism_model.tokenizer.decode(list(whole.tokens[whole.n_prompt :]))
    assert text.strip() == "sure."


@pytest.mark.parametrize(
    ("prompt", "completion", "span", "message"),
    [
        ("ab", "  ", None, "completion is empty"),
        ("ab", "cd", (1, 3), r"1 to 3, of a completion of 2"),
        ("ab", "cd", (1, 1), "hold a character"),
        ("ab", "c" * 100, None, r"tokens, and .* reads 64"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(model, prompt, completion, span, message):
    with pytest.raises(CorpusError, match=message):
        answer_tokens(model, prompt, completion, span)


# --- what is read ---


@pytest.mark.parametrize("tile_tokens", [1, 40, 4096])
def test_answers_in_one_tile_are_read_as_one_by_one(model, saes, tile_tokens):
    answers = [answer_tokens(model, *text) for text in TEXTS]
    found = read_answers(model, answers, saes, tile_tokens)
    assert found.offsets.tolist() == [0, *np.cumsum([len(a.positions) - 1 for a in answers])]
    for i, one in enumerate(answers):
        tokens = torch.tensor([one.tokens])
        mine = slice(int(found.offsets[i]), int(found.offsets[i + 1]))
        scores = model.token_scores(tokens)[0, one.n_prompt - 1 :]
        assert torch.allclose(found.logprobs[mine], scores, atol=1e-12)
        logits = model.forward(tokens)[0, one.n_prompt - 1 : -1].log_softmax(-1)
        entropies = torch.distributions.Categorical(logits=logits).entropy()
        assert torch.allclose(found.entropies[mine], entropies, atol=1e-12)
        seen = capture(model, tokens, POINTS)
        start = int(found.offsets[i]) + i
        for point, sae in saes.items():
            states = seen[point][0]
            kept = dict(zip(PLACES, found.states[point][i], strict=True))
            assert torch.allclose(kept["last"], states[-1], atol=1e-12)
            assert torch.allclose(kept["exact"], states[one.exact], atol=1e-12)
            assert torch.allclose(kept["mean"], states[one.n_prompt :].mean(0), atol=1e-12)
            latents = found.latents[point].dense()[start : start + len(one.positions)]
            wanted = sae.encode(states[one.n_prompt - 1 :]).float()
            assert torch.allclose(latents, wanted, atol=1e-6)
            assert (wanted > 0).any()
            mine = states[one.n_prompt - 1 :]
            rows = found.unexplained[point][start : start + len(one.positions)]
            error, distance = mine - sae.decode(sae.encode(mine)), mine - sae.b_dec
            squares = torch.stack([error.square().sum(-1), distance.square().sum(-1)], dim=-1)
            assert torch.allclose(rows, squares.float(), rtol=1e-5)


def test_nothing_to_read_is_read_as_nothing(model, saes):
    found = read_answers(model, [], saes)
    assert found.offsets.tolist() == [0]
    assert found.states[POINTS[0]].shape == (0, 3, model.d_model)
    assert found.unexplained[POINTS[0]].shape == (0, 2)


def test_a_model_that_gives_no_numbers_is_named(saes):
    broken = tiny_model("llama")
    with torch.no_grad():
        broken.blocks[1].mlp.down_proj.weight.fill_(torch.inf)
    with pytest.raises(NumericsError, match=r"activations at 2\.resid_post are not finite"):
        read_answers(broken, [answer_tokens(broken, "ab", "cd")], saes)


# --- what samples agree in ---


def test_the_eigen_score_is_that_of_the_eigenvalues_by_hand():
    # Two samples whose centred rows are orthogonal: the covariance is diagonal.
    states = np.array([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 2.0, -2.0]])
    assert eigen_score(states, alpha=0.5) == pytest.approx((math.log(1.0) + math.log(2.5)) / 2)
    same = np.tile(stream(0, "states").standard_normal(16), (5, 1))
    apart = stream(1, "states").standard_normal((5, 16))
    assert eigen_score(same) < eigen_score(apart)
    assert eigen_score(apart) == pytest.approx(eigen_score(apart[[3, 1, 4, 0, 2]]))


def test_semantic_entropy_counts_meanings_and_not_texts():
    assert semantic_entropy(["a", "a", "a"]) == 0
    assert semantic_entropy(["a", "b", "a", "b"]) == pytest.approx(math.log(2))
    # Meaning a: two different texts of 0.5 and 0.25 (two tokens of 0.25); b: one of 0.25.
    half, quarter = math.log(0.5), math.log(0.25)
    found = weighted_semantic_entropy(
        ["a", "a", "b", "a"], [[half], [quarter, quarter], [quarter], [half]]
    )
    assert found == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))


def test_samples_that_say_the_same_words_are_similar_and_expected():
    assert lexical_similarity(["it is red", "It is red", "it is red"]) == 1
    assert lexical_similarity(["a b", "c d"]) == 0
    # The longest common subsequence of "a b c" and "a c" has 2 words: F = 2 * 2 / 5.
    assert lexical_similarity(["a b c", "a c"]) == pytest.approx(0.8)
    # Counts with the answer: red 3, blue 1; with one added to each of 2 words, 4/6.
    assert surprise_of_words("red", ["red", "red blue"]) == pytest.approx(-math.log(4 / 6))
    assert surprise_of_words("blue", ["red"] * 9) > surprise_of_words("red", ["red"] * 9)


def test_an_answer_is_checked_by_what_samples_say_of_the_same():
    # Counts with the answer: it 3, is 3, red 3, blue 1; with one added to each of 4 words, of 14.
    answer, samples = "it is blue", ["It is red", "it is red red"]
    surprises = [-math.log(share / 14) for share in (4, 4, 2)]
    assert surprise_of_words(answer, samples) == pytest.approx(np.mean(surprises))
    assert largest_surprise(answer, samples) == pytest.approx(max(surprises))
    assert largest_surprise("", samples) == 0
    # Two words are shared, of 3 + 3 and of 3 + 4.
    assert similarity_to_samples(answer, samples) == pytest.approx((4 / 6 + 4 / 7) / 2)


def test_one_sample_agrees_with_nobody():
    with pytest.raises(ConfigError, match="two samples"):
        semantic_entropy(["a"])
    with pytest.raises(ConfigError, match="2 samples and 1"):
        weighted_semantic_entropy(["a", "b"], [[0.0]])
