"""Part `forms`: cheap ways for slots to hear each other, beside the plan's map for each pair.

At two sizes, `base` (the plan's base network) and `walks` (that of the preset
connection/pointer), each form with the same N, D and all else:

- parameters of the connection alone;
- a step of the connection: forward and backward, the weights made ready in each;
- a step of training of the whole network by the study's own trainer: batch, all steps of thought,
  loss, backward, clipping and AdamW, on walks that are told in the text.
"""

from collections.abc import Mapping
from dataclasses import replace

from benchmarks.connection_parts import (
    beside_first,
    contender,
    new_connection,
    way_of_form,
)
from benchmarks.connection_scales import (
    TASK,
    Scale,
    Training,
    base_scale,
    pointer_settings,
    walks_scale,
)
from benchmarks.harness import Contender, Timing, interleave, speed_ratio
from benchmarks.plugin_parts import WARM_UP, Part
from fluoroscope.studies.connection.network.network_config import ConnectionName
from fluoroscope.studies.connection.reasoners import count_parameters

PLAN: ConnectionName = "bilinear"
CHEAP: tuple[ConnectionName, ...] = (
    "linear_slot",
    "scalar",
    "shared_basis",
    "node_factor",
    "top_k",
    "gated",
)
FORMS = (PLAN, *CHEAP)
FEWER, FASTER = 20, 5
STEP, TRAINING = "a step of the connection", "a step of training"
Timings = Mapping[str, Timing]


def forms(rounds: int, is_quick: bool) -> Part:
    base, walks = base_scale(is_quick), walks_scale(pointer_settings(), is_quick)
    part, beside = _of_scale(base, rounds), _of_scale(walks, rounds)
    # Goals are of the size that the plan has its costs at; the walks' size is a small one.
    part.join(replace(beside, goals={}))
    part.conditions |= {
        "base": f"{base.size}, {base.network.max_steps} steps of thought, "
        f"{base.network.vocab_size:,} words, {TASK}, float32",
        "walks": f"{walks.size}, at most {walks.network.max_steps} steps of thought, top_k with "
        f"k {walks.form('top_k').k}, {TASK}, float32",
    }
    return part


def _of_scale(scale: Scale, rounds: int) -> Part:
    counts = {form: count_parameters(scale.with_form(form)).connections for form in FORMS}
    step, training = connection_steps(scale, rounds), training_steps(scale, rounds)
    part = Part(goals=_fewer(scale, counts) | _faster(scale, step, STEP))
    part.goals |= _faster(scale, training, TRAINING)
    part.join(_rows(f"{scale.name}: {STEP}", step, counts))
    part.join(_rows(f"{scale.name}: {TRAINING}", training, counts))
    return part


def connection_steps(scale: Scale, rounds: int) -> Timings:
    slots, contenders = scale.size.slots(), []
    for name in FORMS:
        form = scale.form(name)
        way = way_of_form(new_connection(scale.size.d_model, scale.size.n_slots, form))
        # A gigabyte of weights takes a second, and others a few milliseconds.
        repeats = 1 if name == PLAN and scale.size.flops > 1e9 else 10
        contenders.append(contender(name, way, slots, True, repeats))
    return interleave(contenders, rounds)


def training_steps(scale: Scale, rounds: int) -> Timings:
    training = Training(scale, rounds + WARM_UP)
    contenders = [Contender(name, training.steps_of(name), scale.n_steps) for name in FORMS]
    return interleave(contenders, rounds, WARM_UP)


def _rows(what: str, found: Timings, counts: Mapping[str, int]) -> Part:
    part = beside_first(what, found)
    for name, line in zip(found, part.rows, strict=True):
        fewer = "" if name == PLAN else f", {counts[PLAN] / counts[name]:,.0f} times fewer"
        line[2] = f"{counts[name]:,}{fewer}"
    return part


def _fewer(scale: Scale, counts: Mapping[str, int]) -> dict[str, bool]:
    name = max(CHEAP, key=counts.__getitem__)
    fewer = counts[PLAN] / counts[name]
    said = f"{scale.name}: at least {FEWER} times fewer parameters, {name} {fewer:,.0f} times"
    return {said: fewer >= FEWER}


def _faster(scale: Scale, found: Timings, what: str) -> dict[str, bool]:
    ratios = {name: speed_ratio(found[name], found[PLAN]) for name in CHEAP}
    name = min(CHEAP, key=lambda each: ratios[each].median)
    said = f"{scale.name}, {what}: at least {FASTER} times faster, {name} {ratios[name]}"
    return {said: ratios[name].median >= FASTER}
