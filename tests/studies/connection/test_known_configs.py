import subprocess
import sys

import pytest

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.connection.network.known_configs import KNOWN, known_config
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.reasoners import count_parameters

OF_CODE = [name for name in KNOWN if name.startswith("g2_")]
OF_PLAN = [name for name in KNOWN if name not in OF_CODE]


def settings_of(name):
    """Flat, by dotted names."""
    flat = {}
    for key, value in known_config(name).network.model_dump().items():
        parts = value if isinstance(value, dict) else {"": value}
        flat |= {f"{key}.{part}".rstrip("."): each for part, each in parts.items()}
    return flat


def changes(name):
    base = settings_of("base_config")
    return {key: value for key, value in settings_of(name).items() if base[key] != value}


def test_the_base_is_the_plans_and_what_settings_begin_as():
    network = known_config("base_config").network
    assert network == NetworkConfig()
    assert (network.d_model, network.n_slots, network.connection.rank) == (256, 128, 32)
    assert (network.max_steps, network.halting.threshold) == (6, 0.01)
    assert (network.vocab_size, network.max_source) == (32000, 512)


def test_an_arm_of_the_plan_differs_from_the_base_in_what_it_is_about():
    assert changes("nd_64_256") == {"n_slots": 64}
    assert changes("nd_512_256") == {"n_slots": 512}
    assert changes("rank_64") == {"connection.rank": 64}
    assert changes("loose_termination") == {"halting.threshold": 0.1}
    assert changes("no_dynamic_baseline") == {"max_steps": 4, "halting.name": "fixed"}
    assert changes("linear_slot") == {"n_slots": 256, "connection.name": "linear_slot"}
    assert changes("linear_feature") == {"n_slots": 256, "connection.name": "linear_feature"}
    assert changes("large_config") == {
        "d_model": 512,
        "n_slots": 256,
        "connection.rank": 64,
        "max_steps": 8,
        "halting.threshold": 0.005,
    }
    same_as_base = [name for name in OF_PLAN if not changes(name)]
    assert same_as_base == ["base_config", "nd_128_256", "rank_32", "medium_termination"]


def test_all_of_the_plan_have_an_effective_batch_of_64():
    assert {known_config(name).batches.effective for name in OF_PLAN} == {64}
    assert known_config("base_config").batches[:3] == (32, 64, 2)
    assert known_config("large_config").batches[:3] == (16, 32, 4)


def test_the_codes_largest_network_has_the_published_count():
    counts = count_parameters(known_config("g2_large").network)
    assert counts.total == 133_784_064
    assert counts.connections == 2 * 768**2
    # Each further step would add a norm.
    longer = known_config("g2_large").network.model_copy(update={"max_steps": 2})
    assert count_parameters(longer).total - counts.total == 1536


@pytest.mark.parametrize("name", OF_CODE)
def test_networks_of_the_code_have_as_many_slots_as_their_width_and_one_step(name):
    network, batches = known_config(name)
    assert network.n_slots == network.d_model
    assert (network.connection.name, network.connection.rank) == ("scalar", 1)
    assert (network.max_steps, network.output.name) == (1, "decoder")
    assert batches.train * batches.learning_rate > 0
    assert network.d_model % network.output.n_heads == 0


def test_a_wrong_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"'large_confg'\. Did you mean 'large_config'\?"):
        known_config("large_confg")


def test_settings_are_known_without_torch():
    code = (
        "import sys\n"
        "import fluoroscope.studies.connection.network.known_configs\n"
        "import fluoroscope.studies.connection.baselines.baseline_config\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
