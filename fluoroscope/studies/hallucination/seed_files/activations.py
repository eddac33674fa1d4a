"""`feature_activations.safetensors`: every active latent at every position of every answer.

Compressed rows (CSR), layer by layer, after the block that they leave:

    LAYER/offsets [rows + 1], LAYER/features [entries], LAYER/values [entries]
    row_text [rows], row_position [rows]

Entries of row r are `offsets[r]` to `offsets[r + 1]`. Row r is of text `row_text[r]` of the
metadata's `ids`, at position `row_position[r]` of the answer; -1 is the last token of the prompt.
"""

from pathlib import Path

import torch

from fluoroscope.core.tensors import write_tensors
from fluoroscope.runs.run import Run
from fluoroscope.steps.subject import sae_choices
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.seed_files.writing import ACTIVATIONS
from fluoroscope.studies.hallucination.steps.features import readable_answers
from fluoroscope.studies.hallucination.steps.read import read_shards


def write_activations(run: Run, config: HallucinationConfig, out: Path) -> Path:
    """All shards of `read/` in one file; memory holds its entries."""
    shards = [readings for _, readings in read_shards(run)]
    lengths = torch.cat([one.offsets.diff() for one in shards]) + 1
    starts = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
    tensors = {
        "row_text": torch.repeat_interleave(torch.arange(len(lengths)), lengths).int(),
        "row_position": (torch.arange(int(lengths.sum())) - starts - 1).int(),
    }
    for point in config.points:
        parts = [one.latents[point] for one in shards]
        counts = torch.cat([part.offsets.diff() for part in parts])
        tensors |= {
            f"{point.layer}/offsets": torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
            f"{point.layer}/features": torch.cat([part.indices for part in parts]).int(),
            f"{point.layer}/values": torch.cat([part.values for part in parts]),
        }
    about = {
        "ids": readable_answers(run)["id"].to_list(),
        "saes": [sae.provenance() for sae in sae_choices(run, config)],
    }
    path = out / ACTIVATIONS
    write_tensors(path, tensors, about)
    return path
