"""A chat endpoint that speaks OpenAI's protocol, as settings; this module is free of torch.

What is asked of which model decides results and is hashed; how fast it is asked, and by whose
key, does not. The key itself is no setting: it only ever comes from an environment variable.
"""

import os
import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, PositiveFloat, PositiveInt, field_validator

from fluoroscope.core.config import Config, how
from fluoroscope.core.errors import ConfigError

_OURS = frozenset({
    "model", "messages", "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed",
    "stop", "stream", "n", "key", "api_key", "authorization",
})  # fmt: skip
"""Fields of the body that settings or the game decide, or that must never be recorded."""


class EndpointLimits(Config):
    """How fast an endpoint is asked, and how long it is waited for; all of it for one process."""

    max_in_flight: PositiveInt = how(16)
    """Requests that are under way at once."""

    requests_per_minute: PositiveFloat | None = how(None)
    """Requests that are sent in any minute, evenly; null for as many as there are."""

    tokens_per_minute: PositiveFloat | None = how(None)
    """Tokens of prompts and answers in a minute, estimated before and corrected by what the server
    says; null for as many as there are."""

    timeout_s: PositiveFloat = how(120.0)
    """Seconds for one request from the connection to the last byte."""

    max_tries: PositiveInt = how(6)
    """Times that a request is sent before its attempt at a decision counts as failed."""


class EndpointConfig(Config):
    """A model behind an HTTP endpoint."""

    url: str
    """Base of the interface, such as https://api.openai.com/v1 or http://localhost:8000/v1."""

    model: str
    """Its name there."""

    system: str | None = None
    """Text of the system's turn before each prompt; null for none."""

    temperature: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Null leaves it to the server, and is needed for models that allow no other."""

    top_p: float | None = Field(default=None, gt=0, le=1)
    """Null leaves it to the server."""

    max_tokens: PositiveInt = 1024
    """Tokens of one answer; a longer one is cut off and counts as truncated."""

    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls that; OpenAI's newer models want the second."""

    send_seed: bool = False
    """Whether each attempt's own seed is sent (its lowest 31 bits, which every server takes)."""

    extra: dict[str, JsonValue] = Field(default={})
    """Further fields of the request's body, such as {"reasoning_effort": "low"}."""

    key_env: str | None = how("OPENAI_API_KEY")
    """Environment variable that holds the key for this very url; null where none is needed."""

    limits: EndpointLimits = how(EndpointLimits())
    """How fast it is asked."""

    @field_validator("url")
    @classmethod
    def _is_base(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be a base such as https://api.openai.com/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("is recorded, so it has no user, password or query; use key_env")
        base = url.rstrip("/")
        if base.endswith("/chat/completions"):
            raise ValueError("is the base, without /chat/completions")
        return base

    @field_validator("key_env")
    @classmethod
    def _is_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ValueError("is the name of an environment variable, not the key, or null")
        return name

    @field_validator("extra")
    @classmethod
    def _adds_only(cls, extra: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if taken := sorted(name for name in extra if name.lower() in _OURS):
            raise ValueError(f"cannot have {', '.join(taken)}: settings of their own decide that")
        return extra


def read_key(endpoint: EndpointConfig) -> str | None:
    """The key from its environment variable, or None where none is needed."""
    name = endpoint.key_env
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(
            f"{endpoint.url} needs a key, and the environment variable {name} does not hold one. "
            f"Set {name}, name another with key_env, or use key_env=null for a server without keys."
        )
    # A client would quote a header that it cannot send, and the key with it.
    if not re.fullmatch(r"[!-~]+", key):
        raise ConfigError(
            f"The environment variable {name} does not hold a key: it has blanks, line breaks or "
            "letters outside ASCII. Set it again."
        )
    return key
