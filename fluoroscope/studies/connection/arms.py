"""What is trained beside a slot network, by name; this module is free of torch.

    slots                the network as the settings have it
    linear_feature, linear_slot, bilinear, scalar, shared_basis, node_factor, top_k, gated, none
                         the same network, but slots hear each other so (`none`: not at all)
    plan                 a network of the same sizes as the plan's text has it: bilinear, ReLU and a
                         norm a step, an absolute threshold, answers written by slots alone
    steps_K              the same network, K steps of thought, always (steps_0: none)
    transformer          an encoder-decoder Transformer of as many parameters, without those of the
                         vocabulary; transformer_flops: of as many operations in training
    perceiver, looped    latents, or a Transformer, whose steps share their weights, of as many
                         parameters

The majority's answer and a bag of words are answered beside them without being asked for.
"""

import re
from typing import Final, Literal, get_args

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.registry import nearest
from fluoroscope.studies.connection.network.network_config import (
    ConnectionName,
    HaltingConfig,
    NetworkConfig,
    RoutingConfig,
)

SLOTS: Final = "slots"
PLAN: Final = "plan"
Family = Literal["transformer", "transformer_flops", "perceiver", "looped"]
FAMILIES: tuple[Family, ...] = get_args(Family)
FORMS: tuple[ConnectionName, ...] = get_args(ConnectionName)

_STEPS = re.compile(r"steps_(\d+)")


def check_arm(name: str) -> str:
    """The name, or a `ConfigError` with those that there are."""
    if name in (SLOTS, PLAN) or name in FORMS or name in FAMILIES or _STEPS.fullmatch(name):
        return name
    known = [SLOTS, PLAN, *FORMS, *FAMILIES, "steps_4"]
    raise ConfigError(
        f"There is no arm {name!r}.{nearest(name, known)} There are {SLOTS}, {PLAN}, "
        f"the connection forms {', '.join(FORMS)}, steps_K for a number K, and "
        f"{', '.join(FAMILIES)}."
    )


def check_form(name: str) -> ConnectionName:
    """The name of a connection form, as one."""
    for form in FORMS:
        if name == form:
            return form
    raise ConfigError(f"There is no connection form {name!r}; there are {', '.join(FORMS)}.")


def is_slots(name: str) -> bool:
    """Whether the arm is a slot network."""
    return name not in FAMILIES


def slot_arm(name: str, network: NetworkConfig) -> NetworkConfig:
    """The slot network of an arm that is one."""
    if name == SLOTS:
        return network
    if name == PLAN:
        return as_planned(network)
    if (found := _STEPS.fullmatch(name)) is not None:
        fixed = {"max_steps": int(found[1]), "halting": HaltingConfig(name="fixed")}
        return network.model_copy(update=fixed)
    return with_form(network, check_form(name))


def steps_of_arm(name: str) -> Literal["all"] | None:
    """How an arm thinks whatever the settings say; None as they say."""
    return "all" if _STEPS.fullmatch(name) else None


def with_form(network: NetworkConfig, form: ConnectionName) -> NetworkConfig:
    """The same network, but slots hear each other so."""
    return network.model_copy(update={"connection": network.connection.of_form(form)})


def as_planned(network: NetworkConfig) -> NetworkConfig:
    """The first generation of the plan, at the sizes of `network`."""
    return network.model_copy(
        update={
            "step": "relu_norm",
            "connection": network.connection.of_form("bilinear"),
            "routing": RoutingConfig(),
            "halting": HaltingConfig(),
            "noise": 0.0,
            "spread": 0.02,
            "neighbours": 0,
            "output": network.output.model_copy(
                update={"name": "slots_to_sequence", "reads_tokens": False}
            ),
            "n_source_layers": 0,
        }
    )
