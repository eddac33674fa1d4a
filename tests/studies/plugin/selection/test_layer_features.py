from pathlib import Path

import numpy as np
import pytest
import torch

from fluoroscope.core.errors import ConfigError, CorpusError, ModelError
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.tiny import tiny_model
from fluoroscope.studies.plugin.selection.features import (
    LayerFeatures,
    check_apart,
    read_layers,
)

TEXTS = [("ab" * (1 + i % 5) + str(i), None) for i in range(12)]
LABELS = [i % 2 for i in range(12)]
IDS = [f"text-{i:02d}" for i in range(12)]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model("llama")


def hidden_states(model: LanguageModel, text: str) -> list[torch.Tensor]:
    """Of one text alone, [pos, d_model]: embeddings, then each layer; the last is normed."""
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        found = model.network(input_ids=ids, output_hidden_states=True).hidden_states
    return [one[0] for one in found]


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_states_of_a_batch_are_those_of_each_text_alone(model: LanguageModel, pooling: str):
    found = read_layers(model, TEXTS, LABELS, IDS, pooling=pooling, batch_size=5)
    assert found.n_layers == 3
    for row, (text, _) in enumerate(TEXTS):
        for layer, states in enumerate(hidden_states(model, text)[1:-1]):
            expected = states.mean(dim=0) if pooling == "mean" else states[-1]
            torch.testing.assert_close(found.states[layer][row], expected, atol=1e-5, rtol=1e-4)


def test_the_last_layer_is_before_the_final_norm_unless_it_is_asked_for(model: LanguageModel):
    plain = read_layers(model, TEXTS, LABELS, IDS)
    normed = read_layers(model, TEXTS, LABELS, IDS, is_last_normed=True)
    expected = torch.stack([hidden_states(model, text)[-1].mean(dim=0) for text, _ in TEXTS])
    torch.testing.assert_close(normed.states[-1], expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(plain.states[-1], normed.states[-1], atol=1e-2)
    assert torch.equal(plain.states[0], normed.states[0])


def test_input_rms_is_the_median_over_what_a_layer_reads_behind_the_first_token(
    model: LanguageModel,
):
    found = read_layers(model, TEXTS, LABELS, IDS, batch_size=3)
    for layer in range(3):
        rows = torch.cat([hidden_states(model, text)[layer][1:] for text, _ in TEXTS])
        expected = rows.square().mean(dim=1).sqrt().median()
        assert found.input_rms[layer] == pytest.approx(float(expected), rel=1e-4)


def test_first_tokens_stay_out_of_the_mean_where_sinks_do(model: LanguageModel):
    found = read_layers(model, TEXTS, LABELS, IDS, keeps_sinks=False)
    expected = hidden_states(model, TEXTS[0][0])[1][1:].mean(dim=0)
    torch.testing.assert_close(found.states[0][0], expected, atol=1e-5, rtol=1e-4)


def test_pairs_are_joined_by_a_newline_or_as_the_seed_does(model: LanguageModel):
    pairs = [(text, "then") for text, _ in TEXTS]
    for join, text_between in [("newline", "\n"), ("sep", " [SEP] ")]:
        joined = [(f"{text}{text_between}then", None) for text, _ in TEXTS]
        one = read_layers(model, pairs, LABELS, IDS, pair_text=join)
        other = read_layers(model, joined, LABELS, IDS)
        assert torch.equal(one.states[1], other.states[1])


def test_texts_are_cut_to_their_first_tokens(model: LanguageModel):
    cut = read_layers(model, TEXTS, LABELS, IDS, max_length=4)
    start = [(text[:3], None) for text, _ in TEXTS]
    expected = read_layers(model, start, LABELS, IDS)
    torch.testing.assert_close(cut.states[2], expected.states[2])


def test_a_tokenizer_without_padding_is_no_hindrance(model: LanguageModel):
    expected = read_layers(model, TEXTS, LABELS, IDS)
    pad, model.tokenizer.pad_token = model.tokenizer.pad_token, None
    try:
        found = read_layers(model, TEXTS, LABELS, IDS)
    finally:
        model.tokenizer.pad_token = pad
    torch.testing.assert_close(found.states[2], expected.states[2])


def test_the_first_token_of_a_decoder_is_refused(model: LanguageModel):
    with pytest.raises(ModelError, match="Take pooling mean or last"):
        read_layers(model, TEXTS, LABELS, IDS, pooling="first")


def test_features_survive_their_file(model: LanguageModel, tmp_path: Path):
    found = read_layers(model, TEXTS, LABELS, IDS)
    found.write(tmp_path / "features.safetensors")
    again = LayerFeatures.read(tmp_path / "features.safetensors")
    assert again.ids == found.ids
    np.testing.assert_array_equal(again.labels, found.labels)
    np.testing.assert_array_equal(again.input_rms, found.input_rms)
    for one, other in zip(again.states, found.states, strict=True):
        assert torch.equal(one, other)


def test_too_few_texts_one_class_and_equal_ids_are_errors(model: LanguageModel):
    with pytest.raises(CorpusError, match="10 texts or more"):
        read_layers(model, TEXTS[:8], LABELS[:8], IDS[:8])
    with pytest.raises(CorpusError, match="two classes"):
        read_layers(model, TEXTS, [0] * 12, IDS)
    with pytest.raises(CorpusError, match="same id"):
        read_layers(model, TEXTS, LABELS, [*IDS[:-1], IDS[0]])
    with pytest.raises(ConfigError, match="11 labels"):
        read_layers(model, TEXTS, LABELS[:-1], IDS)


def test_a_sample_that_chooses_and_tests_is_an_error():
    check_apart(["a", "b"], ["c"])
    with pytest.raises(
        CorpusError, match="1 samples both choose the layer and test it, such as 'b'"
    ):
        check_apart(["a", "b"], ["b", "c"])


def test_a_real_model_is_read_at_all_layers(stories_model: LanguageModel):
    texts = [
        (f"Once upon a time there was a {'cat' if i % 2 else 'big red dog'}", None)
        for i in range(12)
    ]
    found = read_layers(stories_model, texts, LABELS, IDS)
    assert found.n_layers == stories_model.n_layers
    assert all(bool(one.isfinite().all()) for one in found.states)
    # The residual stream grows with depth.
    assert found.input_rms[-1] > found.input_rms[0] > 0
