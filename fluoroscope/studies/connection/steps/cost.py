"""What trainings cost, known before anything is read: each is run once without values."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fluoroscope.data.questions.tokenizer_config import TRAINED
from fluoroscope.runs.step import Cost
from fluoroscope.studies.connection.arms import steps_of_arm
from fluoroscope.studies.connection.config import ConnectionConfig
from fluoroscope.studies.connection.dry_run import Way, Workload
from fluoroscope.studies.connection.made_arms import made_arm
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.planner import PROCESS_BYTES, Training, plan_training
from fluoroscope.studies.connection.sizes import deepest_of, questions_of, tokens_of
from fluoroscope.studies.connection.training_config import Steps

_STEP_S = 0.02
_ANSWER_TOKENS = 4
_T5_WORDS = 32_000


Arms = Sequence[tuple[str, NetworkConfig]]
"""A name of `arms`, and the network that it is made of."""


def training_cost(config: ConnectionConfig, arms: Sequence[str], sets: Sequence[str]) -> Cost:
    """As `arms_cost`, of arms of the settings' network."""
    return arms_cost(config, [(arm, config.network) for arm in dict.fromkeys(arms)], sets)


def arms_cost(config: ConnectionConfig, arms: Arms, sets: Sequence[str]) -> Cost:
    """Of each arm on each set with each seed; an upper bound, as training may end early."""
    training, costs, states = config.training, [], dict[str, int]()
    way = Training(Way(config.precision, training.checkpoints_steps))
    for name in sets:
        n = questions_of(name, config.data)
        tokens = tokens_of(name, config.network.max_source)
        longest = min(_ANSWER_TOKENS, config.network.max_target)
        steps = training.max_epochs * -(-n["train"] // training.batch_size)
        between = (training.eval_every or steps) * training.accumulation
        looks = training.max_epochs + steps // between
        deepest = deepest_of(name, config.data)
        # What is answered may take more steps than what is trained on.
        deeper = 1.0 if deepest is None else max(1.0, deepest["test"] / deepest["train"])
        answered = (looks * n["validation"] + n["validation"] + n["test"]) / training.batch_size
        for kind, network in arms:
            made = made_arm(kind, network, words_of(config), training.batch_size).config
            work = workload(config, name, tokens, longest, steps_of_arm(kind))
            plan = plan_training(made, work, way)
            parameters, states[kind] = plan.parameters.total, plan.needs.state
            flops = steps * plan.training_flops + deeper * answered * plan.forward_flops
            costs.append(
                Cost(
                    flops=flops,
                    bytes_moved=steps / training.accumulation * 20.0 * parameters,
                    overhead_s=_STEP_S * (steps + answered),
                    memory_bytes=plan.needs.total - PROCESS_BYTES,
                    disk_bytes=8.0 * parameters + 200.0 * (n["validation"] + n["test"]),
                )
            )
    return replace(_together(costs, config), note=_note(config.seeds * len(costs), states))


def workload(
    config: ConnectionConfig,
    name: str,
    n_source: int,
    n_target: int,
    steps: Steps | None = None,
) -> Workload:
    """A batch of a set in training; `steps` is how it is thought about, where that is not as the
    settings say.
    """
    training, deepest = config.training, deepest_of(name, config.data)
    thinking = training.thinking
    n_hops = None if deepest is None else deepest["train"]
    is_told = (steps or thinking.steps) == "by_depth" and n_hops is not None
    n_answered: int | None = 1
    if thinking.supervised != "last":
        # After every step there are at least as many as after every hop.
        is_by_hop = thinking.supervised == "hops" and n_hops is not None
        n_answered = n_hops + 1 if is_by_hop and n_hops is not None else None
    n_steps = thinking.steps_per_hop * n_hops if is_told and n_hops is not None else None
    return Workload(training.batch_size, n_source, n_target, n_steps, n_answered)


def words_of(config: ConnectionConfig) -> int:
    """Tokens of the vocabulary at most."""
    tokenizer = config.data.tokenizer
    return tokenizer.vocab_size if tokenizer.source == TRAINED else _T5_WORDS


def _together(costs: Sequence[Cost], config: ConnectionConfig) -> Cost:
    seeds, is_half = config.seeds, config.precision != "float32"
    flops = seeds * sum(one.flops for one in costs)
    return Cost(
        flops=0.0 if is_half else flops,
        half_flops=flops if is_half else 0.0,
        bytes_moved=seeds * sum(one.bytes_moved for one in costs),
        overhead_s=seeds * sum(one.overhead_s for one in costs),
        memory_bytes=max((one.memory_bytes for one in costs), default=0.0),
        disk_bytes=seeds * sum(one.disk_bytes for one in costs),
        parallel=seeds * len(costs),
        shares_device=True,
    )


def _note(n: int, states: Mapping[str, int]) -> str:
    """Of the largest what no smaller batch makes smaller."""
    if not states:
        return f"{n} trainings"
    name, state = max(states.items(), key=lambda item: item[1])
    return f"{n} trainings; weights and moments of {name}: {state / 2**30:.3g} GiB"
