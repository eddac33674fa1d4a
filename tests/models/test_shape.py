import pytest
from torch.utils.flop_counter import FlopCounterMode

from fluoroscope.core.errors import ModelError
from fluoroscope.models.families import FAMILIES
from fluoroscope.models.known_shapes import KNOWN
from fluoroscope.models.shape import ModelShape
from fluoroscope.models.tiny import tiny_model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shape_of_a_configuration_is_that_of_the_network(family, tmp_path):
    model = tiny_model(family)
    model.network.config.save_pretrained(tmp_path)
    shape = ModelShape.of(str(tmp_path))
    assert shape == ModelShape.from_network(model.network)
    assert shape.n_params == sum(p.numel() for p in model.network.parameters())
    assert (shape.d_model, shape.n_layers, shape.n_heads, shape.d_mlp) == (16, 3, 4, 40)
    assert (shape.vocab_size, shape.context_length) == (260, model.context_length)


# As published on the hub, counted from the checkpoints (encoders: with the masked-token head).
@pytest.mark.parametrize(
    ("name", "n_params"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("EleutherAI/pythia-160m", 162_322_944),
        ("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248),
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.1-70b", 70_553_706_496),
        ("google/gemma-2-2b-it", 2_614_341_888),
        ("gemma-2-9b", 9_241_705_984),
        ("qwen2.5-7b", 7_615_616_512),
        ("mistral-7b-v0.1", 7_241_732_096),
        ("modernbert-base", 149_655_232),
    ],
)
def test_well_known_models_have_their_published_size(name, n_params):
    assert ModelShape.of(name).n_params == n_params


def test_every_known_configuration_can_be_built():
    assert all(ModelShape.of(name).n_params > 1e6 for name in KNOWN)


def test_a_forward_pass_costs_what_its_matrices_cost():
    model = tiny_model("llama")
    # The counter does not know the fused attention of CPUs.
    model.network.set_attn_implementation("eager")
    tokens, _ = model.tokenize(["a" * 20])
    with FlopCounterMode(display=False) as counter:
        model.forward(tokens)
    n_tokens = tokens.numel()
    counted = counter.get_total_flops() / n_tokens
    assert ModelShape.from_network(model.network).forward_flops_per_token(n_tokens) == counted


def test_the_shared_block_of_albert_counts_once_a_run():
    one, many = (
        ModelShape.from_network(tiny_model("albert", num_hidden_layers=n).network) for n in (1, 4)
    )
    assert one.n_params == many.n_params
    block = 4 * 16 * 16 + 2 * 16 * 40
    assert many.n_multiplied - one.n_multiplied == 3 * block


def test_bytes_are_counts_times_width():
    shape = ModelShape.of("gpt2")
    assert shape.weight_bytes("bfloat16") == 2 * 124_439_808
    assert shape.activation_bytes_per_token("float32", n_points=12) == 12 * 768 * 4


def test_another_owners_model_of_a_known_name_is_not_taken_for_it(monkeypatch):
    def offline(*_: object) -> None:
        raise ModelError("asked the hub")

    monkeypatch.setattr("fluoroscope.models.hub.find_config", offline)
    with pytest.raises(ModelError, match="asked the hub"):
        ModelShape.of("somebody/gpt2")


def test_a_configuration_of_an_unknown_architecture_is_named():
    with pytest.raises(ModelError, match="'mamba', which cannot be read yet"):
        ModelShape.from_settings({"model_type": "mamba"}, "some/model")
