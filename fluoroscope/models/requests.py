"""Checks requests and turns them into tokens, before anything is computed."""

from collections.abc import Sequence
from dataclasses import dataclass

from fluoroscope.core.errors import ModelError
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.stopping import StopRule
from fluoroscope.models.texts import Request


@dataclass(frozen=True)
class Prepared:
    """A request that can be run."""

    prompt: tuple[int, ...]
    seed: int
    limit: int
    """Tokens after which it ends."""

    is_cut_by_context: bool
    rule: StopRule


def prepare(
    model: LanguageModel, requests: Sequence[Request], room: int | None = None
) -> list[Prepared]:
    """All requests as tokens; the first that cannot be run is a `ModelError`. `room` is how many
    tokens can be written, where these take none of the prompt's positions.
    """
    default_stops = _end_tokens(model)
    tokens: dict[str | tuple[int, ...], tuple[int, ...]] = {}
    prepared = []
    for number, request in enumerate(requests):
        given = request.prompt if isinstance(request.prompt, str) else tuple(request.prompt)
        if given not in tokens:
            tokens[given] = prompt_tokens(model, given)
        _check_stops(model, request)
        prompt = tokens[given]
        # The last token that is drawn needs no position of its own.
        n_free = writable_context(model) - len(prompt) + 1 if room is None else room
        if request.max_tokens < 1:
            raise ModelError(
                f"max_tokens of request {number} must be 1 or more, got {request.max_tokens}."
            )
        stops = default_stops if request.stop_tokens is None else request.stop_tokens
        prepared.append(
            Prepared(
                prompt=prompt,
                seed=request.seed,
                limit=min(request.max_tokens, n_free),
                is_cut_by_context=n_free < request.max_tokens,
                rule=StopRule(tuple(request.stop), tuple(stops)),
            )
        )
    return prepared


def prompt_tokens(model: LanguageModel, prompt: str | Sequence[int]) -> tuple[int, ...]:
    """A prompt as tokens; an empty one, or one that does not fit, is a `ModelError`."""
    if len(prompt) == 0:
        raise ModelError(
            "The prompt is empty: there is nothing to continue. Give at least one character; "
            "for free text, the model's first token as prompt=(bos,)."
        )
    tokens = model.encode(prompt) if isinstance(prompt, str) else prompt
    found = tuple(int(token) for token in tokens)
    shown = repr(prompt) if len(prompt) <= 60 else f"{repr(prompt[:57])[:-1]}..."
    if not found:
        raise ModelError(f"The tokenizer of {model.name} makes no token of the prompt {shown}.")
    context = writable_context(model)
    if len(found) > context:
        is_shorter = context < model.context_length
        reason = " with positions that do not depend on a row's length" if is_shorter else ""
        raise ModelError(
            f"The prompt {shown} has {len(found)} tokens, and {model.name} reads at most "
            f"{context}{reason}. Shorten it; nothing is cut silently."
        )
    vocab_size = model.vocab_size
    wrong = [token for token in found if not 0 <= token < vocab_size]
    if wrong:
        raise ModelError(
            f"The prompt {shown} has the token {wrong[0]}; {model.name} has tokens 0 to "
            f"{vocab_size - 1}."
        )
    return found


def writable_context(model: LanguageModel) -> int:
    """The most positions a row may have whose keys are kept.

    Rotary embeddings of the kinds `longrope` and `dynamic` turn all positions otherwise once a row
    is longer than those that the model was first trained on, and would then depend on batch mates.
    """
    config = model.network.config
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") not in ("longrope", "dynamic"):
        return model.context_length
    known = (rope, vars(config))
    name = "original_max_position_embeddings"
    original = next((where[name] for where in known if where.get(name)), model.context_length)
    return min(model.context_length, int(original))


def _check_stops(model: LanguageModel, request: Request) -> None:
    if isinstance(request.stop, str):
        raise ModelError(
            f"stop is a tuple of strings, got {request.stop!r}; write ({request.stop!r},)."
        )
    wrong = [t for t in request.stop_tokens or () if not 0 <= t < model.vocab_size]
    if wrong:
        raise ModelError(
            f"The stop token {wrong[0]} does not exist: {model.name} has tokens 0 to "
            f"{model.vocab_size - 1}."
        )
    prompt = request.prompt if isinstance(request.prompt, str) else ""
    check_stop_strings(prompt, request.stop, request.may_echo)


def check_stop_strings(prompt: str, stop: Sequence[str], may_echo: bool) -> None:
    """Raises `ModelError` for an empty stop string, or one that the prompt begins with."""
    if "" in stop:
        raise ModelError("A stop string is empty: every text would end before it begins.")
    for string in stop:
        if prompt.startswith(string) and not may_echo:
            raise ModelError(
                f"The stop string {string!r} is what the prompt begins with. Stop strings are "
                "looked for in generated text alone, so the prompt itself does not end it; a "
                "model that starts the prompt over would. If that is what is meant, say "
                "may_echo=True (--may-echo on the command line, texts.may_echo=true in a sweep)."
            )


def _end_tokens(model: LanguageModel) -> tuple[int, ...]:
    """The end tokens of the model's generation settings, or of its tokenizer."""
    settings = getattr(model.network, "generation_config", None)
    found = getattr(settings, "eos_token_id", None)
    if found is None:
        found = model.tokenizer.eos_token_id
    if found is None:
        return ()
    several = [found] if isinstance(found, int) else found
    known = [token for token in several if isinstance(token, int)]
    return tuple(token for token in known if 0 <= token < model.vocab_size)
