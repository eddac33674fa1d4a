"""A run in the forms of the plan's own files, as far as it has got."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from fluoroscope.core.errors import RunError
from fluoroscope.core.storage import read_json
from fluoroscope.runs.ledger import find_run
from fluoroscope.runs.record import FILE as RECORD
from fluoroscope.runs.run import DONE, Run
from fluoroscope.steps.train_saes import SAES_STEP
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.seed_files import writing
from fluoroscope.studies.hallucination.seed_files.activations import write_activations
from fluoroscope.studies.hallucination.seed_files.checkpoints import has_no_form, write_checkpoints
from fluoroscope.studies.hallucination.seed_files.clusters import write_clusters
from fluoroscope.studies.hallucination.seed_files.detection import (
    write_detection_metrics,
    write_scores,
)
from fluoroscope.studies.hallucination.seed_files.evaluation import write_evaluation
from fluoroscope.studies.hallucination.seed_files.tracking_results import write_tracking_results
from fluoroscope.studies.hallucination.seed_files.trajectories import write_trajectories
from fluoroscope.studies.hallucination.steps.detect import DETECT
from fluoroscope.studies.hallucination.steps.evaluate import EVALUATE
from fluoroscope.studies.hallucination.steps.read import READ
from fluoroscope.studies.hallucination.steps.track import TRACK

Write = Callable[[Run, HallucinationConfig, Path], Path | Sequence[Path]]


class _Family(NamedTuple):
    """Files that are made together."""

    names: tuple[str, ...]
    step: str
    """The last of the steps that they need; a step stands on those before it."""

    write: Write


_FAMILIES = (
    _Family((writing.CHECKPOINTS,), SAES_STEP, write_checkpoints),
    _Family((writing.ACTIVATIONS,), READ, write_activations),
    _Family((writing.TRAJECTORIES,), TRACK, write_trajectories),
    _Family((writing.CLUSTERS, writing.CLUSTER_ARRAYS), TRACK, write_clusters),
    _Family((writing.TRACKING_RESULTS, writing.TRACKING_SUMMARY), TRACK, write_tracking_results),
    _Family((writing.SCORES, writing.CLASSIFICATIONS), DETECT, write_scores),
    _Family((writing.DETECTION_METRICS,), EVALUATE, write_detection_metrics),
)
_REPORT = (writing.FINAL_REPORT, writing.CONFUSION_MATRIX, writing.ROC_CURVE)


def export_run(run: Run, out: Path) -> list[Path]:
    """Writes what there is; what is not, `missing_files` names."""
    _check_study(run)
    paths: list[Path] = []
    for family in _FAMILIES:
        if _is_done(run, family.step):
            made = family.write(run, run.config, out)
            paths += [made] if isinstance(made, Path) else made
    if _is_done(run, EVALUATE):
        paths += write_evaluation(run, run.config, out, missing_files(run))
    return paths


def missing_files(run: Run) -> dict[str, str]:
    """Files that this run cannot give, with the reason."""
    _check_study(run)
    found = {
        name: f"the step {family.step} is not done"
        for family in _FAMILIES
        for name in family.names
        if not _is_done(run, family.step)
    }
    if not _is_done(run, EVALUATE):
        found |= dict.fromkeys(_REPORT, f"the step {EVALUATE} is not done")
    if _is_done(run, SAES_STEP) and (without := has_no_form(run, run.config)):
        found[f"{writing.CHECKPOINTS} of {', '.join(without)}"] = (
            "the latents of these SAEs compete (topk), and one file a layer says a threshold; they "
            "are in the run, in a form of their own"
        )
    return found


def run_of_results(results: str) -> Path:
    """The folder of a run that is named, by itself, by its folder, by the folder that it was
    exported to, or as the plan names results: `./results/gpt2-medium`.
    """
    given = Path(results).expanduser()
    if (given / RECORD).exists():
        return given
    report = given / writing.FINAL_REPORT
    name = str(read_json(report)["run"]) if report.is_file() else given.name
    try:
        return find_run(name)
    except RunError as error:
        raise RunError(
            f"{results} is neither a run, nor a folder that one was exported to. {error}"
        ) from None


def _check_study(run: Run) -> None:
    if not isinstance(run.config, HallucinationConfig):
        raise RunError(f"{run.name} is a run of the study {run.study}, not of hallucination.")


def _is_done(run: Run, step: str) -> bool:
    # SAEs that were named are there from the beginning.
    if step == SAES_STEP and run.config.train is None:
        return True
    return (run.folder / step / DONE).exists()
