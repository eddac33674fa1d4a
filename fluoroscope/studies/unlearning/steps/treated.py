"""A plan as the model and the treatment that are judged."""

from fluoroscope.models.language_model import LanguageModel
from fluoroscope.runs.run import Run
from fluoroscope.steps.models import load_model
from fluoroscope.studies.unlearning.clamping import UNTREATED, Treatment, clamp_edits
from fluoroscope.studies.unlearning.plans import Plan, UnlearningConfig
from fluoroscope.studies.unlearning.steps.detect import load_detector
from fluoroscope.studies.unlearning.steps.finetune import load_finetuned
from fluoroscope.studies.unlearning.steps.select import chosen_latents, load_choices
from fluoroscope.studies.unlearning.steps.stored import load_saes_by_point
from fluoroscope.studies.unlearning.steps.tune import load_settings, load_share_detector


def load_treated(
    run: Run, config: UnlearningConfig, plan: Plan, device: str
) -> tuple[LanguageModel, Treatment]:
    """The fine-tuned model untreated, or the model as it is with what is done to it."""
    if plan.objective:
        return load_finetuned(run, config, plan.objective, device), UNTREATED
    model = load_model(run, config.model, device)
    if plan.where is None:
        return model, UNTREATED
    settings, choices = load_settings(run)[plan.settings_of], load_choices(run)
    latents = chosen_latents(choices, settings, plan.draw)
    strength = 0.0 if plan.is_zero else settings["strength"]
    edits = clamp_edits(model, load_saes_by_point(run, config, device), latents, strength)
    match plan.where:
        case "learned":
            return model, Treatment(edits, load_detector(run, config, device))
        case "share":
            # What is flagged is told by what was selected, whatever is clamped.
            own = chosen_latents(choices, settings)
            return model, Treatment(edits, load_share_detector(run, config, own, device))
        case _:
            return model, Treatment(edits)
