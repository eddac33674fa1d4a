"""The plan's configuration files (seed 003), read into our settings; free of torch.

    python train.py --config configs/nd_128_256.yaml --dataset LogiQA

Keys are those of the plan, in its groups or all in one; an unknown one is an error. Each is taken
where it has a meaning here, and of all others it is said why not. A file in our own keys is left
as it is. Of sizes of batches that are given for several networks those of the file's are taken.
"""

from collections.abc import Callable, Mapping
from typing import Any

from fluoroscope.core.config import Settings
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.registry import nearest
from fluoroscope.studies.connection.settings import ConnectionSettings

Value = Any  # Any: a JSON value of a file.

GROUPS = (
    *("base_config", "large_config", "model_config", "optimization_config", "training_config"),
    *("batch_sizes", "dynamic"),
)

_CONNECTIONS = {"bilinear": "bilinear", "linear": "linear_slot", "linear_feature": "linear_feature"}

TAKEN: Mapping[str, str] = {
    "d_model": "network.d_model",
    "D": "network.d_model",
    "num_slots": "network.n_slots",
    "N": "network.n_slots",
    "bilinear_rank": "network.connection.rank",
    "rank": "network.connection.rank",
    "max_reasoning_steps": "network.max_steps",
    "convergence_threshold": "network.halting.threshold",
    "threshold": "network.halting.threshold",
    "max_seq_len": "network.max_source",
    "max_length": "network.max_source",
    "answer_max_length": "data.max_answer",
    "train_batch": "training.batch_size",
    "batch_size": "training.batch_size",
    "eval_batch": "eval_batch",
    "gradient_accumulation": "training.accumulation",
    "gradient_checkpointing": "training.checkpoints_steps",
    "learning_rate": "training.optimiser.learning_rate",
    "weight_decay": "training.optimiser.weight_decay",
    "betas": "training.optimiser.betas",
    "warmup_ratio": "training.optimiser.warmup_share",
    "min_lr_ratio": "training.optimiser.floor",
    "gradient_clip": "training.optimiser.clip",
    "reasoning_cost_weight": "training.prices.steps",
    "label_smoothing": "training.label_smoothing",
    "max_epochs": "training.max_epochs",
    "epochs": "training.max_epochs",
    "patience": "training.patience",
    "eval_every": "training.eval_every",
    "seed": "seed",
}
"""The plan's key -> our setting of the same meaning."""

REASONS: Mapping[str, str] = {
    "vocab_size": "it is the tokenizer's; for T5's say data.tokenizer=google-t5/t5-base",
    "num_workers": "questions are tokens in memory, which no worker has to fetch",
    "pin_memory": "questions are tokens in memory, which no worker has to fetch",
    "persistent_workers": "questions are tokens in memory, which no worker has to fetch",
    "empty_cache_steps": "emptying the cache makes each later step ask for its memory again",
    "optimizer": "AdamW is the only one",
    "fp16": "it is off; with bf16 off too the pass is in float32",
    "bf16": "it is off; with fp16 off too the pass is in float32",
    "name": "a run has a --name, and records its settings",
    "purpose": "a run has a --name, and records its settings",
    "size": "sizes of question sets are counted when they are read",
    "preprocessing": "every set has the prompt of its own file, with the options in it",
    "split": "sides are the set's own, with a tenth of the training side for validation",
}
"""The plan's key -> why it has no effect."""

_FIXED = "fixed_steps"
_NETWORKS = ("base_config", "large_config")
_SCHEDULES = {"linear_warmup_cosine": "cosine", "cosine": "cosine", "linear": "linear"}


def translate(given: Settings) -> tuple[Settings, tuple[str, ...]]:
    """Our settings, and a sentence for each key that was given."""
    if not given or set(given) <= set(ConnectionSettings.model_fields):
        return given, ()
    ours: Settings = {}
    notes: list[str] = []
    said: dict[str, tuple[str, Value]] = {}
    flat = _flat(_of_one_network(given, notes))
    if flat.get("fp16") and flat.get("bf16"):
        raise ConfigError(
            "fp16 and bf16 are both true, and a pass is done in one of them. Set one to false: "
            "bf16 needs no scaling of the loss, and fp16 is for cards that have no bf16."
        )
    if (flat.get("fp16"), flat.get("bf16")) == (False, False):
        _put(ours, "training.precision", "float32")
    # The plan's arm without stopping stands on a network that has a largest number of steps.
    for key, value in sorted(flat.items(), key=lambda pair: pair[0] == _FIXED):
        if key in TAKEN:
            other, before = said.setdefault(TAKEN[key], (key, value))
            if before != value:
                raise ConfigError(
                    f"{other}={before} and {key}={value} are both {TAKEN[key]}; give one of them."
                )
            _put(ours, TAKEN[key], value)
            notes.append(f"{key} is taken as {TAKEN[key]}={value}.")
        elif key in _READERS:
            taken = _READERS[key](value)
            for place, read in taken.items():
                other, before = said.setdefault(place, (key, read))
                if before != read and key != _FIXED:
                    raise ConfigError(
                        f"{other}={before} and {key}={value} are both {place}; give one of them."
                    )
                _put(ours, place, read)
                notes.append(f"{key} is taken as {place}={read}.")
            if not taken:
                notes.append(f"{key}={value} has no effect: {REASONS[key]}.")
        elif key in REASONS:
            notes.append(f"{key} has no effect: {REASONS[key]}.")
        else:
            known = list(dict.fromkeys([*TAKEN, *_READERS, *REASONS]))
            raise ConfigError(
                f"The plan has no key {key!r}.{nearest(key, known)} Its keys are "
                f"{', '.join(sorted(known))}; a file in Fluoroscope's own has "
                f"{', '.join(ConnectionSettings.model_fields)} at its top."
            )
    _put(ours, "training.thinking.steps", "halting")
    return ours, tuple(notes)


def _of_one_network(given: Settings, notes: list[str]) -> Settings:
    """With the sizes of batches of the network that the file has, where several are given."""
    sizes = given.get("batch_sizes")
    if not isinstance(sizes, Mapping) or not set(sizes) & set(_NETWORKS):
        return given
    named = [name for name in _NETWORKS if name in given] or list(sizes)
    if len(named) != 1 or named[0] not in sizes:
        raise ConfigError(
            f"batch_sizes has those of {', '.join(sizes)}, and the file does not say of which of "
            f"them its network is (it has {', '.join(named)}). Give batch_sizes of one network."
        )
    for other in sizes:
        if other != named[0]:
            notes.append(f"batch_sizes.{other} has no effect: the network is {named[0]}.")
    return {**given, "batch_sizes": sizes[named[0]]}


def _flat(given: Settings) -> Settings:
    """Groups are taken apart; a key that is said twice must be said alike."""
    found: Settings = {}
    for key, value in given.items():
        parts = value.items() if key in GROUPS and isinstance(value, Mapping) else [(key, value)]
        for name, one in parts:
            if name in found and found[name] != one:
                raise ConfigError(f"{name} is given twice, as {found[name]} and as {one}.")
            found[name] = one
    return found


def _put(settings: Settings, place: str, value: Value) -> None:
    *groups, last = place.split(".")
    for group in groups:
        settings = settings.setdefault(group, {})
    settings[last] = value


def _schedule(value: Value) -> Settings:
    return {"training.optimiser.schedule": _one_of("scheduler", value, _SCHEDULES)}


def _connections(value: Value) -> Settings:
    name = _one_of("connection", value, _CONNECTIONS)
    return {"network.connection.name": name}


def _fixed_steps(value: Value) -> Settings:
    return {"network.max_steps": value, "network.halting.name": "fixed"}


def _optimiser(value: Value) -> Settings:
    if str(value).lower() != "adamw":
        raise ConfigError(
            f"optimizer is AdamW, got {value!r}: rates, decay and the plan of memory are made for "
            "it, and no other is there. Leave it out, or write AdamW."
        )
    return {}


def _half(precision: str) -> Callable[[Value], Settings]:
    """Of two switches the one that is on decides."""
    return lambda is_on: {"training.precision": precision} if is_on else {}


def _dataset(value: Value) -> Settings:
    return {"data.sets": [value]}


_READERS: Mapping[str, Callable[[Value], Settings]] = {
    "scheduler": _schedule,
    "connection": _connections,
    "connection_type": _connections,
    _FIXED: _fixed_steps,
    "optimizer": _optimiser,
    "fp16": _half("float16"),
    "bf16": _half("bfloat16"),
    "dataset": _dataset,
}


def _one_of(key: str, value: Value, known: Mapping[str, str]) -> str:
    if str(value) not in known:
        raise ConfigError(f"{key} is one of {', '.join(known)}, got {value!r}.")
    return known[str(value)]
