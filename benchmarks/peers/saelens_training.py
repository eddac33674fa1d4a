"""SAELens' side of the SAE benchmarks: a child process that trains when it is told to.

Runs in SAELens' own environment and imports nothing of ours. One JSON object a line comes in
(`do` names the function, the rest are its arguments), one goes out. CPU seconds are those of
training steps alone: imports, data and the estimate of the input's norm are not counted.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file
from torch import Tensor

KINDS = {
    "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
    "batch_topk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
    "jumprelu": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig),
}
N_NORM_BATCHES = 50

Json = dict[str, Any]


class Peer:
    """What was loaded and prepared, by name."""

    def __init__(self) -> None:
        self._rows: dict[str, Tensor] = {}
        self._trainers: dict[str, SAETrainer[Any, Any]] = {}

    def load(self, file: str) -> Json:
        """Tensors `training` and `held_out`, rows of activations."""
        self._rows = load_file(file)
        return {}

    def prepare(self, name: str, **arguments: Any) -> Json:
        """A trainer that `steps` can advance."""
        self._trainers[name] = self._trainer(**arguments)
        return {}

    def steps(self, name: str, n_steps: int) -> Json:
        """What `SAETrainer.fit` does `n_steps` times, with logging off."""
        trainer = self._trainers[name]
        batches = [next(trainer.data_provider) for _ in range(n_steps)]
        begin = time.process_time()
        for batch in batches:
            trainer.maybe_reset_sparsity()
            trainer.step(batch)
            trainer.n_training_steps += 1
        return {"cpu_seconds": time.process_time() - begin}

    def train(self, folder: str, **arguments: Any) -> Json:
        """A whole training; its inference SAE goes to `folder`."""
        trainer = self._trainer(**arguments)
        begin = time.process_time()
        sae = trainer.fit()
        seconds = time.process_time() - begin
        sae.save_inference_model(folder)
        return {"cpu_seconds": seconds}

    @torch.no_grad()
    def judge(self, folder: str) -> Json:
        """An inference SAE, ours or SAELens', on the held-out rows."""
        sae = SAE.load_from_disk(folder)
        held_out = self._rows["held_out"]
        centred = (held_out - held_out.mean(dim=0)).double().square().sum()
        error, active = 0.0, torch.zeros(sae.cfg.d_sae)
        for x in held_out.split(2048):
            latents = sae.encode(x)
            error += float((sae.decode(latents) - x).double().square().sum())
            active += (latents > 0).sum(dim=0)
        l0 = float(active.sum()) / len(held_out)
        return {
            "fvu": error / float(centred),
            "l0": l0,
            "dead": float((active == 0).float().mean()),
        }

    def _trainer(
        self,
        architecture: str,
        settings: Json,
        training: Json,
        batch_size: int,
        n_samples: int,
    ) -> SAETrainer[Any, Any]:
        torch.manual_seed(0)
        sae_type, config_type = KINDS[architecture]
        rows = self._rows["training"]
        sae = sae_type(
            config_type(
                d_in=rows.shape[1], normalize_activations="expected_average_only_in", **settings
            )
        )
        config = SAETrainerConfig(
            total_training_samples=n_samples, train_batch_size_samples=batch_size, **training
        )
        # What its runner fills in, and its trainer asks for.
        config.lr_end = config.lr / 10
        trainer = SAETrainer(config, sae, batches(rows, batch_size))
        # Taken from batches of their own, so that every sample of the training is trained on.
        trainer.activation_scaler.estimate_scaling_factor(
            rows.shape[1], batches(rows, batch_size), N_NORM_BATCHES
        )
        return trainer


def batches(rows: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Whole batches in the rows' own order, again and again."""
    while True:
        for start in range(0, len(rows) - batch_size + 1, batch_size):
            yield rows[start : start + batch_size]


def main() -> None:
    torch.set_num_threads(1)
    # Whatever a library prints must not come between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    peer = Peer()
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(peer, request.pop("do"))(**request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    # The script's folder is no place to import from.
    sys.path[:] = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]
    main()
