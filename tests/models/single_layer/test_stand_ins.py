import pytest
import torch
from small_layers import FAMILIES, saved

from fluoroscope.models.identity import hash_tensors
from fluoroscope.models.single_layer.loading import load_layer
from fluoroscope.models.single_layer.one_token import one_token_layer
from fluoroscope.models.single_layer.stand_ins import permuted_layer, random_layer


@pytest.mark.parametrize("family", FAMILIES)
def test_a_random_layer_has_entries_of_the_same_size_and_no_others(family, tmp_path):
    # Falcon's heads have the width that is left to them.
    head_dim = None if family == "falcon" else 32
    saved(tmp_path, family, hidden_size=128, head_dim=head_dim)
    layer = load_layer(str(tmp_path), 1, form="sequence")
    found = random_layer(layer, 7).tensors
    assert set(found) == set(layer.tensors)
    for name, tensor in found.items():
        real = layer.tensors[name].float()
        if tensor.ndim == 1 and not name.endswith("bias"):
            offset = layer.layout.gain_offset
            gain = (real + offset).square().mean().sqrt() - offset
            torch.testing.assert_close(tensor, gain.expand_as(tensor))
            continue
        size, wanted = tensor.square().mean().sqrt(), real.square().mean().sqrt()
        assert size == pytest.approx(float(wanted), rel=0.3 if tensor.ndim == 1 else 0.05), name
        assert (
            abs(float(torch.corrcoef(torch.stack([tensor.flatten(), real.flatten()]))[0, 1])) < 0.3
        )


def test_what_a_random_layer_adds_is_about_as_large_as_what_the_layer_adds(organism_model):
    x = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    for number in range(organism_model.n_layers):
        layer = load_layer("organism", number)
        sizes = [
            float((one_token_layer(one).float()(x) - x).square().mean().sqrt())
            for one in (layer, random_layer(layer, 0))
        ]
        assert 1 / 8 < sizes[1] / sizes[0] < 8, number


@pytest.mark.parametrize("form", ["token", "sequence"])
def test_a_permuted_layer_has_the_same_entries_at_other_places(form, tmp_path):
    saved(tmp_path, "qwen2")
    layer = load_layer(str(tmp_path), 0, form=form)
    found = permuted_layer(layer, 3).tensors
    for name, tensor in layer.tensors.items():
        assert torch.equal(found[name].flatten().sort()[0], tensor.flatten().sort()[0])
        assert not torch.equal(found[name], tensor)


def test_rows_and_columns_are_permuted_as_wholes_so_the_singular_values_stay(tmp_path):
    saved(tmp_path)
    layer = load_layer(str(tmp_path), 0)
    found = permuted_layer(layer, 3).tensors
    for name, tensor in layer.tensors.items():
        if tensor.ndim == 2:
            torch.testing.assert_close(
                torch.linalg.svdvals(found[name]), torch.linalg.svdvals(tensor)
            )
            rows = {tuple(sorted(row)) for row in tensor.tolist()}
            assert {tuple(sorted(row)) for row in found[name].tolist()} == rows


@pytest.mark.parametrize("make", [random_layer, permuted_layer])
def test_a_stand_in_follows_its_seed_alone_and_says_what_it_is(make, tmp_path):
    saved(tmp_path)
    layer = load_layer(str(tmp_path), 0, dtype="bfloat16")
    before = hash_tensors(layer.tensors)
    one, same, other = make(layer, 1), make(layer, 1), make(layer, 2)
    assert one.identity == same.identity
    assert one.identity.sha256 != other.identity.sha256
    assert one.identity.sha256 == hash_tensors(one.tensors)
    kind = make.__name__.removesuffix("_layer")
    assert one.identity.made_from == f"{kind} 1 of {layer.identity.sha256}"
    assert {tensor.dtype for tensor in one.tensors.values()} == {torch.bfloat16}
    assert hash_tensors(layer.tensors) == before


@pytest.mark.parametrize("make", [random_layer, permuted_layer])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_stand_in_runs_where_the_layer_does(make, family, tmp_path):
    saved(tmp_path, family)
    x = torch.randn(3, 16)
    layer = load_layer(str(tmp_path), 0)
    found = one_token_layer(make(layer, 0))(x)
    assert found.isfinite().all()
    assert not torch.allclose(found, one_token_layer(layer)(x))
