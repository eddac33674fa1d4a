import pytest
import torch

from fluoroscope.core.errors import ConfigError, ModelError
from fluoroscope.models.encoders import encoder_from
from fluoroscope.models.tiny import tiny_model
from fluoroscope.studies.plugin.pooling import check_pooling, pool

HIDDEN = torch.tensor(
    [
        [[1.0, 10.0], [2.0, 20.0], [6.0, 60.0], [-9.0, 90.0]],
        [[3.0, 30.0], [7.0, 70.0], [5.0, 50.0], [1.0, 10.0]],
    ]
)
MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cls", [[1.0, 10.0], [3.0, 30.0]]),
        ("last", [[6.0, 60.0], [1.0, 10.0]]),
        ("mean", [[0.0, 45.0], [4.0, 40.0]]),
        ("masked_mean", [[3.0, 30.0], [4.0, 40.0]]),
        ("average_pooling_with_padding", [[0.0, 45.0], [4.0, 40.0]]),
        ("average_pooling_without_padding", [[3.0, 30.0], [4.0, 40.0]]),
    ],
)
def test_poolings_by_hand(name, expected):
    assert pool(name, HIDDEN, MASK).tolist() == expected


@pytest.mark.parametrize("name", ["cls", "last", "masked_mean"])
def test_what_padding_holds_matters_only_where_it_is_asked_for(name):
    spoilt = HIDDEN.clone()
    spoilt[0, 3] = torch.nan
    assert torch.equal(pool(name, spoilt, MASK), pool(name, HIDDEN, MASK))
    assert pool("mean", spoilt, MASK).isnan().any()


@pytest.mark.parametrize("name", ["mean", "masked_mean"])
def test_means_in_half_precision_are_summed_in_float32(name):
    hidden = torch.ones(1, 1000, 3, dtype=torch.bfloat16)
    mask = torch.ones(1, 1000, dtype=torch.int64)
    pooled = pool(name, hidden, mask)
    assert pooled.tolist() == [[1.0, 1.0, 1.0]]
    assert pooled.dtype == torch.bfloat16


def test_the_first_token_of_a_decoder_is_refused():
    model = tiny_model("llama")
    encoder = encoder_from(model.network, model.tokenizer, "tiny-llama")
    with pytest.raises(ModelError, match=r"tiny-llama is a decoder.*pooling=last or masked_mean"):
        check_pooling("cls", encoder)
    assert check_pooling("last", encoder) == "last"


def test_a_first_token_that_is_a_word_is_refused(bert):
    assert check_pooling("cls", bert) == "cls"
    bert.tokenizer.backend_tokenizer.post_processor = None
    with pytest.raises(ModelError, match=r"puts no token in front.*masked_mean"):
        check_pooling("cls", bert)
    assert check_pooling("average_pooling_without_padding", bert) == "masked_mean"


def test_an_unknown_pooling_names_the_nearest(bert):
    with pytest.raises(ConfigError, match=r"'masked_men'. Did you mean 'masked_mean'\?"):
        check_pooling("masked_men", bert)
