"""The model of a study and its SAEs: those that a user named, or those that the run trains."""

from collections.abc import Mapping

from fluoroscope.core.config import Config
from fluoroscope.core.errors import ConfigError
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.hub import model_fingerprint
from fluoroscope.models.identity import ModelIdentity
from fluoroscope.models.shape import ModelShape
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.steps.extract import text_sources
from fluoroscope.steps.known_releases import find_or_sketch_saes
from fluoroscope.steps.models import ModelConfig, subject_model
from fluoroscope.steps.sae_sources import SAEChoice, load_saes
from fluoroscope.steps.sae_training import (
    SAETrainingConfig,
    resolve_training,
    trained_saes,
    training_steps,
)
from fluoroscope.steps.subject_spec import SubjectSpec
from fluoroscope.steps.train_saes import SAES_STEP


class Subject(Config):
    """A `SubjectSpec` with everything filled in."""

    model: ModelConfig
    shape: ModelShape
    saes: list[SAEChoice]
    """Those that were named; none, where they are trained here."""

    train: SAETrainingConfig | None

    @property
    def points(self) -> list[HookPoint]:
        """Where there are SAEs, from the first layer on."""
        names = [sae.hook_point for sae in self.saes]
        return sorted(HookPoint(name) for name in (self.train.hook_points if self.train else names))

    @property
    def widths(self) -> list[int]:
        """Latents of each of `points`; of the first SAE, where several are trained at one."""
        found = {sae.hook_point: sae.d_sae for sae in self.saes}
        for plans in self.train.groups.values() if self.train else ():
            for plan in plans:
                found.setdefault(plan.hook_point, int(plan.settings["d_sae"]))
        return [found[str(point)] for point in self.points]


def resolve_subject(
    spec: SubjectSpec, *, is_sketch: bool = False, one_each: bool = True
) -> Subject:
    """One SAE for each hook point, or how it is trained; to sketch a plan, sizes will do. Several
    may be trained at a hook point where a study says that it can tell them apart.
    """
    shape = ModelShape.of(spec.model.source, spec.model.revision)
    model = subject_model(spec.model, shape, is_sketch=is_sketch)
    source = spec.saes.source
    if source is not None and spec.train is not None:
        raise ConfigError(
            "saes names SAEs that there are, and train says how to train others; give one of both "
            "(saes.source=null takes back what a preset names)."
        )
    if source is not None:
        points = spec.saes.hook_points
        saes = find_or_sketch_saes(source, points, model, is_sketch=is_sketch)
        return Subject(model=model, shape=shape, saes=saes, train=None)
    if spec.train is None:
        raise ConfigError(
            "Say whose latents are looked at: saes=organism:batch_topk, a folder of SAEs, or a "
            "dictionary run of this model; or have them trained here: train.corpus=FILE."
        )
    train = resolve_training(spec.train, spec.model.source, shape)
    n = sum(len(plans) for plans in train.groups.values())
    if one_each and n > len(train.hook_points):
        raise ConfigError(
            f"train.sae means {n} SAEs of {len(train.hook_points)} hook points, and one of each is "
            "looked at; give every setting one value, and sweep in a dictionary run."
        )
    return Subject(model=model, shape=shape, saes=[], train=train)


def subject_sources(subject: Subject) -> Mapping[str, str]:
    """What `Study.sources` answers for the model and the SAEs."""
    if subject.train is not None:
        return text_sources(subject.model, subject.train.corpus)
    found = {"model": model_fingerprint(subject.model.name, subject.model.revision)}
    return found | {f"sae {sae.hook_point}": sae.weights_sha256 for sae in subject.saes}


def subject_steps(subject: Subject, seed: int) -> list[MapStep]:
    """Those that train the SAEs; none where there are some."""
    if subject.train is None:
        return []
    return training_steps(subject.train, subject.model, subject.shape, seed)


def sae_inputs(subject: Subject) -> tuple[str, ...]:
    """The step that a step which loads the SAEs stands on, if there is one."""
    return (SAES_STEP,) if subject.train else ()


def sae_choices(run: Run, subject: Subject) -> list[SAEChoice]:
    """In the order of `subject.points`."""
    return trained_saes(run, subject.model) if subject.train else subject.saes


def load_layers(
    run: Run, subject: Subject, device: str, model: ModelIdentity | None = None
) -> dict[str, SparseAutoencoder]:
    """Hook point -> its SAE, without gradients; loaded once in each process."""

    def load() -> dict[str, SparseAutoencoder]:
        return load_saes(sae_choices(run, subject), device=device, model=model)

    return run.cached(("layers", device, model is None), load)
