"""What each phase of the plan trains, from the network that the phase before has handed on.

Beside each arm of the plan that is larger or smaller than the network it came from stands one of
its size: N slots and rank r have 2 N^2 D r weights in the plan's bilinear form, so that "the best
ratio of N and D" or "the best rank" may be the largest network and nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from fluoroscope.studies.connection.arms import SLOTS, with_form
from fluoroscope.studies.connection.network.network_config import (
    ConnectionName,
    HaltingConfig,
    NetworkConfig,
)
from fluoroscope.studies.connection.reasoners import count_parameters
from fluoroscope.studies.connection.sweep_config import Phase, SweepConfig
from fluoroscope.studies.connection.training_config import Steps

Role = Literal["plan", "matched", "beside"]
_WITH_RANK: tuple[ConnectionName, ...] = ("bilinear", "shared_basis", "node_factor")
"""Forms whose rank changes what they can be; in `scalar` the products of a rank are one number."""

_NEAR = 0.25
"""Of a size that is matched in whole ranks or slots; the report has the gap."""


@dataclass(frozen=True)
class PhaseArm:
    name: str
    network: NetworkConfig
    role: Role
    """`plan`: as the plan has it; `matched`: of the size of the network that came in; `beside`:
    what the plan did not think of."""

    kind: str = SLOTS
    """`slots`, or the family of a baseline that is matched to `network`."""

    may_win: bool = True

    steps: Steps | None = None
    """How it is trained and evaluated to think; None is as `training.thinking.steps` says."""


def arms_of_phase(
    phase: Phase, network: NetworkConfig, sweep: SweepConfig, steps: Steps | None = None
) -> list[PhaseArm]:
    """`network` is what the phase before handed on, in phase 1 that of the settings; `steps` how
    it thinks, where that is not as the settings say.
    """
    arms = _arms_of_phase(phase, network, sweep)
    # Two ratios may be one number of slots: the first of a name is all of them.
    named = {one.name: one for one in reversed(arms)}
    kept = [one for one in arms if named[one.name] is one]
    return [one if one.steps else replace(one, steps=steps) for one in kept]


def _arms_of_phase(phase: Phase, network: NetworkConfig, sweep: SweepConfig) -> list[PhaseArm]:
    match phase:
        case "phase1":
            return _forms(network)
        case "phase2":
            return [_as_before(network), *_ratios(network, sweep)]
        case "phase3":
            return [_as_before(network), *_ranks(network, sweep)]
        case "phase4":
            return [_as_before(network), *_halting(network, sweep)]
        case "final":
            return [
                PhaseArm("best", network, "plan"),
                PhaseArm("none", with_form(network, "none"), "beside", may_win=False),
                *_baselines(network),
            ]


def large_of(network: NetworkConfig) -> NetworkConfig:
    """As the plan's `large_config` is of its `base_config`."""
    rank, threshold = 2 * network.connection.rank, network.halting.threshold / 2
    return network.model_copy(
        update={
            "d_model": 2 * network.d_model,
            "n_slots": 2 * network.n_slots,
            "max_steps": network.max_steps + 2,
            "connection": network.connection.model_copy(update={"rank": rank}),
            "halting": network.halting.model_copy(update={"threshold": threshold}),
        }
    )


def _forms(network: NetworkConfig) -> list[PhaseArm]:
    square = network.model_copy(update={"n_slots": network.d_model})
    plan = [
        # The text says slots, the code mixes features: both readings.
        PhaseArm("linear_slot", with_form(square, "linear_slot"), "plan"),
        PhaseArm("linear_feature", with_form(square, "linear_feature"), "plan"),
        PhaseArm("bilinear_base", with_form(network, "bilinear"), "plan"),
        # Its size would go on to all later phases.
        PhaseArm("bilinear_large", large_of(with_form(network, "bilinear")), "plan", may_win=False),
    ]
    cheap: tuple[ConnectionName, ...] = ("scalar", "shared_basis", "node_factor", "gated")
    beside = [PhaseArm(form, with_form(network, form), "beside") for form in cheap]
    none = PhaseArm("none", with_form(network, "none"), "beside", may_win=False)
    return [*plan, *beside, none, *_baselines(with_form(network, "bilinear"))]


def _baselines(network: NetworkConfig) -> list[PhaseArm]:
    return [
        PhaseArm(kind, network, "beside", kind, may_win=False)
        for kind in ("transformer", "transformer_flops")
    ]


def _ratios(network: NetworkConfig, sweep: SweepConfig) -> list[PhaseArm]:
    found = []
    for ratio in sweep.ratios:
        n_slots = max(2, round(ratio * network.d_model))
        changed = _with_slots(network, n_slots)
        found.append(PhaseArm(f"slots_{n_slots}", changed, "plan"))
        matched = _of_size(
            network, lambda rank, own=changed: _with_rank(own, rank), network.d_model
        )
        if n_slots != network.n_slots and matched is not None:
            name = f"slots_{n_slots}_rank_{matched.connection.rank}"
            found.append(PhaseArm(name, matched, "matched"))
    return found


def _as_before(network: NetworkConfig) -> PhaseArm:
    """So that no phase can make worse what came in, but by chance."""
    return PhaseArm("as_before", network, "beside")


def _ranks(network: NetworkConfig, sweep: SweepConfig) -> list[PhaseArm]:
    """Of the plan's form where what came in has no rank to speak of."""
    if network.connection.name not in _WITH_RANK:
        network = with_form(network, "bilinear")
    found = []
    for rank in sweep.ranks:
        changed = _with_rank(network, rank)
        found.append(PhaseArm(f"rank_{rank}", changed, "plan"))
        matched = _of_size(network, partial(_with_slots, changed), 4 * network.n_slots)
        if rank != network.connection.rank and matched is not None:
            name = f"rank_{rank}_slots_{matched.n_slots}"
            found.append(PhaseArm(name, matched, "matched"))
    return found


def _halting(network: NetworkConfig, sweep: SweepConfig) -> list[PhaseArm]:
    """All stop by themselves: where steps are told, no rule is asked, and all arms are one."""

    def halts(**settings: object) -> NetworkConfig:
        changed = network.halting.model_copy(update=settings)
        return network.model_copy(update={"halting": changed})

    plan = [
        PhaseArm(f"threshold_{value:g}", halts(name="threshold", threshold=value), "plan")
        for value in sweep.thresholds
    ]
    steps = {"max_steps": sweep.fixed_steps, "halting": HaltingConfig(name="fixed")}
    plan.append(PhaseArm(f"steps_{sweep.fixed_steps}", network.model_copy(update=steps), "plan"))
    beside = [
        PhaseArm(f"change_{value:g}", halts(name="relative", threshold=value), "beside")
        for value in sweep.changes
    ]
    arms = [*plan, *beside, PhaseArm("learned", halts(name="learned"), "beside")]
    return [replace(one, steps="halting") for one in arms]


def _with_rank(network: NetworkConfig, rank: int) -> NetworkConfig:
    changed = network.connection.model_copy(update={"rank": rank})
    return network.model_copy(update={"connection": changed})


def _with_slots(network: NetworkConfig, n_slots: int) -> NetworkConfig:
    return network.model_copy(update={"n_slots": n_slots})


def _of_size(
    network: NetworkConfig, change: Callable[[int], NetworkConfig], most: int
) -> NetworkConfig | None:
    """`change` of the number from 1 to `most` that has about as many weights of connections as
    `network`; None where none is near, or the form has no rank to speak of.
    """
    if network.connection.name not in _WITH_RANK:
        return None
    target = count_parameters(network).connections

    def size(number: int) -> int:
        return count_parameters(change(number)).connections

    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if size(middle) >= target else (middle + 1, high)
    numbers: Sequence[int] = (max(1, low - 1), low)
    best = min(numbers, key=lambda number: abs(size(number) / target - 1))
    return change(best) if abs(size(best) / target - 1) <= _NEAR else None
