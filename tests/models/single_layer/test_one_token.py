import pytest
import torch
from safetensors.torch import load_file
from small_layers import VARIANTS, in_and_out, saved

from fluoroscope.models.hub import SHIPPED
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.single_layer.layer_tensors import LayerTensors
from fluoroscope.models.single_layer.loading import load_layer
from fluoroscope.models.single_layer.one_token import OneTokenLayer, one_token_layer
from fluoroscope.models.single_layer.whole import whole_layer


def forms(folder: str, layer: int) -> tuple[LayerTensors, LayerTensors]:
    return load_layer(folder, layer), load_layer(folder, layer, form="sequence")


def whole(tensors: LayerTensors, x: torch.Tensor) -> torch.Tensor:
    ones = torch.ones(len(x), 1, dtype=torch.int64)
    return whole_layer(tensors)(x[:, None], ones)[:, 0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_the_real_layer_on_a_sequence_of_one_token(variant, tmp_path):
    family, changes = VARIANTS[variant]
    network = saved(tmp_path, family, **changes)
    token, sequence = forms(str(tmp_path), 1)
    x, expected = (
        part[:, 0] for part in in_and_out(network, 1, torch.randn(6, 1, network.config.hidden_size))
    )
    torch.testing.assert_close(whole(sequence, x), expected, atol=1e-5, rtol=1e-5)
    for tensors in (token, sequence):
        for is_fused in (True, False):
            layer = one_token_layer(tensors, is_fused=is_fused)
            torch.testing.assert_close(layer(x), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_flow_through_it_as_through_the_real_layer(variant, tmp_path):
    family, changes = VARIANTS[variant]
    network = saved(tmp_path, family, **changes)
    token, sequence = forms(str(tmp_path), 2)
    x = torch.randn(3, network.config.hidden_size)
    weights = torch.randn_like(x)

    def gradient(layer) -> torch.Tensor:
        given = x.clone().requires_grad_()
        (layer(given) * weights).sum().backward()
        assert given.grad is not None
        return given.grad

    expected = gradient(lambda given: whole(sequence, given))
    torch.testing.assert_close(gradient(one_token_layer(token)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layer", [0, 4])
def test_it_is_the_layer_of_a_pretrained_llama(stories_folder, stories_model, layer):
    tokens = torch.arange(3, 35)[:, None]
    vectors = stories_model.network.get_input_embeddings()(tokens).detach()
    x, expected = in_and_out(stories_model.network, layer, vectors)
    found = one_token_layer(load_layer(str(stories_folder), layer))(x[:, 0])
    torch.testing.assert_close(found, expected[:, 0], atol=1e-4, rtol=0)


def test_it_is_the_layer_of_the_organism_whose_file_is_in_half_precision(organism_model):
    vectors = torch.randn(8, 1, organism_model.d_model)
    x, expected = in_and_out(organism_model.network, 3, vectors)
    found = one_token_layer(load_layer("organism", 3))(x[:, 0])
    torch.testing.assert_close(found, expected[:, 0], atol=1e-4, rtol=0)
    stored = load_file(SHIPPED["organism"] / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}


def test_a_vector_is_read_alone_whatever_stands_beside_it(tmp_path):
    saved(tmp_path)
    layer = one_token_layer(load_layer(str(tmp_path), 0))
    x = torch.randn(2, 3, 4, 16)
    torch.testing.assert_close(layer(x)[1, 2, 3], layer(x[1, 2, 3]))
    assert layer(x).shape == x.shape


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_weights_in_half_precision_take_and_return_vectors_of_any_dtype(family, tmp_path):
    saved(tmp_path, family)
    exact = one_token_layer(load_layer(str(tmp_path), 0))
    half = one_token_layer(load_layer(str(tmp_path), 0, dtype="bfloat16"))
    assert half.up.weight.dtype == torch.bfloat16
    x = torch.randn(64, 16)
    assert half(x).dtype == torch.float32
    assert half(x.bfloat16()).dtype == torch.bfloat16
    # Eight bits of mantissa, a few products deep.
    assert (half(x) - exact(x)).norm() < 0.02 * (exact(x) - x).norm()


def n_weights(layer: OneTokenLayer) -> int:
    return sum(weight.numel() for weight in layer.attention.parameters())


def test_attention_is_stored_as_the_smaller_of_its_two_forms(tmp_path):
    saved(tmp_path / "shared")
    saved(tmp_path / "own", num_key_value_heads=4)
    saved(tmp_path / "one", num_key_value_heads=1)
    layers = {
        name: load_layer(str(tmp_path / name), 0, form="sequence")
        for name in ("shared", "own", "one")
    }
    fused = {name: n_weights(one_token_layer(layer)) for name, layer in layers.items()}
    # One 16 x 16 matrix, or to 4 values and back.
    assert fused == {"shared": 256, "own": 256, "one": 128}
    plain = n_weights(one_token_layer(layers["one"], is_fused=False))
    assert plain == 4 * 16 + 16 * 16


def test_its_weights_learn_only_where_they_are_asked_to(tmp_path):
    saved(tmp_path)
    layer = one_token_layer(load_layer(str(tmp_path), 0), is_fused=False)
    assert layer(torch.randn(2, 16)).requires_grad is False
    layer.requires_grad_(True)
    layer(torch.randn(2, 16)).sum().backward()
    assert all(weight.grad is not None for weight in layer.parameters())


def test_unchanged_weights_share_the_memory_of_the_tensors(tmp_path):
    saved(tmp_path, "llama")
    tensors = load_layer(str(tmp_path), 0)
    layer = one_token_layer(tensors)
    assert layer.down.weight.data_ptr() == tensors.tensors["mlp.down_proj.weight"].data_ptr()


def test_what_attention_would_have_seen_is_the_only_thing_left_out(stories_folder):
    """On two tokens the second one's output is no function of it alone, so the form is of one."""
    model = LanguageModel.load(str(stories_folder))
    vectors = torch.randn(1, 2, model.d_model)
    x, expected = in_and_out(model.network, 0, vectors)
    found = one_token_layer(load_layer(str(stories_folder), 0))(x)
    torch.testing.assert_close(found[:, 0], expected[:, 0], atol=1e-4, rtol=0)
    assert (found[:, 1] - expected[:, 1]).norm() > 0.01 * expected[:, 1].norm()
