"""Fine-tuning on the same texts, what clamping is compared with (`finetune/`).

finetune/shards/<k>/weights.safetensors   the weights that validation likes best
finetune/shards/<k>/looks.json            iteration, what is left and lost at every look
finetune/chosen.json                      of each objective the shard that validation likes best
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.core.tensors import State, read_state, write_state
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, LoopStep, Shard, ShardContext
from fluoroscope.steps.models import load_model
from fluoroscope.studies.unlearning.config import FineTuningConfig
from fluoroscope.studies.unlearning.finetuning import FineTuner
from fluoroscope.studies.unlearning.plans import UnlearningConfig
from fluoroscope.studies.unlearning.steps.stored import load_ground, reading_cost
from fluoroscope.studies.unlearning.trials import Ground

FINETUNE = "finetune"
CHOSEN, LOOKS, WEIGHTS = "chosen.json", "looks.json", "weights.safetensors"


class FineTuneStep(LoopStep):
    name = FINETUNE

    def __init__(self, config: UnlearningConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        # A step goes forth and back over both sides.
        n = sum(6 * one.n_iterations * one.batch_size for one in self.config.finetune)
        return reading_cost(self.config, n / 1200, len(self.config.finetune) or 1)

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(f"{k:02d}", {"number": k}) for k in range(len(self.config.finetune))]

    def loop(self, run: Run, shard: Shard, context: ShardContext) -> "_Loop":
        ground = load_ground(run, self.config, context.device)
        return _Loop(ground, self.config.finetune[shard.params["number"]])

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        chosen: dict[str, Any] = {}  # Any: JSON values.
        for number, config in enumerate(self.config.finetune):
            looks = read_json(folder / "shards" / f"{number:02d}" / LOOKS)
            kept = next(look for look in looks if look["is_kept"])
            found = {"number": number, **kept, **config.model_dump(mode="json")}
            known = chosen.get(config.objective)
            if known is None or found["shortfall"] < known["shortfall"]:
                chosen[config.objective] = found
        write_json(folder / CHOSEN, chosen)


class _Loop:
    """A `FineTuner` that also writes down what it saw of both sides."""

    def __init__(self, ground: Ground, config: FineTuningConfig) -> None:
        self._ground, self.looks = ground, list[dict[str, Any]]()  # Any: JSON values.
        sets = ground.sets
        self.tuner = FineTuner(ground.model, sets.forget, sets.retain, config, self._look)
        self.n_iterations, self._iteration = config.n_iterations, 0

    def advance(self, iteration: int, sink: Sink) -> None:
        self._iteration = iteration + 1
        self.tuner.advance(iteration, sink)

    def state(self) -> State:
        return {"tuner": self.tuner.state(), "looks": self.looks}

    def load(self, state: State) -> None:
        self.tuner.load(state["tuner"])
        self.looks = state["looks"]

    def finish(self, folder: Path, sink: Sink) -> None:
        kept = self.tuner.best_iteration
        looks = [{**look, "is_kept": look["iteration"] == kept} for look in self.looks]
        write_json(folder / LOOKS, looks)
        write_state(folder / WEIGHTS, self.tuner.best().network.state_dict())

    def _look(self, model: LanguageModel) -> float:
        found = self._ground.judged(self._ground.outcome(model, {}))
        look = {"iteration": self._iteration, **found._asdict(), "shortfall": found.shortfall}
        self.looks.append(look)
        return found.shortfall


def load_finetuned(
    run: Run, config: UnlearningConfig, objective: str, device: str
) -> LanguageModel:
    """The model with the weights that validation liked best of this objective."""

    def load() -> LanguageModel:
        number = read_json(run.step_folder(FINETUNE) / CHOSEN)[objective]["number"]
        model = load_model(run, config.model, device)
        network = copy.deepcopy(model.network).requires_grad_(False)
        file = run.step_folder(FINETUNE) / "shards" / f"{number:02d}" / WEIGHTS
        network.load_state_dict(read_state(file))
        name = f"{model.name}, fine-tuned ({objective})"
        return LanguageModel.from_network(network, model.tokenizer, name=name)

    return run.cached((FINETUNE, objective, device), load)
