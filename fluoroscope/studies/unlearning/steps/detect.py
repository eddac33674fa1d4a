"""The learned detector, and how well it tells the sides apart (`detect/`).

detect/shards/all/detector.safetensors   see `LearnedDetector.state`
detect/shards/all/flags.parquet          see `detecting.detection_table`
"""

from collections.abc import Sequence

import numpy as np
import torch

from fluoroscope.core.storage import write_parquet
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import load_model
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.studies.unlearning.detecting import LearnedDetector, detection_table
from fluoroscope.studies.unlearning.plans import UnlearningConfig
from fluoroscope.studies.unlearning.steps.stored import (
    load_saes_by_point,
    load_sets,
    reading_cost,
)

DETECT = "detect"
FLAGS, _DETECTOR = "flags.parquet", "detector.safetensors"


class DetectStep(MapStep):
    name = DETECT

    def __init__(self, config: UnlearningConfig) -> None:
        self.config = config
        self.inputs = sae_inputs(config)

    def cost(self) -> Cost:
        return reading_cost(self.config, 2, 1)

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard("all")]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        model = load_model(run, self.config.model, context.device)
        saes = load_saes_by_point(run, self.config, context.device)
        sets, clamp = load_sets(run, self.config, context.device), self.config.clamp
        detector = LearnedDetector.fit(model, saes, sets, clamp.penalty, clamp.percentile)
        arrays = detector.state().items()
        tensors = {name: torch.from_numpy(np.ascontiguousarray(one)) for name, one in arrays}
        write_tensors(context.folder / _DETECTOR, tensors)
        write_parquet(context.folder / FLAGS, detection_table(detector, model, sets))


def load_detector(run: Run, config: UnlearningConfig, device: str) -> LearnedDetector:
    def load() -> LearnedDetector:
        tensors = read_tensors(run.step_folder(DETECT) / "shards" / "all" / _DETECTOR)
        state = {name: tensor.numpy() for name, tensor in tensors.items()}
        return LearnedDetector.from_state(state, load_saes_by_point(run, config, device))

    return run.cached((DETECT, device), load)
