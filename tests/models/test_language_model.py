import math

import pytest
import torch

from fluoroscope.core.errors import ConfigError, ModelError
from fluoroscope.models.families import FAMILIES, find_family
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.tiny import tiny_model


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model("llama")


def test_scores_are_the_log_probabilities_of_the_next_tokens(model):
    tokens, mask = model.tokenize(["abcde"])
    scores = model.token_scores(tokens, mask)
    by_hand = model.forward(tokens).log_softmax(-1)
    for i in range(tokens.shape[1] - 1):
        assert scores[0, i].item() == pytest.approx(
            by_hand[0, i, tokens[0, i + 1]].item(), abs=1e-6
        )


@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_and_loss_count_no_padding(model, side):
    texts = ["a long row of text", "short"]
    padded = model.tokenize(texts, padding_side=side)
    scores = model.token_scores(*padded)
    rows = [model.token_scores(*model.tokenize([text])) for text in texts]
    for i, row in enumerate(rows):
        assert scores[i].sum().item() == pytest.approx(row.sum().item(), abs=1e-4)
    mean = -sum(row.sum().item() for row in rows) / sum(row.numel() for row in rows)
    assert model.loss(*padded).item() == pytest.approx(mean, abs=1e-5)


def test_a_model_that_knows_nothing_loses_the_log_of_its_vocabulary(model):
    uniform = tiny_model("llama")
    with torch.no_grad():
        uniform.network.lm_head.weight.zero_()
    assert uniform.loss(*uniform.tokenize(["anything"])).item() == pytest.approx(math.log(260))


def test_a_loss_of_one_token_is_refused(model):
    with pytest.raises(ModelError, match="nothing to predict"):
        model.loss(torch.ones(3, 1, dtype=torch.int64))


def test_gradients_reach_a_hook(model):
    direction = torch.zeros(model.d_model, requires_grad=True)
    tokens, _ = model.tokenize(["abc"])
    with model.hooked({HookPoint("1.resid_post"): lambda x: x + direction}):
        model.loss(tokens).backward()
    assert direction.grad is not None
    assert direction.grad.abs().sum() > 0


def test_hooks_hold_while_a_text_is_generated(model):
    tokens, _ = model.tokenize(["abc"])
    shapes: list[torch.Size] = []
    with model.hooked({HookPoint("1.attn_out"): lambda x: shapes.append(x.shape)}):
        model.network.generate(tokens, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert shapes[0] == (1, 4, 16)
    assert len(shapes) == 3


def test_texts_survive_the_tokenizer(model):
    text = "Grüße, 世界!\n\tend"
    tokens, mask = model.tokenize([text, "x"])
    assert mask.sum(1).tolist() == [len(text.encode()) + 1, 2]
    assert tokens[0, 0] == model.bos_token_id
    assert model.tokenizer.decode(tokens[0], skip_special_tokens=True) == text
    assert tokens.dtype == torch.int64


def test_an_encoder_gives_logits_of_masked_tokens_but_no_next_token_scores():
    encoder = tiny_model("bert")
    tokens, mask = encoder.tokenize(["abc"])
    assert encoder.forward(tokens, mask).shape == (1, 4, 260)
    with pytest.raises(ModelError, match="is an encoder"):
        encoder.token_scores(tokens, mask)


def test_a_network_without_its_head_is_read_but_gives_no_logits(model):
    body = LanguageModel.from_network(model.network.model, model.tokenizer, name="body")
    tokens, _ = model.tokenize(["abc"])
    read: list[torch.Tensor] = []
    for each in (body, model):
        each.run_until({HookPoint("2.resid_post"): read.append}, tokens)
    assert torch.equal(read[0], read[1])
    with pytest.raises(ModelError, match="gives no logits"):
        body.forward(tokens)


@pytest.mark.parametrize(
    ("tokens", "mask", "message"),
    [
        (torch.ones(1, 65, dtype=torch.int64), None, "at most 64 positions, got 65"),
        (torch.ones(4, dtype=torch.int64), None, r"must be \[batch, position\]"),
        (torch.ones(1, 0, dtype=torch.int64), None, r"must be \[batch, position\]"),
        (torch.tensor([[1, 260]]), None, "tokens 0 to 259, got 1 to 260"),
        (
            torch.ones(1, 4, dtype=torch.int64),
            torch.ones(1, 3, dtype=torch.int64),
            "attention mask",
        ),
    ],
)
def test_tokens_that_a_model_cannot_read_are_named(model, tokens, mask, message):
    # Through the one private check, as the shapes are also what beartype would refuse.
    with pytest.raises(ModelError, match=message):
        model._check(tokens, mask)


def test_a_hook_point_that_the_model_does_not_have_is_named(model):
    with (
        pytest.raises(ModelError, match=r"no hook point 9\.resid_post: its layers are 0 to 2"),
        model.hooked({HookPoint("9.resid_post"): lambda x: x}),
    ):
        pass


def test_a_replacement_of_another_shape_is_refused_with_its_place(model):
    tokens, _ = model.tokenize(["abc"])
    with (
        pytest.raises(ModelError, match=r"hook at 1\.mlp_out must return .* \(1, 4, 16\)"),
        model.hooked({HookPoint("1.mlp_out"): lambda x: x[:, :1]}),
    ):
        model.forward(tokens)


def test_an_unknown_architecture_is_named_with_all_that_are_known():
    with pytest.raises(ModelError, match="'bloom', which cannot be read yet") as error:
        find_family("bloom", "some/model")
    assert all(name in str(error.value) for name in FAMILIES)


def test_softcapped_attention_gives_the_bits_of_the_library(monkeypatch):
    exact = tiny_model("gemma2")
    monkeypatch.setattr("fluoroscope.models.language_model.use_exact_softcap", lambda _: None)
    plain = tiny_model("gemma2")
    batch = exact.tokenize(["some text of a length", "short"], padding_side="left")
    assert exact.network.config._attn_implementation != plain.network.config._attn_implementation
    real = batch.attention_mask.bool()
    assert torch.equal(exact.forward(*batch)[real], plain.forward(*batch)[real])


def test_a_tiny_model_depends_on_its_seed_alone_and_leaves_the_global_generator():
    state = torch.random.get_rng_state()
    first, again, other = tiny_model("gpt2"), tiny_model("gpt2"), tiny_model("gpt2", seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.identity == again.identity
    assert first.identity.weights_sha256 != other.identity.weights_sha256
    assert first.identity.tokenizer_sha256 == other.identity.tokenizer_sha256


def test_use_of_a_tokenizer_does_not_change_its_identity(model):
    before = tiny_model("llama").identity
    used = tiny_model("llama")
    used.tokenizer(["a", "longer"], padding=True, truncation=True, max_length=3)
    assert used.identity == before


def test_a_stream_given_twice_is_a_config_error():
    with pytest.raises(ConfigError):
        HookPoint("1.mlp_out", "mlp_out")


def test_scores_of_some_positions_at_a_time_are_those_of_all(monkeypatch):
    model = tiny_model("gpt2")
    tokens = torch.randint(0, 260, (2, 9))
    whole = model.token_scores(tokens)
    monkeypatch.setattr("fluoroscope.models.language_model._SOFTMAX_NUMBERS", 2 * 260 * 3)
    torch.testing.assert_close(model.token_scores(tokens), whole, rtol=1e-6, atol=1e-6)
    assert model.token_scores(tokens[:, :1]).shape == (2, 0)
