"""The reasoner of an arm, once the tokenizer's vocabulary is known."""

from dataclasses import dataclass

from fluoroscope.studies.connection.arms import is_slots, slot_arm
from fluoroscope.studies.connection.baselines.matching import Match, match_flops, match_parameters
from fluoroscope.studies.connection.dry_run import Workload
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.reasoners import AnyConfig

_ANSWER_TOKENS = 8


@dataclass(frozen=True)
class MadeArm:
    config: AnyConfig
    match: Match | None
    """How near it comes to the slot network; None of one that is not matched."""


_MADE: dict[tuple[str, str, int, int], MadeArm] = {}


def made_arm(name: str, network: NetworkConfig, vocab_size: int, batch_size: int) -> MadeArm:
    """`network` is that of the settings; operations are matched on batches of its longest texts.
    Matched once in each process, which takes seconds.
    """
    asked = (name, network.model_dump_json(), vocab_size, batch_size)
    if asked not in _MADE:
        _MADE[asked] = _made(name, network, vocab_size, batch_size)
    return _MADE[asked]


def _made(name: str, network: NetworkConfig, vocab_size: int, batch_size: int) -> MadeArm:
    work = Workload(batch_size, network.max_source, min(_ANSWER_TOKENS, network.max_target))
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
