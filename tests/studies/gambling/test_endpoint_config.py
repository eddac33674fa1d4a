import subprocess
import sys
from typing import Any

import pytest

from fluoroscope.core.config import settings_hash, what_half
from fluoroscope.studies.gambling.players.endpoint_config import EndpointConfig, EndpointLimits


def test_how_fast_it_is_asked_is_not_hashed_and_what_is_asked_is():
    def hashed(**settings):
        return settings_hash(what_half(EndpointConfig(**base, **settings)))

    base: dict[str, Any] = {"url": "https://x.org/v1", "model": "m"}
    plain = hashed()
    assert hashed(key_env="OTHER", limits=EndpointLimits(max_in_flight=99, timeout_s=1)) == plain
    for changed in ({"temperature": 0.5}, {"system": "s"}, {"extra": {"a": 1}}, {"max_tokens": 9}):
        assert hashed(**changed) != plain
    assert EndpointConfig(url="https://x.org/v1/", model="m").url == "https://x.org/v1"
    assert EndpointConfig(**base, extra={"k": 5, "on": True}).extra == {"k": 5, "on": True}


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "api.openai.com/v1"},
        {"url": "ftp://x.org"},
        {"url": "https://user:secret@x.org/v1"},
        {"url": "https://x.org/v1?key=secret"},
        {"url": "https://x.org/v1/chat/completions"},
        {"key_env": "sk-0123456789"},
        {"extra": {"stream": True}},
        {"extra": {"api_key": "secret"}},
        {"temperature": -1},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        EndpointConfig.model_validate({"url": "https://x.org/v1", "model": "m"} | settings)


def test_the_settings_load_no_torch():
    module = "fluoroscope.studies.gambling.players.endpoint_config"
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
