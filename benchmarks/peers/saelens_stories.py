"""SAELens's side of `benchmarks/stories_quality.py`; runs in SAELens's own environment.

Trains its BatchTopK on the rows of one hook point at each learning rate, and evaluates its
SAEs and ours (read by SAELens from our folder) on the same test rows.

    python saelens_stories.py ROWS.safetensors OUR_SAE_FOLDER N_SAMPLES D_SAE K RATE [RATE ...]
"""

import json
import sys
import tempfile
from collections.abc import Iterator

import torch
from sae_lens import SAE, BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file
from torch import Tensor

BATCH = 4096


def shuffled(rows: Tensor) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(len(rows), generator=generator)
        for start in range(0, len(rows) - BATCH + 1, BATCH):
            yield rows[order[start : start + BATCH]]


def trained(rows: Tensor, n_samples: int, d_sae: int, k: int, rate: float) -> SAE:
    torch.manual_seed(0)
    own = BatchTopKTrainingSAEConfig(
        d_in=rows.shape[1],
        d_sae=d_sae,
        k=k,
        normalize_activations="expected_average_only_in",
    )
    config = SAETrainerConfig(
        total_training_samples=n_samples,
        train_batch_size_samples=BATCH,
        lr=rate,
        lr_end=rate / 10,
        n_batches_for_norm_estimate=100,
    )
    sae = SAETrainer(config, BatchTopKTrainingSAE(own), shuffled(rows)).fit()
    folder = tempfile.mkdtemp()
    sae.save_inference_model(folder)
    return SAE.load_from_disk(folder)


@torch.no_grad()
def judged(sae: SAE, test: Tensor) -> dict[str, float]:
    latents = sae.encode(test)
    error = (sae.decode(latents) - test).double().square().sum()
    variance = (test - test.mean(dim=0)).double().square().sum()
    l0 = (latents > 0).sum(dim=-1).double().mean()
    dead = (latents > 0).any(dim=0).logical_not().double().mean()
    return {"fvu": float(error / variance), "l0": float(l0), "dead": float(dead)}


def main() -> None:
    torch.set_num_threads(1)
    rows_file, our_folder, n_samples, d_sae, k, *rates = sys.argv[1:]
    data = load_file(rows_file)
    ours = SAE.load_from_disk(our_folder)
    with torch.no_grad():
        difference = float((ours.encode(data["test"][:4096]) - data["latents"]).abs().max())
    theirs = {}
    for rate in rates:
        sae = trained(data["train"], int(n_samples), int(d_sae), int(k), float(rate))
        theirs[rate] = judged(sae, data["test"])
    results = {
        "ours": judged(ours, data["test"]),
        "latent_difference": difference,
        "saelens": theirs,
    }
    print("RESULT " + json.dumps(results))


main()
