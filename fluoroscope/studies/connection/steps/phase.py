"""A phase of the sweep: its arms are trained, and the best on the validation side is handed on.

PHASE/shards/..., PHASE/curves.parquet ...   as of `train`
PHASE/arms.json       every arm with its role, also those that were left out, and why
PHASE/winner.json     the network that goes on, how it thinks, and what it was chosen from
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, Loop, LoopStep, Shard, ShardContext
from fluoroscope.studies.connection.config import ConnectionConfig
from fluoroscope.studies.connection.dry_run import Way
from fluoroscope.studies.connection.made_arms import made_arm
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.phases import PhaseArm, arms_of_phase
from fluoroscope.studies.connection.planner import Training as Trained
from fluoroscope.studies.connection.planner import plan_training, says_why_not
from fluoroscope.studies.connection.steps.cost import arms_cost, words_of, workload
from fluoroscope.studies.connection.steps.questions import QUESTIONS, load_questions
from fluoroscope.studies.connection.steps.train import CURVES, TRAININGS, merge_trainings
from fluoroscope.studies.connection.steps.training_loop import Training, TrainingLoop
from fluoroscope.studies.connection.sweep_config import PHASES, Phase

ARMS, WINNER = "arms.json", "winner.json"
_GIB = 2**30
_ANSWER_TOKENS = 8


class PhaseStep(LoopStep):
    def __init__(self, config: ConnectionConfig, phase: Phase) -> None:
        self.config, self.name = config, phase
        self.phase: Phase = phase
        self.before = PHASES[: PHASES.index(phase)]
        self.inputs = (QUESTIONS, *self.before)

    def cost(self) -> Cost:
        """As if nothing had won yet; a phase that is handed a larger network costs more."""
        arms = [
            (one.kind, one.network)
            for one in arms_of_phase(self.phase, self.config.network, self.config.sweep)
            if self._left_out(one, words_of(self.config)) is None
        ]
        return arms_cost(self.config, arms, self.sets)

    @property
    def sets(self) -> list[str]:
        own = self.config.data.sets
        more = self.config.sweep.final_sets if self.phase == "final" else []
        return list(dict.fromkeys([*own, *more]))

    def shards(self, run: Run) -> Sequence[Shard]:
        config = self.config
        found = [
            Training(name, one.name, seed, one.network, one.kind, self._is_kept(one), one.steps)
            for one in self._arms(run)
            for name in self.sets
            for seed in config.all_seeds
            if self._left_out(one, load_questions(run, config, name).tokenizer.vocab_size) is None
        ]
        if not found:
            raise ConfigError(
                f"No arm of {self.phase} fits into sweep.largest_gib={config.sweep.largest_gib}; "
                "give more, or a smaller network."
            )
        return [one.shard for one in found]

    def loop(self, run: Run, shard: Shard, context: ShardContext) -> Loop:
        return TrainingLoop(run, self.config, Training.of(shard), context.device)

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        shards, arms = self.shards(run), self._arms(run)
        merge_trainings(folder, shards)
        words = max(
            load_questions(run, self.config, name).tokenizer.vocab_size for name in self.sets
        )
        write_json(
            folder / ARMS,
            [
                {
                    "arm": one.name,
                    "role": one.role,
                    "kind": one.kind,
                    "may_win": one.may_win,
                    "left_out": self._left_out(one, words, in_full=True),
                    "network": one.network.model_dump(mode="json"),
                    "steps": one.steps,
                }
                for one in arms
            ],
        )
        winner = best_arm(
            pl.read_parquet(folder / CURVES), pl.read_parquet(folder / TRAININGS), arms
        )
        chosen = next(one for one in arms if one.name == winner["arm"])
        handed = {"network": chosen.network.model_dump(mode="json"), "steps": chosen.steps}
        write_json(folder / WINNER, {**winner, **handed})
        sink.message(f"{self.phase}: {winner['arm']} goes on.")

    def _arms(self, run: Run) -> list[PhaseArm]:
        network, steps = self.config.network, None
        if self.before:
            saved = read_json(run.step_folder(self.before[-1]) / WINNER)
            network, steps = build(NetworkConfig, saved["network"]), saved["steps"]
        return arms_of_phase(self.phase, network, self.config.sweep, steps)

    def _left_out(self, one: PhaseArm, n_words: int, *, in_full: bool = False) -> str | None:
        """Why an arm is not trained, or None: it does not fit, or nothing is of its size. `in_full`
        says which batch would fit, which takes some seconds to find.
        """
        most, config = self.config.sweep.largest_gib, self.config
        longest = min(_ANSWER_TOKENS, config.network.max_target)
        try:
            made = made_arm(one.kind, one.network, n_words, config.training.batch_size).config
        except ConfigError as error:
            return str(error)
        if most is None:
            return None
        way = Trained(Way(config.precision, config.training.checkpoints_steps))
        n_source = config.network.max_source
        works = {workload(config, name, n_source, longest, one.steps) for name in self.sets}
        plans = [(plan_training(made, work, way), work) for work in works]
        plan, work = max(plans, key=lambda pair: pair[0].needs.total)
        if plan.needs.total <= most * _GIB:
            return None
        return says_why_not(made, work, most * _GIB, way) if in_full else plan.says(most * _GIB)

    def _is_kept(self, one: PhaseArm) -> bool:
        is_best = self.phase == "final" and one.name == "best"
        return self.config.keep == "all" or (self.config.keep == "main" and is_best)


def best_arm(
    curves: pl.DataFrame, trainings: pl.DataFrame, arms: Sequence[PhaseArm]
) -> dict[str, Any]:  # Any: JSON.
    """The arm that may win with the best validation accuracy: of each training the look that it
    kept, the mean over question sets and seeds; the first in the order of arms of equals. Test
    sides have no say, and an arm that was left out of a question set cannot win.
    """
    keys = ["arm", "dataset", "seed"]
    kept = curves.join(trainings.select(*keys, pl.col("best_step").alias("step")), [*keys, "step"])
    means = kept.group_by("arm").agg(pl.col("validation_accuracy").mean(), pl.len().alias("n"))
    n = max(means["n"], default=0)
    found = {arm: value for arm, value, own in means.iter_rows() if own == n}
    candidates = [one.name for one in arms if one.may_win and one.name in found]
    if not candidates:
        raise ConfigError(
            "No arm that may go on was trained on all question sets; give more with "
            "sweep.largest_gib, or a smaller network."
        )
    winner = max(candidates, key=lambda name: found[name])
    return {"arm": winner, "validation_accuracy": {name: found[name] for name in candidates}}
