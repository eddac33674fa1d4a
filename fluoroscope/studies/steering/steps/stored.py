"""What a steering run has collected, as the `Material` that methods look at."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import polars as pl
from jaxtyping import Float

from fluoroscope.data.tasks.samples import Sample
from fluoroscope.features.correlation import OutcomeMoments
from fluoroscope.features.correlation_pooling import Pooling
from fluoroscope.features.correlation_selection import latent_table
from fluoroscope.features.reply_latents import ReplyLatents
from fluoroscope.interventions.replies.answering import Captured, Reply, reply_all
from fluoroscope.interventions.row_edits import EditSet
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.runs.run import Run
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.steps.collect import COLLECT, Collected
from fluoroscope.steps.models import load_model
from fluoroscope.steps.subject import load_layers
from fluoroscope.steps.task_data import TaskData, load_task
from fluoroscope.studies.steering.config import SteeringConfig
from fluoroscope.studies.steering.material import Material

MOST_MEASURED = 1024
"""Training samples on which latents are measured again, the first by seed."""


class StoredMaterial(Material):
    def __init__(
        self,
        model: LanguageModel,
        saes: Mapping[str, SparseAutoencoder],
        data: TaskData,
        collected: Collected,
        training: Sequence[Sample],
        config: SteeringConfig,
    ) -> None:
        """`training` are the samples of the rows of `collected`."""
        self.model, self.saes = model, saes
        self.seed, self.instruction = config.seed, config.instruction
        self.towards, self.within = config.strength.towards, config.evaluate.within
        self.data, self._collected, self._config = data, collected, config
        self._training = training
        self._tables: dict[tuple[Pooling, int | None], pl.DataFrame] = {}

    def table(self, pool: Pooling, samples: int | None = None) -> pl.DataFrame:
        if (pool, samples) not in self._tables:
            self._tables[pool, samples] = self._collected.table(pool, samples)
        return self._tables[pool, samples]

    def outcomes(self, samples: int | None = None) -> Float[np.ndarray, " n"]:
        return self._part(samples)["score"].to_numpy()

    def groups(self, samples: int | None = None) -> list[str]:
        return self._part(samples)["group"].to_list()

    @property
    def threshold(self) -> float:
        return self._collected.threshold

    def dense(self, point: HookPoint, samples: int | None = None) -> Float[np.ndarray, "n d_model"]:
        return self._collected.dense(str(point), samples)

    @property
    def validation(self) -> Sequence[Sample]:
        return self.data.sides["validation"]

    def judge(self, edits: EditSet, instruction: str = "") -> Float[np.ndarray, " v"]:
        return np.array([reply.score.value for reply in self.replies(edits, instruction)])

    def replies(self, edits: EditSet, instruction: str = "") -> list[Reply]:
        """To the validation side."""
        asking = self.data.asking_with(instruction)
        return reply_all(self.model, self.validation, asking, edits)

    @cached_property
    def norms(self) -> dict[HookPoint, float]:
        """Median norm of the activations where tokens are drawn, by hook point."""
        return {
            point: float(np.median(np.linalg.norm(self.dense(point), axis=1)))
            for point in self.points
        }

    def remeasure(
        self, point: HookPoint, edits: EditSet, pool: Pooling, samples: int | None = None
    ) -> pl.DataFrame:
        n = min(MOST_MEASURED, samples or MOST_MEASURED, len(self._collected.replies))
        measured = self._training[:n]
        sae = self.saes[str(point)]
        latents = ReplyLatents({str(point): sae}, [pool], n)

        def take(place: int, _reply: Reply, captured: Captured) -> None:
            latents.add(place, captured)

        reply_all(self.model, measured, self.data.asking, edits, latents.captures, take)
        # With the outcomes of before: what is asked is how active what was picked still is.
        outcomes = self._collected.outcomes(n)
        moments = OutcomeMoments(sae.d_sae, outcomes)
        moments.add(np.arange(n), latents.rows(str(point), pool))
        collect = self._config.collect
        return latent_table({str(point): moments}, collect.min_active, collect.alpha)

    def _part(self, samples: int | None) -> pl.DataFrame:
        return self._collected.replies.head(samples or len(self._collected.replies))


def load_material(run: Run, config: SteeringConfig, device: str) -> StoredMaterial:
    """Read once in each process."""

    def load() -> StoredMaterial:
        model = load_model(run, config.model, device)
        saes = load_layers(run, config, device, model.identity)
        data = load_task(
            run, config.model, config.task, config.data_dir, config.seed, device, config.instruction
        )
        collected = Collected(run.step_folder(COLLECT), config, config.collect, config.seed)
        # An instruction may leave room for fewer samples than there was when they were collected.
        plain = load_task(run, config.model, config.task, config.data_dir, config.seed, device)
        return StoredMaterial(model, saes, data, collected, plain.sides["train"], config)

    return run.cached(("material", device), load)
