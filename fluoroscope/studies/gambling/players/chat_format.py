"""What is said to a chat endpoint and what it says, in the form of OpenAI's chat completions.

https://platform.openai.com/docs/api-reference/chat; an answer is checked before it is read.
"""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from pydantic import BaseModel, Field, JsonValue, ValidationError

from fluoroscope.studies.gambling.episodes import Ask, Reply
from fluoroscope.studies.gambling.players.endpoint_config import EndpointConfig

_MAX_STOPS = 4
"""Strings that OpenAI takes; what follows any other is left out when the reply is read."""

_MESSAGE_LENGTH = 300


class Answer(NamedTuple):
    reply: Reply
    n_prompt_tokens: int | None
    """None where the server does not say."""

    n_completion_tokens: int | None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Tokens(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Tokens | None = None


class _Explained(BaseModel):
    message: str = ""
    code: str | int | None = None


class _Refused(BaseModel):
    error: _Explained | str | None = None
    detail: JsonValue = None
    """Where servers built on FastAPI say it."""


def request_body(endpoint: EndpointConfig, ask: Ask) -> dict[str, JsonValue]:
    """The body of the request that asks for one decision."""
    turns: list[JsonValue] = [{"role": "user", "content": ask.prompt}]
    if endpoint.system is not None:
        turns.insert(0, {"role": "system", "content": endpoint.system})
    body: dict[str, JsonValue] = {
        "model": endpoint.model,
        "messages": turns,
        endpoint.max_tokens_field: endpoint.max_tokens,
    }
    if endpoint.temperature is not None:
        body["temperature"] = endpoint.temperature
    if endpoint.top_p is not None:
        body["top_p"] = endpoint.top_p
    if endpoint.send_seed:
        body["seed"] = ask.seed % 2**31
    if ask.stop:
        body["stop"] = list(ask.stop[:_MAX_STOPS])
    return body | endpoint.extra


def estimated_tokens(endpoint: EndpointConfig, ask: Ask) -> int:
    """Of the prompt (four bytes a token) and of the longest answer."""
    prompt = (endpoint.system or "") + ask.prompt
    return len(prompt.encode()) // 4 + endpoint.max_tokens


def read_answer(content: bytes) -> Answer | None:
    """None where it is not an answer: no JSON, or nothing to choose."""
    try:
        found = _Completion.model_validate_json(content)
    except ValidationError:
        return None
    choice, tokens = found.choices[0], found.usage or _Tokens()
    refusal = choice.message.refusal
    # No content is an empty reply, which the game asks for again, as it does with any model.
    text = choice.message.content or refusal or ""
    finish = "refusal" if refusal else choice.finish_reason or "unknown"
    # Whether it ended with a token or with a string to stop at, the server does not say.
    finish = "stop_token" if finish == "stop" else finish
    reply = Reply(text, finish, tokens.completion_tokens or 0)
    return Answer(reply, tokens.prompt_tokens, tokens.completion_tokens)


def server_message(content: bytes, key: str | None) -> str:
    """What the server says is wrong, in one line, without the key that some servers quote."""
    refused = _refused(content)
    match refused.error if refused else None:
        case _Explained(message=text):
            pass
        case str() as text:
            pass
        case _:
            text = str(refused.detail) if refused and refused.detail else _plain(content)
    return without_key(" ".join(text.split()), key)[:_MESSAGE_LENGTH]


def without_key(text: str, key: str | None) -> str:
    return text.replace(key, "[key]") if key else text


def error_code(content: bytes) -> str:
    """The short name of what is wrong, such as `insufficient_quota`; empty if there is none."""
    refused = _refused(content)
    error = refused.error if refused else None
    return str(error.code) if isinstance(error, _Explained) and error.code is not None else ""


def _refused(content: bytes) -> _Refused | None:
    try:
        return _Refused.model_validate_json(content)
    except ValidationError:
        return None


def _plain(content: bytes) -> str:
    return re.sub(r"<[^>]*>", " ", content.decode(errors="replace"))


def retry_after_s(header: str | None) -> float:
    """Seconds that a Retry-After header asks to wait, given as a number or as a date."""
    text = (header or "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
