"""What a user says of SAEs that a study trains itself; this module is free of torch."""

from typing import Any, Literal

from pydantic import ConfigDict, PositiveInt, model_validator

from fluoroscope.activations.extract_config import ExtractConfig
from fluoroscope.core.config import Config
from fluoroscope.data.corpus_config import CorpusConfig
from fluoroscope.sae.training_config import TrainingConfig
from fluoroscope.steps.evaluation_config import EvaluationConfig

Choice = int | list[int]


class SAESpec(Config):
    """Which SAEs are trained at every hook point.

    Settings of the architecture stand here too (`sae.k=32`, `sae.l1_coefficient=0.01`), and are
    checked by it. Any of them, a width or the seed may be a list: `sae.k=[16,32] sae.seed=[0,1]`
    trains the four combinations side by side, from the same activations.
    """

    model_config = ConfigDict(extra="allow")

    bare = "architecture"

    architecture: str = "batch_topk"
    """`batch_topk`, `topk`, `jumprelu` or `relu`."""

    d_sae: Choice | None = None
    """Number of latents; null for `expansion` times the model's width."""

    expansion: PositiveInt = 16
    """Latents per dimension of the model, where `d_sae` is not given."""

    seed: Choice = 0
    """Seed of the SAE's first weights."""


class SAETrainingSpec(Config):
    """SAEs of every layer, trained on a text."""

    corpus: CorpusConfig
    """The text to read; `corpus=FILE` is short for `corpus.source=FILE`."""

    n_tokens: PositiveInt = 10_000_000
    """Activations that each SAE is trained on; beyond one pass of the corpus, further epochs."""

    sae: SAESpec = SAESpec()

    hook_points: str | list[str] = "all.resid_post"
    """Where: `all.resid_post`, `6.mlp_out`, or a list of such."""

    activations: Literal["store", "stream"] = "store"
    """`store` keeps activations on disk and reads them for each epoch and SAE; `stream` takes
    them straight from the model, with no disk but a forward pass for every row."""

    extract: ExtractConfig = ExtractConfig()

    training: TrainingConfig = TrainingConfig()

    evaluation: EvaluationConfig = EvaluationConfig()

    hook_points_per_loop: PositiveInt | None = None
    """Hook points trained in one loop. By default one with a store, so that workers share the
    loops, and all of them with a stream, so that one forward pass feeds all."""

    @model_validator(mode="after")
    def _something_is_held_out(self) -> "SAETrainingSpec":
        if self.corpus.held_out <= 0:
            raise ValueError(
                "corpus.held_out must be above 0: SAEs are chosen and judged on held-out documents."
            )
        return self


def swept(value: Any) -> list[Any]:  # Any: one JSON value, or a list of them.
    """The values that a setting of the SAE takes."""
    return value if isinstance(value, list) else [value]
