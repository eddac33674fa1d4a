"""The reasoner of an arm, once the tokenizer's vocabulary is known."""

from dataclasses import dataclass

from fluoroscope.studies.connection.arms import is_slots, slot_arm
from fluoroscope.studies.connection.baselines.matching import Match, match_flops, match_parameters
from fluoroscope.studies.connection.dry_run import Workload
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.reasoners import AnyConfig


@dataclass(frozen=True)
class MadeArm:
    config: AnyConfig
    match: Match | None
    """How near it comes to the slot network; None of one that is not matched."""


def made_arm(name: str, network: NetworkConfig, vocab_size: int, work: Workload) -> MadeArm:
    """`network` is that of the settings, `work` what a step of training is done on."""
    known = network.model_copy(update={"vocab_size": vocab_size})
    if is_slots(name):
        return MadeArm(slot_arm(name, known), None)
    match name:
        case "transformer_flops":
            found = match_flops(known, "transformer", work)
        case "transformer" | "perceiver" | "looped":
            found = match_parameters(known, name)
        case _:
            raise AssertionError(f"no arm {name}: names are checked where they are given")
    return MadeArm(found.config, found)
