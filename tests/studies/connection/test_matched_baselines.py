import pytest
from tiny_reasoners import DECODER, SIZES, tiny_config

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.connection.baselines.baseline_config import TransformerConfig
from fluoroscope.studies.connection.baselines.matching import (
    FFN_MULTIPLES,
    TOLERANCE,
    like,
    match_flops,
    match_parameters,
    reference_match,
)
from fluoroscope.studies.connection.dry_run import Workload, dry_run
from fluoroscope.studies.connection.network.known_configs import known_config
from fluoroscope.studies.connection.reasoners import count_parameters

FAMILIES = ["transformer", "perceiver", "looped"]
ONE_LAYER = {**DECODER, "n_layers": 1}
WORK = Workload(batch=4, n_source=12, n_target=4)
LARGE = ["base_config", "rank_8", "g2_micro", "g2_large"]


def small(**settings):
    """With room for baselines beside it."""
    return tiny_config(n_slots=16, connection={"name": "bilinear", "rank": 8}, **settings)


def layer(d, width):
    """Parameters of a layer of an encoder: attention and its biases, feed-forward part, norms."""
    return 4 * d * d + 4 * d + 2 * d * width + width + d + 4 * d


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", LARGE)
def test_baselines_have_the_parameters_of_any_network_of_the_plan(name, family):
    network = known_config(name).network
    match = match_parameters(network, family)
    assert abs(match.gap) <= TOLERANCE
    assert match.target == count_parameters(network).non_embedding
    assert match.reached == count_parameters(match.config).non_embedding


def test_parameters_of_a_matched_transformer_are_those_of_its_layers():
    match = match_parameters(known_config("base_config").network, "transformer")
    config, d = match.config, 256
    of_decoder = config.n_decoder_layers * (16 * d * d + 19 * d) + 2 * d
    norm = 2 * d
    assert match.reached == (
        config.n_encoder_layers * layer(d, config.d_hidden) + norm + of_decoder
    )
    assert match.gap == match.reached / match.target - 1


@pytest.mark.parametrize(
    ("family", "output"),
    [
        ("transformer", {"n_heads": 2}),
        pytest.param("perceiver", ONE_LAYER, marks=pytest.mark.slow),
        pytest.param("looped", ONE_LAYER, marks=pytest.mark.slow),
    ],
)
def test_baselines_have_the_operations_of_a_network(family, output):
    network = small(output=output, max_steps=2)
    match = match_flops(network, family, WORK)
    assert abs(match.gap) <= TOLERANCE
    assert match.target == dry_run(network, WORK).training_flops
    assert match.reached == dry_run(match.config, WORK).training_flops


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["base_config", "g2_micro", "g2_large"])
def test_baselines_have_the_operations_of_networks_of_the_plan(name, family):
    network, batches = known_config(name)
    match = match_flops(network, family, Workload(batches.train, 128, 16))
    assert abs(match.gap) <= TOLERANCE


def test_what_is_equal_in_parameters_is_far_off_in_operations():
    network = small(max_steps=1)
    alike = match_parameters(network, "transformer").config
    # A step uses a weight of a connection once a text, a Transformer one of its own each token.
    work = Workload(batch=1, n_source=12, n_target=1)
    ours, theirs = (dry_run(each, work).training_flops for each in (network, alike))
    assert theirs > 5 * ours


@pytest.mark.parametrize("family", FAMILIES)
def test_all_that_is_not_searched_is_the_networks(family):
    network = small(output=DECODER, routing={"every_step": True}, max_steps=5)
    config = match_parameters(network, family).config
    assert {name: getattr(config, name) for name in SIZES} == SIZES
    assert (config.n_decoder_layers, config.n_heads) == (2, 2)
    if family != "transformer":
        assert config.max_steps == 5
    if family == "perceiver":
        assert (config.n_latents, config.every_step) == (16, True)


def test_a_decoder_is_less_deep_only_where_nothing_else_is_near():
    cheap, ample = (known_config(name).network for name in ("g2_large", "base_config"))
    # Even a single layer that reads into latents has more than all of its slots.
    assert match_parameters(cheap, "perceiver").config.n_decoder_layers == 5
    assert match_parameters(cheap, "transformer").config.n_decoder_layers == 6
    assert match_parameters(ample, "perceiver").config.n_decoder_layers == 1
    assert like(ample, "perceiver").n_decoder_layers == 1


def test_layers_are_searched_where_they_are_allowed():
    network = known_config("base_config").network
    match = match_parameters(network, "looped", layers=range(1, 3))
    assert match.config.n_layers == 2
    assert match.config.d_hidden > 100 * 256
    free = match_parameters(network, "looped").config
    # As many times deeper as wider than what is usual.
    assert free.n_layers == pytest.approx(free.d_hidden / (4 * 256), rel=0.1)


def test_what_cannot_be_matched_is_told_what_came_nearest():
    network = known_config("linear_slot").network
    smallest = TransformerConfig(d_model=256, n_encoder_layers=1, d_hidden=1, n_decoder_layers=1)
    with pytest.raises(
        ConfigError,
        match=f"No transformer of 1 to 128 layers.*{count_parameters(network).non_embedding:,} "
        f"non-embedding.*nearest has {count_parameters(smallest).non_embedding:,}, with 1 layers "
        "of 1 hidden",
    ):
        match_parameters(network, "transformer")


@pytest.mark.parametrize("name", ["rank_8", "g2_large"])
def test_the_rule_of_the_plans_code_takes_whole_layers_below_the_network(name):
    network = known_config(name).network
    match, d = reference_match(network), network.d_model
    config = match.config
    assert config.d_hidden // d in FFN_MULTIPLES
    assert config.d_hidden % d == 0
    assert match.reached == count_parameters(config).non_embedding
    one_more = config.model_copy(update={"n_encoder_layers": config.n_encoder_layers + 1})
    size = count_parameters(one_more).non_embedding - match.reached
    assert size == layer(d, config.d_hidden)
    # Of a network that is smaller than a single layer that layer is taken.
    assert match.gap <= 0 or config.n_encoder_layers == 1
    assert match.gap > -size / match.target
