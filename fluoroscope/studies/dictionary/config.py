"""A dictionary run as it is worked on: the spec with what only the model knows."""

from fluoroscope.activations.extract_config import ExtractConfig
from fluoroscope.core.config import Config
from fluoroscope.data.corpus_config import CorpusConfig
from fluoroscope.models.shape import ModelShape
from fluoroscope.sae.training_config import TrainingConfig
from fluoroscope.steps.evaluation_config import EvaluationConfig
from fluoroscope.steps.models import ModelConfig
from fluoroscope.steps.train_saes import SAEPlan


class DictionaryConfig(Config):
    """A `DictionarySpec` with everything filled in that the model decides."""

    model: ModelConfig
    shape: ModelShape
    corpus: CorpusConfig
    n_tokens: int
    hook_points: list[str]
    groups: dict[str, list[SAEPlan]]
    """Loop -> the SAEs that are trained in it."""

    from_store: bool
    extract: ExtractConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    seed: int
    threads: int
