"""Policies are trained (`learn/`), each in a loop that goes on where it was put down.

learn/shards/MODE-SET-SEED/head.safetensors   the policy
learn/shards/MODE-SET-SEED/curve.parquet      a row an iteration
learn/curves.parquet                          all of them, with `mode`, `set` and `seed`

`exact`: the exact gradient over all training samples of an enumerated table; `validation` is the
expected return on the validation side, which nothing is learnt from. Other modes: replies to
prompts of the training side, as they are written.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import torch

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import derive_seed
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.core.tensors import State, read_tensors, write_tensors
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.texts import Request
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, Loop, LoopStep, Shard, ShardContext
from fluoroscope.steps.models import load_model
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.steps.task_cost import task_cost
from fluoroscope.studies.policy.config import BEST, EXACT, Mode, PolicyConfig
from fluoroscope.studies.policy.heads import PolicyHead
from fluoroscope.studies.policy.objectives import expected_reward
from fluoroscope.studies.policy.rollouts import Rollouts, RolloutSource, TextSource
from fluoroscope.studies.policy.steps.candidates import CANDIDATES, load_candidates
from fluoroscope.studies.policy.steps.rewards import (
    REWARDS,
    load_data,
    load_table,
    nothing_varies,
)
from fluoroscope.studies.policy.steps.statics import STATICS
from fluoroscope.studies.policy.training import BanditTrainer, PolicyTrainer, Trainer
from fluoroscope.studies.policy.worth import text_reward

LEARN = "learn"
HEAD, CURVE, CURVES = "head.safetensors", "curve.parquet", "curves.parquet"
_CALIBRATED_ON = 512
_PATIENCE = 5
"""Iterations after which rewards that have not differed once are not waited for any longer."""


class LearnStep(LoopStep):
    name = LEARN

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config
        before = (REWARDS,) if config.is_enumerated else (STATICS,)
        self.inputs = (*sae_inputs(config), CANDIDATES, *before)

    def cost(self) -> Cost:
        config, learn = self.config, self.config.learn
        n_exact = learn.seeds * len(config.sets) if EXACT in config.modes else 0
        n_texts = learn.text_iterations * learn.training.n_prompts * learn.training.group_size
        times = 2.0 * learn.seeds * len(config.text_modes)
        cost = task_cost(config, config.task, times, samples=n_texts)
        seconds = 2e-2 * n_exact * learn.exact_iterations
        return Cost(
            flops=cost.flops,
            half_flops=cost.half_flops,
            bytes_moved=cost.bytes_moved,
            overhead_s=cost.overhead_s + seconds,
            memory_bytes=cost.memory_bytes,
            disk_bytes=cost.disk_bytes,
            parallel=max(1, len(list(self._trainings()))),
            note=f"{len(list(self._trainings()))} policies",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        return [
            Shard(key_of(mode, name, seed), {"mode": mode, "set": name, "seed": seed})
            for mode, name, seed in self._trainings()
        ]

    def _trainings(self) -> list[tuple[Mode, str, int]]:
        config = self.config
        return [
            (mode, name, seed)
            for mode in config.modes
            for name in config.sets_of(mode)
            for seed in range(config.learn.seeds)
        ]

    def loop(self, run: Run, shard: Shard, context: ShardContext) -> Loop:
        mode, name, seed = (shard.params[key] for key in ("mode", "set", "seed"))
        make = ExactLoop if mode == EXACT else TextLoop
        return make(run, self.config, name, seed, context.device)

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        frames = [
            pl.read_parquet(folder / "shards" / shard.key / CURVE).with_columns(
                **{name: pl.lit(value) for name, value in shard.params.items()}
            )
            for shard in self.shards(run)
        ]
        write_parquet(folder / CURVES, pl.concat(frames, how="diagonal_relaxed"))


class _Curve(Sink):
    """Keeps metrics, and hands everything on."""

    def __init__(self, rows: list[dict[str, float]], beyond: Sink) -> None:
        self._rows, self._beyond = rows, beyond

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._rows.append({"iteration": step, **values})
        self._beyond.metrics(step, values)

    def message(self, text: str) -> None:
        self._beyond.message(text)


class PolicyLoop:
    """A trainer, and the curve that it has drawn so far."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.n_iterations = trainer, trainer.n_iterations
        self._rows: list[dict[str, float]] = []

    @abstractmethod
    def advance(self, iteration: int, sink: Sink) -> None: ...

    def state(self) -> State:
        return {"trainer": self.trainer.state(), "curve": [dict(row) for row in self._rows]}

    def load(self, state: State) -> None:
        self.trainer.load(state["trainer"])
        self._rows = list(state["curve"])

    def finish(self, folder: Path, sink: Sink) -> None:
        write_tensors(folder / HEAD, dict(self.trainer.head.state_dict()))
        write_parquet(folder / CURVE, pl.DataFrame(self._rows, infer_schema_length=None))


class ExactLoop(PolicyLoop):
    def __init__(self, run: Run, config: PolicyConfig, name: str, seed: int, device: str) -> None:
        learn, task = config.learn, config.task.name
        table = load_table(run, name, task, "train").worth(config.towards)
        head = new_head(config, name, seed, table.observations.shape[1], table.n_actions)
        head.calibrate(table.observations)
        super().__init__(BanditTrainer(head, table, learn.training, learn.exact_iterations))
        costs = learn.training.price, learn.training.kl_weight
        held_out = load_table(run, name, task, "validation").worth(config.towards)
        self._held_out = held_out.priced(*costs)

    def advance(self, iteration: int, sink: Sink) -> None:
        self.trainer.advance(iteration, _Curve(self._rows, sink))
        table = self._held_out
        with torch.no_grad():
            log_probs = self.trainer.head.log_probs(table.observations.float(), table.allowed)
            self._rows[-1]["validation"] = float(expected_reward(log_probs, table.rewards))


class TextLoop(PolicyLoop):
    def __init__(self, run: Run, config: PolicyConfig, name: str, seed: int, device: str) -> None:
        self._run, self._config = run, config
        learn = config.learn
        model = load_model(run, config.model, device)
        candidates = load_candidates(run, config, name, device)
        data = load_data(run, config, config.task.name, device)
        asking, sampling = data.asking, Sampling(**learn.sampling.model_dump())

        def ask(sample: Sample, luck: int) -> Request:
            return Request(
                prompt=asking.prompt(sample),
                seed=luck,
                max_tokens=asking.max_tokens,
                stop=asking.stop,
            )

        is_own = sampling == Sampling()
        source = TextSource(
            model,
            candidates,
            data.sides["train"],
            text_reward(asking.scorer, config.towards),
            ask,
            n_prompts=learn.training.n_prompts,
            group_size=learn.training.group_size,
            seed=derive_seed(config.seed, "policy texts", seed),
            sampling=sampling,
            is_masked=learn.is_masked,
            kl=learn.training.kl if is_own else None,
        )
        head = new_head(config, name, seed, candidates.d_model, candidates.n_actions)
        head.calibrate(source.states(_CALIBRATED_ON))
        self._watched = _Watched(source)
        super().__init__(
            PolicyTrainer(head, self._watched, learn.training, learn.text_iterations, seed)
        )

    def advance(self, iteration: int, sink: Sink) -> None:
        self.trainer.advance(iteration, _Curve(self._rows, sink))
        if iteration + 1 == _PATIENCE and not self._watched.has_varied:
            n = _PATIENCE * self._watched.n_texts
            raise ConfigError(nothing_varies(self._run, self._config, f"in {n} replies"))

    def state(self) -> State:
        return {**super().state(), "has_varied": self._watched.has_varied}

    def load(self, state: State) -> None:
        super().load(state)
        self._watched.has_varied = state["has_varied"]


class _Watched:
    """A source of texts, and whether their outcomes have differed so far."""

    def __init__(self, source: RolloutSource) -> None:
        self._source, self.has_varied, self.n_texts = source, False, 0

    def roll(self, head: PolicyHead, iteration: int) -> Rollouts:
        found = self._source.roll(head, iteration)
        self.n_texts = found.n_texts
        self.has_varied |= bool((found.outcomes != found.outcomes[0]).any())
        return found


def new_head(
    config: PolicyConfig, name: str, seed: int, d_model: int, n_actions: int
) -> PolicyHead:
    learn = config.learn
    own = derive_seed(config.seed, "policy head", name, seed)
    return PolicyHead(
        d_model, min(learn.rank, d_model), n_actions, no_op_share=learn.no_op_share, seed=own
    )


def key_of(mode: str, name: str, seed: int) -> str:
    return f"{mode}-{name.replace(' ', '-')}-{seed}"


def load_head(run: Run, config: PolicyConfig, mode: str, name: str, seed: int) -> PolicyHead:
    """A policy that was trained."""
    found = read_tensors(run.step_folder(LEARN) / "shards" / key_of(mode, name, seed) / HEAD)
    head = new_head(config, name, seed, found["down"].shape[0], found["bias"].shape[0])
    head.load_state_dict(found)
    return head.requires_grad_(False)


def logged_policy(config: PolicyConfig) -> tuple[Mode, str, int]:
    """The one that is looked at token by token: trained on every token of replies, where one is;
    the exact gradient knows the prompt's end alone.
    """
    mode = config.text_modes[0] if config.text_modes else config.modes[0]
    return mode, BEST, 0
