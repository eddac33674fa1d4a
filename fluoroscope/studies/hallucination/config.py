"""A hallucination study as it is worked on: the spec with what only the model and the SAEs know."""

from fluoroscope.data.answers.sizes import Size, expected_size
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.shape import ModelShape
from fluoroscope.steps.models import ModelConfig
from fluoroscope.steps.sae_sources import SAEChoice
from fluoroscope.steps.sae_training import SAETrainingConfig
from fluoroscope.studies.hallucination.settings import HallucinationSettings


class HallucinationConfig(HallucinationSettings):
    """A `HallucinationSpec` with everything filled in."""

    model: ModelConfig
    shape: ModelShape
    saes: list[SAEChoice]
    """Those that were named; none, where they are trained here."""

    train: SAETrainingConfig | None

    @property
    def size(self) -> Size:
        """Questions and answers that a plan reckons with."""
        data = self.data
        return expected_size(data.name, is_asked=data.answers == "own", limit=data.limit)

    @property
    def points(self) -> list[HookPoint]:
        """Where the SAEs are that latents are tracked through, from the first layer on."""
        names = [sae.hook_point for sae in self.saes]
        return sorted(HookPoint(name) for name in (self.train.hook_points if self.train else names))

    @property
    def widths(self) -> list[int]:
        """Latents of each of `points`."""
        found = {sae.hook_point: sae.d_sae for sae in self.saes}
        for plans in self.train.groups.values() if self.train else ():
            found |= {plan.hook_point: int(plan.settings["d_sae"]) for plan in plans}
        return [found[str(point)] for point in self.points]
