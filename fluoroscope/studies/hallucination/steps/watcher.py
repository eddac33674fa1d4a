"""A finished run and its model -> a `Watcher`, which refuses any other model or SAEs."""

from fluoroscope.core.errors import MismatchError
from fluoroscope.core.storage import read_json
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.runs.run import Run
from fluoroscope.steps.sae_sources import check_recorded
from fluoroscope.steps.subject import load_layers, sae_choices
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.online.detector import check_model, load_detector
from fluoroscope.studies.hallucination.online.watcher import Tracking, Watcher
from fluoroscope.studies.hallucination.steps.associate import ASSOCIATE, read_link_model
from fluoroscope.studies.hallucination.steps.online import FINAL, ONLINE
from fluoroscope.studies.hallucination.steps.track import make_tracker
from fluoroscope.studies.hallucination.tracking.association import SETTINGS as ASSOCIATION


def open_watcher(run: Run, model: LanguageModel) -> Watcher:
    """Scores what `model` writes by the detector of a run, of which it has to be the model."""
    config: HallucinationConfig = run.config
    run.step_folder(ONLINE)
    detector, about = load_detector(run.shard_folder(ONLINE, FINAL))
    check_model(about["model"], model.identity.to_json(), run.name)
    for recorded, choice in zip(about["saes"], sae_choices(run, config), strict=True):
        check_recorded(recorded, choice, f"The online detector of run {run.name}")
    association, scales = read_link_model(run)
    found = read_json(run.shard_folder(ASSOCIATE, "all") / ASSOCIATION)["tensors_sha256"]
    if found != about["association_sha256"]:
        raise MismatchError(
            f"The online detector of run {run.name} was learnt with the association model "
            f"{about['association_sha256'][:12]}..., the run has {found[:12]}.... Run it anew."
        )
    saes = load_layers(run, config, str(model.device), model.identity)
    tracking = Tracking(association, scales, make_tracker(config.tracking), config.tracking.top)
    return Watcher(
        model, {HookPoint(point): sae for point, sae in saes.items()}, tracking, detector
    )
