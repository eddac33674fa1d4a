"""Closed forms where there are some, and real passes of tiny reasoners where they can be done."""

import weakref
from dataclasses import dataclass, replace
from typing import get_args

import pytest
import torch
from tiny_reasoners import DECODER, SIZES, tiny_config
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from fluoroscope.core.config import build
from fluoroscope.runs import plan as plan_of_runs
from fluoroscope.studies.connection.baselines.baseline_config import (
    LoopedConfig,
    PerceiverConfig,
    TransformerConfig,
)
from fluoroscope.studies.connection.dry_run import Way, Workload, dry_run
from fluoroscope.studies.connection.made_arms import made_arm
from fluoroscope.studies.connection.network.known_configs import known_config
from fluoroscope.studies.connection.network.losses import answer_loss, deep_supervision
from fluoroscope.studies.connection.planner import (
    PROCESS_BYTES,
    TIGHT,
    Moments,
    Training,
    largest_batch,
    plan_training,
    says_why_not,
    verdict,
)
from fluoroscope.studies.connection.reasoners import count_parameters, new_reasoner
from fluoroscope.studies.settings import study_spec

GIB = 2**30
CARD = 24 * GIB
WORK = Workload(batch=8, n_source=10, n_target=5)
ON_CPU = Way(kernels="cpu")
SMALL = {**SIZES, "d_model": 16, "dropout": 0.1, "n_heads": 2, "n_decoder_layers": 1}
TINY = {
    "pairs": tiny_config(d_model=16, dropout=0.1),
    "gated": tiny_config(
        d_model=16, dropout=0.1, step="gated", connection={"name": "gated"}, output=DECODER
    ),
    "transformer": build(TransformerConfig, {**SMALL, "n_encoder_layers": 2}),
    "perceiver": build(PerceiverConfig, {**SMALL, "n_latents": 6, "max_steps": 3}),
    "looped": build(LoopedConfig, {**SMALL, "max_steps": 3}),
}
OF_EACH = [
    pytest.param(name, marks=[pytest.mark.slow] if name in ("transformer", "perceiver") else [])
    for name in TINY
]


@dataclass(eq=False)
class Box:
    tensor: torch.Tensor


class RealStep:
    """A step of training with values, on the CPU."""

    def __init__(self, config, work=WORK):
        self.reasoner = new_reasoner(config, 0).train()
        for parameter in self.reasoner.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self.work = work

    def logits(self):
        ids = torch.ones(self.work.batch, self.work.n_source, dtype=torch.int64)
        thought = self.reasoner.think(ids, ids == 1, self.reasoner.max_steps)
        return self.reasoner.logits(thought, self.targets())

    def targets(self):
        return torch.ones(self.work.batch, self.work.n_target, dtype=torch.int64)

    def whole(self):
        logits = self.logits()
        answer_loss(logits, self.targets()).backward()


def peak_of(step):
    """The most that the CPU's allocator had given at once, by torch's profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    now = most = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


@pytest.mark.parametrize(
    ("name", "gib"),
    [
        ("base_config", 4),
        ("nd_64_256", 1),
        ("nd_256_256", 16),
        ("nd_512_256", 64),
        ("rank_8", 1),
        ("rank_16", 2),
        ("rank_64", 8),
        ("large_config", 64),
    ],
)
def test_the_state_of_connections_is_16_bytes_for_each_of_2_n_n_d_r(name, gib):
    network = known_config(name).network
    n, d, r = network.n_slots, network.d_model, network.connection.rank
    counts = count_parameters(network)
    assert counts.connections == 2 * n * n * d * r
    assert Training().state_bytes_each * counts.connections == gib * GIB


def test_the_plans_large_network_does_not_fit_the_plans_card_with_any_batch():
    network, batches = known_config("large_config")
    plan = plan_training(network, Workload(batches.train, 256, 8))
    assert plan.needs.state > 64 * GIB
    assert plan.verdict(CARD) == "does not fit"
    assert largest_batch(network, Workload(batches.train, 256, 8), CARD) == 0
    assert "of 24.0 GiB: does not fit" in plan.says(CARD)
    assert f"state {plan.needs.state / GIB:.1f} GiB" in plan.says(CARD)
    # Not even with moments of a byte, which is the least that can be done.
    least = Training(Way("bfloat16", checkpoints_steps=True), "int8")
    assert largest_batch(network, Workload(1, 256, 8), CARD, least) == 0


def test_a_step_of_the_base_is_4_b_n_n_d_r_operations_and_keeps_its_ranks():
    network, batches = known_config("base_config")
    b, n, d, r = batches.train, 128, 256, 32
    one, two = (dry_run(network, Workload(b, 64, 2, steps)) for steps in (1, 2))
    assert two.forward_flops - one.forward_flops == 4 * b * n * n * d * r == 17_179_869_184
    assert two.training_flops - one.training_flops == 3 * 17_179_869_184
    ranks, states = 4 * b * n * n * r, 4 * b * n * d
    assert ranks == 67_108_864
    # Beside them the states, what was added, their sum before the norm, and its statistics.
    kept = two.activation_bytes - one.activation_bytes
    assert ranks + 3 * states <= kept <= ranks + 3.1 * states


def test_ranks_that_are_kept_grow_with_the_rank():
    work = Workload(batch=4, n_source=6, n_target=2, n_steps=3)
    few, many = (
        dry_run(tiny_config(connection={"name": "bilinear", "rank": rank}), work) for rank in (2, 5)
    )
    assert many.activation_bytes - few.activation_bytes == 3 * 4 * (4 * 5 * 5 * (5 - 2))


@pytest.mark.parametrize("name", OF_EACH)
def test_operations_are_those_that_torch_counts_in_a_real_step(name):
    step = RealStep(TINY[name])
    with FlopCounterMode(display=False) as counter:
        step.whole()
    assert dry_run(TINY[name], WORK).training_flops == counter.get_total_flops()


@pytest.mark.parametrize("name", OF_EACH)
def test_activations_are_the_storages_that_a_real_pass_saves(name):
    step, saved = RealStep(TINY[name]), weakref.WeakSet()

    def keep(tensor):
        saved.add(box := Box(tensor))
        return box

    with saved_tensors_hooks(keep, lambda box: box.tensor):
        logits = step.logits()
    own = {
        tensor.untyped_storage().data_ptr()
        for tensor in (*step.reasoner.parameters(), *step.reasoner.buffers())
    }
    # What was kept for states that nobody reads is gone with them.
    kept = {box.tensor.untyped_storage().data_ptr(): box.tensor for box in saved}
    expected = sum(
        tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own
    )
    assert logits.requires_grad
    assert dry_run(TINY[name], WORK, ON_CPU).activation_bytes == expected


@pytest.mark.parametrize("checkpoints", [False, True], ids=["kept", "done twice"])
@pytest.mark.parametrize("name", OF_EACH)
def test_the_peak_is_that_of_a_real_step(name, checkpoints):
    # So many texts that what is not theirs, such as states of generators, is little.
    work = replace(WORK, batch=128)
    step = RealStep(TINY[name], work)
    if name != "transformer":
        step.reasoner.checkpoints_steps = checkpoints
    step.whole()
    found = dry_run(TINY[name], work, replace(ON_CPU, checkpoints_steps=checkpoints))
    assert found.peak_bytes == pytest.approx(peak_of(step.whole), rel=0.015)


@pytest.mark.parametrize("name", [*OF_EACH[3:], pytest.param("gated", marks=pytest.mark.slow)])
def test_steps_that_are_done_twice_keep_their_states_and_cost_a_forward_more(name):
    config, m = TINY[name], {"gated": 5, "perceiver": 6, "looped": WORK.n_source}[name]
    twice = Way(checkpoints_steps=True)
    # By the third step all that is kept once for all steps is there.
    three, four = (replace(WORK, n_steps=n) for n in (3, 4))
    kept, again = (dry_run(config, four, way) for way in (Way(), twice))
    states = 4 * WORK.batch * m * config.d_model
    more = again.activation_bytes - dry_run(config, three, twice).activation_bytes
    assert states <= more <= 3 * states
    assert again.activation_bytes < kept.activation_bytes
    assert again.forward_flops == kept.forward_flops
    assert kept.training_flops < again.training_flops < kept.training_flops + kept.forward_flops


@pytest.mark.slow
def test_half_precision_keeps_less_of_texts_and_copies_of_weights():
    config = TINY["transformer"]
    few, many = replace(WORK, batch=1), replace(WORK, batch=65)
    full, half = (
        [dry_run(config, work, Way(precision)).activation_bytes for work in (few, many)]
        for precision in ("float32", "bfloat16")
    )
    assert half[1] - half[0] < 0.85 * (full[1] - full[0])
    # Of a single text nearly all that is kept are copies of the weights, two bytes each.
    per_text = (half[1] - half[0]) / 64
    weights = sum(
        parameter.numel()
        for name, parameter in new_reasoner(config, 0).named_parameters()
        if parameter.dim() == 2 and "embedding" not in name and "source" not in name
    )
    assert half[0] - per_text == pytest.approx(2 * weights, rel=0.1)


def test_a_gpu_keeps_no_scores_and_a_byte_a_value_of_dropout():
    config = TINY["transformer"]
    gpu, cpu = (dry_run(config, WORK, Way(kernels=kernels)) for kernels in ("gpu", "cpu"))
    b, s, t, d, heads = 8, 10, 5, 16, 2
    # Of dropout of the text and behind attention, hidden and feed-forward parts of 2 layers and
    # one of the decoder's, which has two attentions, embeddings of its own and a head.
    dropped = b * s * d + 2 * b * s * (2 * d + 4 * d) + b * t * (d + 3 * d + 4 * d + d)
    scores = heads * b * (2 * s * s + t * t + t * s)
    assert cpu.activation_bytes - gpu.activation_bytes > 3 * dropped + 2 * 4 * scores
    assert cpu.forward_flops == gpu.forward_flops


def test_needs_are_the_state_and_all_that_is_there_at_the_peak():
    plan = plan_training(TINY["gated"], WORK)
    run, needs = dry_run(TINY["gated"], WORK), plan.needs
    n = count_parameters(TINY["gated"]).total
    assert needs.state == 16 * n
    assert needs.logits == 2 * 4 * 8 * 5 * SIZES["vocab_size"]
    assert needs.total - needs.state - PROCESS_BYTES == max(run.peak_bytes, 4 * n)
    assert (plan.forward_flops, plan.training_flops) == (run.forward_flops, run.training_flops)


def test_moments_may_be_smaller_and_weights_stay():
    sizes = {kind: Training(moments=kind).state_bytes_each for kind in get_args(Moments)}
    assert sizes == {"float32": 16, "bfloat16": 12, "int8": 10}
    half = Training(Way("bfloat16"), "int8")
    n = count_parameters(TINY["pairs"]).total
    assert plan_training(TINY["pairs"], WORK, half).needs.state == 10 * n


def test_256_slots_fit_the_plans_card_only_with_smaller_moments():
    network, batches = known_config("nd_256_256")
    work = Workload(batches.train, 256, 8)
    assert plan_training(network, work).verdict(CARD) == "does not fit"
    assert plan_training(network, work, Training(Way("bfloat16"), "int8")).verdict(CARD) == "safe"


@pytest.mark.parametrize("moments", ["float32", pytest.param("int8", marks=pytest.mark.slow)])
def test_the_largest_batch_is_the_last_that_fits(moments):
    training, config = Training(moments=moments), tiny_config(max_steps=2)

    def needed(batch):
        return plan_training(config, replace(WORK, batch=batch), training).needs.total

    room, last = needed(11), 11
    # Where the optimiser needs most, small batches all need as much.
    while needed(last + 1) <= room:
        last += 1
    assert largest_batch(config, WORK, room, training) == last
    assert largest_batch(config, WORK, needed(1) - 1, training) == 0


def test_what_does_not_fit_says_what_would():
    config = tiny_config(max_steps=2)
    needed = [plan_training(config, replace(WORK, batch=n)).needs.total for n in (1, 40, 41)]
    said = says_why_not(config, replace(WORK, batch=100), needed[1])
    assert needed[1] < needed[2]
    assert "does not fit. The largest batch that fits is 40, of 10 tokens a text." in said
    assert "Not even a batch of one text fits." in says_why_not(config, WORK, needed[0] - 1)


@pytest.mark.parametrize("arm", ["slots", pytest.param("transformer", marks=pytest.mark.slow)])
def test_what_the_plans_preset_trains_first_fits_the_plans_card(arm):
    settings = study_spec("connection", "connection/rtx4090-base", None, [])
    training, network = settings.training, settings.network
    assert training.batch_size * training.accumulation == 64
    made = made_arm(arm, network, network.vocab_size, training.batch_size).config
    work = Workload(training.batch_size, network.max_source, 8)
    way = Training(Way("bfloat16", training.checkpoints_steps))
    assert settings.sweep.largest_gib is not None
    room = settings.sweep.largest_gib * GIB
    assert plan_training(made, work, way).verdict(room) == "safe"


@pytest.mark.slow
def test_steps_that_are_supervised_on_the_way_cost_an_answer_each():
    """As torch's own counter sees the study's own losses of a training step."""
    network = TINY["gated"].model_copy(update={"max_steps": 4})
    last, every = (dry_run(network, replace(WORK, n_answered=n)) for n in (1, None))
    assert (last.n_answered, every.n_answered) == (1, 4)
    reasoner = new_reasoner(network, 0).train()
    ids = torch.ones(WORK.batch, WORK.n_source, dtype=torch.int64)
    targets = torch.ones(WORK.batch, WORK.n_target, dtype=torch.int64)
    for supervised, found in (([4], last), ([1, 2, 3, 4], every)):
        with FlopCounterMode(display=False) as counted:
            thought = reasoner.think(ids, ids == 1, 4)
            deep_supervision(reasoner, thought, targets, targets, supervised).backward()
        assert found.training_flops == counted.get_total_flops()
    needs = [plan_training(network, replace(WORK, n_answered=n)).needs for n in (1, None)]
    assert needs[1].logits == 4 * needs[0].logits


def test_a_reasoner_without_steps_answers_once():
    transformer = TINY["transformer"]
    found = dry_run(transformer, replace(WORK, n_steps=6, n_answered=None))
    assert found == dry_run(transformer, WORK)


def test_words_and_bounds_are_those_of_fluoro_plan():
    assert (TIGHT, PROCESS_BYTES) == (plan_of_runs.TIGHT, plan_of_runs.PROCESS_BYTES)
    for needed in (1, 84, 85, 86, 100, 101):
        assert verdict(needed, 100) == plan_of_runs.status(needed, 100)
