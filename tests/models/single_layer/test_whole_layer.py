import pytest
import torch
from small_layers import VARIANTS, in_and_out, saved

from fluoroscope.core.errors import ModelError
from fluoroscope.models.single_layer.loading import load_layer
from fluoroscope.models.single_layer.whole import stream_of, whole_layer

LENGTHS = (12, 7, 1)


@pytest.fixture
def mask() -> torch.Tensor:
    return (torch.arange(12) < torch.tensor(LENGTHS)[:, None]).long()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("layer", [0, 1])
def test_a_padded_batch_comes_out_as_from_the_whole_model(variant, layer, tmp_path, mask):
    family, changes = VARIANTS[variant]
    network = saved(tmp_path, family, **changes)
    vectors = torch.randn(3, 12, network.config.hidden_size)
    x, expected = in_and_out(network, layer, vectors, mask)
    found = whole_layer(load_layer(str(tmp_path), layer, form="sequence"))(x, mask)
    is_text = mask.bool()
    torch.testing.assert_close(found[is_text], expected[is_text], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "falcon"])
@pytest.mark.parametrize("is_causal", [True, False])
def test_padding_is_seen_by_none(family, is_causal, tmp_path, mask):
    saved(tmp_path, family)
    layer = whole_layer(load_layer(str(tmp_path), 1, form="sequence"))
    x = torch.randn(3, 12, 16)
    found = layer(x, mask, is_causal=is_causal)
    for row, length in enumerate(LENGTHS):
        alone = layer(x[row : row + 1, :length], mask[row : row + 1, :length], is_causal=is_causal)
        torch.testing.assert_close(found[row, :length], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", ["llama", "gpt2", "falcon with biased positions"])
def test_later_tokens_are_seen_only_where_it_is_not_causal(variant, tmp_path):
    family, changes = VARIANTS[variant]
    saved(tmp_path, family, **changes)
    layer = whole_layer(load_layer(str(tmp_path), 0, form="sequence"))
    x, ones = torch.randn(1, 5, 16), torch.ones(1, 5, dtype=torch.int64)
    other = x.clone()
    other[:, -1] = torch.randn(16)
    assert torch.equal(layer(x, ones)[:, :-1], layer(other, ones)[:, :-1])
    moved = layer(x, ones, False)[:, 0] - layer(other, ones, False)[:, 0]
    assert moved.abs().max() > 1e-4


def test_a_window_hides_what_is_further_away_on_both_sides(tmp_path):
    saved(tmp_path, "mistral", sliding_window=3)
    layer = whole_layer(load_layer(str(tmp_path), 0, form="sequence"))
    x, ones = torch.randn(1, 9, 16), torch.ones(1, 9, dtype=torch.int64)
    other = x.clone()
    other[:, 4] += 1
    for is_causal, seen in ((True, [4, 5, 6]), (False, [2, 3, 4, 5, 6])):
        moved = (layer(x, ones, is_causal) - layer(other, ones, is_causal)).abs().amax(-1)[0]
        assert moved.nonzero().flatten().tolist() == seen


def test_a_row_of_padding_alone_is_finite(tmp_path):
    saved(tmp_path)
    layer = whole_layer(load_layer(str(tmp_path), 0, form="sequence"))
    assert layer(torch.randn(2, 3, 16), torch.zeros(2, 3, dtype=torch.int64)).isfinite().all()


def test_dropout_of_its_own_training_stays_off(tmp_path):
    saved(tmp_path, "gpt2", resid_pdrop=0.5)
    layer = whole_layer(load_layer(str(tmp_path), 0, form="sequence"))
    x, ones = torch.randn(2, 3, 16), torch.ones(2, 3, dtype=torch.int64)
    before = layer(x, ones)
    layer.train()
    assert torch.equal(layer(x, ones), before)
    assert not any(weight.requires_grad for weight in layer.parameters())


def test_tensors_of_the_token_form_are_refused(tmp_path):
    saved(tmp_path)
    with pytest.raises(ModelError, match="form 'sequence', got form 'token': 2 weights"):
        whole_layer(load_layer(str(tmp_path), 0))


def test_the_stream_is_found_in_whatever_a_layer_returns():
    stream = torch.randn(2, 3, 4)
    assert stream_of(stream) is stream
    assert stream_of((stream, None)) is stream
