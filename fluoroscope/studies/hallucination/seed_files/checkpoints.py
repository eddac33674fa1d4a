"""`models/checkpoints/MODEL/`: one SAE a layer under the plan's names, and how it was trained.

`sae_layer_3_best.safetensors` is read by `saes=FOLDER` as well (`sae/formats/layered.py`). The
history has our curves: `val_loss` is the validation loss that chose the weights, `recon_loss` the
share of variance unexplained, `sparsity` the share of latents that are active (the plan's unit),
and `l0` their number.
"""

from pathlib import Path
from typing import Any

from fluoroscope.runs.run import Run
from fluoroscope.sae.formats.layered import save_layered
from fluoroscope.sae.formats.native import sidecar_of
from fluoroscope.sae.thresholded import ThresholdedSAE
from fluoroscope.steps.sae_sources import SAEChoice
from fluoroscope.steps.subject import load_layers, sae_choices
from fluoroscope.steps.train_saes import training_record
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.seed_files.writing import (
    CHECKPOINTS,
    model_name,
    write_plain,
)


def write_checkpoints(run: Run, config: HallucinationConfig, out: Path) -> list[Path]:
    """Those that the form can express; see `has_no_form`."""
    folder = out / CHECKPOINTS / model_name(config)
    saes = load_layers(run, config, run.device)
    paths = []
    for choice, point in zip(sae_choices(run, config), config.points, strict=True):
        sae = saes[str(point)]
        if isinstance(sae, ThresholdedSAE):
            paths.append(save_layered(sae, folder, point, _provenance(choice)))
    return paths + write_histories(run, config, folder)


def has_no_form(run: Run, config: HallucinationConfig) -> list[str]:
    """Hook points whose SAEs cannot be written so: their latents compete."""
    saes = load_layers(run, config, run.device)
    return [point for point, sae in saes.items() if not isinstance(sae, ThresholdedSAE)]


def write_histories(run: Run, config: HallucinationConfig, folder: Path) -> list[Path]:
    """Of SAEs that this run trained."""
    if config.train is None:
        return []
    paths = []
    layers = {str(point): point.layer for point in config.points}
    for group, plans in config.train.groups.items():
        record = training_record(run, group)
        for plan in plans:
            curves, ended = record["curves"][plan.key], record["saes"][plan.key]
            history = history_json(curves, ended, int(plan.settings["d_sae"]))
            path = folder / f"sae_layer_{layers[plan.hook_point]}_history.json"
            paths.append(write_plain(path, history))
    return paths


def history_json(
    curves: dict[str, list[float]],
    ended: dict[str, Any],  # Any: JSON values.
    d_sae: int,
) -> dict[str, Any]:  # Any: JSON values.
    return {
        "step": curves["step"],
        "val_loss": curves["loss"],
        "recon_loss": curves["fvu"],
        "sparsity": [l0 / d_sae for l0 in curves["l0"]],
        "l0": curves["l0"],
        "dead_fraction": curves["dead_fraction"],
        **ended,
    }


def _provenance(choice: SAEChoice) -> dict[str, Any]:  # Any: JSON values.
    if choice.format == "native":
        return {**sidecar_of(choice.folder)["provenance"], "weights_sha256": choice.weights_sha256}
    return choice.provenance()
