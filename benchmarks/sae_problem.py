"""The activations and the SAEs that both SAE benchmarks train on."""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from fluoroscope.core.tensors import State
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.architectures import SAES
from fluoroscope.sae.synthetic import SyntheticActivations
from fluoroscope.sae.training import Rows, SAETrainer, SAEVariant
from fluoroscope.sae.training_config import TrainingConfig

D_MODEL, D_SAE, K, BATCH = 512, 4096, 32, 2048
N_FEATURES, MEAN_L0 = 3000, 20
POINT = HookPoint("0.resid_post")
ARCHITECTURES = ("topk", "batch_topk", "jumprelu")

# Far from the indices of training batches.
_VALIDATION, _HELD_OUT = 1_000_000, 2_000_000


class Problem:
    """Rows in memory: `training` in the order both sides see them, and two other sets."""

    def __init__(self, n_training: int, n_held_out: int = 8192) -> None:
        source = SyntheticActivations(D_MODEL, N_FEATURES, MEAN_L0)
        self.training = rows(source, 0, n_training)
        self.validation = rows(source, _VALIDATION, 4096)
        self.held_out = rows(source, _HELD_OUT, n_held_out)

    def write(self, folder: Path) -> Path:
        """What the peer needs of it."""
        file = folder / "activations.safetensors"
        save_file({"training": self.training, "held_out": self.held_out}, file)
        return file

    def trainer(
        self,
        architecture: str,
        n_iterations: int,
        target_l0: float | None = None,
        training: TrainingConfig | None = None,
    ) -> SAETrainer:
        """All settings but these at their defaults."""
        sparsity = {"target_l0": target_l0 or K} if architecture == "jumprelu" else {"k": K}
        config = SAES.load(architecture).config_type(d_model=D_MODEL, d_sae=D_SAE, **sparsity)
        return SAETrainer(
            [SAEVariant(architecture, POINT, architecture, config, seed=0)],
            PreparedBatches(self.training),
            {POINT: Rows(self.training[:16384], self.validation)},
            training or TrainingConfig(batch_size=BATCH),
            n_iterations,
        )


class PreparedBatches:
    """Rows that are in memory, batch after batch in their own order, again and again."""

    def __init__(self, rows: Float[Tensor, "n d_model"]) -> None:
        self._batches = rows[: len(rows) // BATCH * BATCH].split(BATCH)
        self._position = 0

    def next_batch(self) -> Mapping[HookPoint, Tensor]:
        batch = self._batches[self._position % len(self._batches)]
        self._position += 1
        return {POINT: batch}

    def state(self) -> State:
        return {"position": self._position}

    def load(self, state: State) -> None:
        self._position = state["position"]


def rows(source: SyntheticActivations, first: int, n_rows: int) -> Float[Tensor, "n d_model"]:
    """Batches from `first` on, cut to `n_rows`."""
    n_batches = -(-n_rows // BATCH)
    found = torch.empty(n_batches * BATCH, D_MODEL)
    for i in range(n_batches):
        found[i * BATCH : (i + 1) * BATCH] = source.batch(first + i, BATCH)
    return found[:n_rows]
