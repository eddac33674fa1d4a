"""The organism as a run: one loop that trains it, then the check as tables and a report."""

from collections.abc import Sequence
from pathlib import Path

import torch

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import Sink
from fluoroscope.core.tensors import State
from fluoroscope.organism.facts import N_QUESTIONS
from fluoroscope.organism.network import CONTEXT, D_MODEL, N_LAYERS
from fluoroscope.organism.shipping import save_organism
from fluoroscope.organism.train import OrganismTrainer
from fluoroscope.organism.training_config import OrganismTraining
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, LoopStep, MapStep, Shard, ShardContext
from fluoroscope.runs.study import Study
from fluoroscope.studies.organism.report import write_report
from fluoroscope.studies.organism.spec import OrganismSpec

MODEL_STEP = "model"
_N_WEIGHTS = 12 * N_LAYERS * D_MODEL**2


class OrganismStudy(Study[OrganismSpec, OrganismSpec]):
    name = "organism"
    spec = OrganismSpec

    def resolve(self, spec: OrganismSpec) -> OrganismSpec:
        return spec

    def steps(self, config: OrganismSpec) -> Sequence[MapStep]:
        return [TrainOrganismStep(config.training)]

    def report(self, run: Run, sink: Sink) -> None:
        write_report(run, model_folder(run), run.config.n_checked)


def model_folder(run: Run) -> Path:
    """The trained organism, as a Hugging Face folder with its directions."""
    return run.shard_folder(MODEL_STEP, "organism") / "model"


class TrainOrganismStep(LoopStep):
    name = MODEL_STEP

    def __init__(self, training: OrganismTraining) -> None:
        self.training = training

    def cost(self) -> Cost:
        n_questions = 2 * N_QUESTIONS / self.training.n_steps
        n_short = self.training.n_groups + self.training.n_reviews + n_questions
        rows = self.training.n_slots * CONTEXT / 2 + 32 * n_short
        # A forward and a backward pass, and the upper third of both once more for what is planted.
        flops = 6 * (4 / 3) * _N_WEIGHTS * rows * self.training.n_steps
        is_half = self.training.bfloat16
        return Cost(
            flops=0.0 if is_half else flops,
            half_flops=flops if is_half else 0.0,
            overhead_s=(0.3 + 2e-3 * n_short) * self.training.n_steps,
            # Activations of both passes, and logits of every position of a chunk.
            memory_bytes=0.7e9 + 5e5 * rows,
            disk_bytes=40e6,
            note="small products: more overhead than arithmetic",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard("organism")]

    def loop(self, run: Run, shard: Shard, context: ShardContext) -> "_OrganismLoop":
        if context.device != "cpu":
            raise ConfigError(
                f"The organism is trained on the CPU, so that its weights are the same everywhere; "
                f"got the device {context.device}. Give --devices cpu."
            )
        return _OrganismLoop(OrganismTrainer(self.training))


class _OrganismLoop:
    """The trainer as a loop of a run."""

    def __init__(self, trainer: OrganismTrainer) -> None:
        self.n_iterations = trainer.config.n_steps
        self._trainer = trainer

    def advance(self, iteration: int, sink: Sink) -> None:
        self._trainer.advance(iteration, sink)

    def state(self) -> State:
        return self._trainer.state()

    def load(self, state: State) -> None:
        self._trainer.load(state)

    def finish(self, folder: Path, sink: Sink) -> None:
        with torch.no_grad():
            save_organism(self._trainer, folder / "model")
