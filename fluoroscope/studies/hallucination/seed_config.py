"""The YAML file of the plan (seed 001), read into our settings.

    fluoro run hallucination --config gpt2-medium.yaml

Its keys are those of the plan, and an unknown one is an error. What it says is taken where it has
a meaning here; of everything else it is said why not, as several keys never had an effect, and
others set what is decided in another way here. This module is free of torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from fluoroscope.core.config import Config, Settings, build

TOKENS_A_DOCUMENT = 500
"""Of an article, less than the mean: so many articles hold at least the tokens that are asked."""

GPUS = 4
"""Over which the plan spreads its layers: SAEs of a quarter of them are trained in one loop."""

_MODELS = {
    "gpt2": "openai-community/gpt2",
    "gpt2-small": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
}
_CORPUS = {"source": "hf:wikimedia/wikipedia", "hub_subset": "20231101.en"}
_DATA: Mapping[str, dict[str, str]] = {
    "truthfulqa": {"name": "truthfulqa", "answers": "stated"},
    "halueval": {"name": "halueval-qa", "answers": "stated"},
    "triviaqa": {"name": "triviaqa", "answers": "own"},
}


class Translated(NamedTuple):
    """Our settings, and what became of each key that was given."""

    settings: Settings
    notes: tuple[str, ...]
    """Sentences, first what was taken, then what was not."""


class _Project(Config):
    name: str | None = None
    version: str | None = None
    description: str | None = None


class _Model(Config):
    base_model: str
    d_model: PositiveInt | None = None
    n_layers: PositiveInt | None = None
    device: str | None = None


class _SAE(Config):
    architecture: str = "jumprelu"
    d_model: PositiveInt | None = None
    d_hidden: PositiveInt | None = None
    threshold: float | None = None
    lambda_sparse: NonNegativeFloat | None = None


class _Training(Config):
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 256
    learning_rate: PositiveFloat = 1e-4
    weight_decay: NonNegativeFloat | None = None
    gradient_clip: NonNegativeFloat | None = None
    num_tokens: PositiveInt = 100_000_000
    max_length: PositiveInt = 512
    validation_every: PositiveInt | None = None
    target_recon_loss: PositiveFloat | None = None
    target_sparsity_min: PositiveInt = 50
    target_sparsity_max: PositiveInt = 100


class _Tracking(Config):
    top_k_features: PositiveInt = 50
    semantic_weight: float | None = None
    activation_weight: float | None = None
    position_weight: float | None = None
    association_threshold: float | None = None
    birth_threshold: float | None = None
    death_threshold: float | None = None
    use_feature_id_matching: bool | None = None


class _Detection(Config):
    entropy_threshold: float | None = None
    churn_threshold: float | None = None
    entropy_weight: float | None = None
    churn_weight: float | None = None
    ml_weight: float | None = None
    threshold: float | None = None


class _Dataset(Config):
    primary: Literal["truthfulqa", "halueval", "triviaqa"] = "truthfulqa"
    split_train: float | None = None
    split_val: float | None = None
    split_test: float | None = None
    stratify_by: str | None = None


class _Paths(Config):
    data_dir: str | None = None
    cache_dir: str | None = None
    models_dir: str | None = None
    results_dir: str | None = None
    logs_dir: str | None = None


class SeedSettings(Config):
    """A settings file of the plan."""

    project: _Project = _Project()
    model: _Model
    sae: _SAE = _SAE()
    sae_training: _Training = _Training()
    tracking: _Tracking = _Tracking()
    detection: _Detection = _Detection()
    dataset: _Dataset = _Dataset()
    paths: _Paths = _Paths()


def is_seed_settings(settings: Mapping[str, Any]) -> bool:  # Any: values of YAML.
    """Whether these are keys of the plan and not ours."""
    model = settings.get("model")
    return "sae_training" in settings or (isinstance(model, Mapping) and "base_model" in model)


def translate(settings: Settings) -> Translated:
    """What such a file means here; our own settings come back as they are."""
    if not is_seed_settings(settings):
        return Translated(settings, ())
    given = build(SeedSettings, settings)
    taken = _taken(given)
    lines = [f"Read as a settings file of the plan: {_listed(taken)}."]
    lines += [f"Not taken: {keys}: {why}." for keys, why in _left(given)]
    return Translated(_ours(given), tuple(lines))


def _ours(given: SeedSettings) -> Settings:
    training, layers = given.sae_training, given.model.n_layers
    n_documents = -(-training.num_tokens // TOKENS_A_DOCUMENT)
    train: Settings = {
        "corpus": {**_CORPUS, "take": f"first:{n_documents}", "context": training.max_length},
        "n_tokens": training.num_tokens * training.epochs,
        "activations": "stream",
        "sae": _sae(given),
        "training": {
            "batch_size": training.batch_size,
            "learning_rate": training.learning_rate,
            "validate_every": training.validation_every,
        },
    }
    if layers is not None:
        train["hook_points_per_loop"] = -(-layers // GPUS)
    base = given.model.base_model
    return {
        "model": _MODELS.get(base, base),
        "train": train,
        "data": {**_DATA[given.dataset.primary], "path": "hf:"},
        "tracking": {"top": given.tracking.top_k_features, "seed_cost": _seed_cost(given)},
    }


def _seed_cost(given: SeedSettings) -> Settings:
    tracking = given.tracking
    found: Settings = {}
    if tracking.association_threshold is not None:
        found["threshold"] = tracking.association_threshold
    if tracking.birth_threshold is not None:
        found["birth"] = tracking.birth_threshold
    if tracking.use_feature_id_matching is not None:
        by_number = tracking.use_feature_id_matching
        found["assignment"] = "feature_id" if by_number else "hungarian"
    return found


def _sae(given: SeedSettings) -> Settings:
    kind = given.sae.architecture.lower().replace("-", "").replace("_", "")
    architecture = {"batchtopk": "batch_topk"}.get(kind, kind)
    sae: Settings = {"architecture": architecture}
    if given.sae.d_hidden is not None:
        sae["d_sae"] = given.sae.d_hidden
    aim = (given.sae_training.target_sparsity_min + given.sae_training.target_sparsity_max) // 2
    name = {"jumprelu": "target_l0", "topk": "k", "batch_topk": "k"}.get(architecture)
    return sae if name is None else {**sae, name: aim}


def _taken(given: SeedSettings) -> Mapping[str, str]:
    """The plan's key (or keys) -> what it is here, of those that were given or that a default
    decides.
    """
    ours = _ours(given)
    train, sae = ours["train"], ours["train"]["sae"]
    found = {
        "model.base_model": f"model={ours['model']}",
        "sae.architecture": f"train.sae.architecture={sae['architecture']}",
        "sae.d_hidden": f"train.sae.d_sae={sae.get('d_sae')}",
        "sae_training.num_tokens x epochs": (
            f"train.n_tokens={train['n_tokens']} of train.corpus.take={train['corpus']['take']} "
            "documents of Wikipedia"
        ),
        "sae_training.max_length": f"train.corpus.context={train['corpus']['context']}",
        "sae_training.batch_size": f"train.training.batch_size={train['training']['batch_size']}",
        "sae_training.learning_rate": (
            f"train.training.learning_rate={train['training']['learning_rate']:g}"
        ),
        "tracking.top_k_features": f"tracking.top={ours['tracking']['top']}",
        "dataset.primary": f"data.name={ours['data']['name']}",
    }
    if given.sae.d_hidden is None:
        del found["sae.d_hidden"]
    if given.sae_training.validation_every is not None:
        found["sae_training.validation_every"] = (
            f"train.training.validate_every={given.sae_training.validation_every}"
        )
    if given.model.n_layers is not None:
        found["model.n_layers"] = f"train.hook_points_per_loop={train['hook_points_per_loop']}"
    for key, name in _COSTS.items():
        if name in ours["tracking"]["seed_cost"]:
            value = ours["tracking"]["seed_cost"][name]
            found[f"tracking.{key}"] = (
                f"tracking.seed_cost.{name}={value} (for tracking.tracker=seed_cost alone)"
            )
    aims = {name: sae[name] for name in ("target_l0", "k") if name in sae}
    for name, aim in aims.items():
        found["the middle of sae_training.target_sparsity_min and _max"] = f"train.sae.{name}={aim}"
    return found


_COSTS = {
    "association_threshold": "threshold",
    "birth_threshold": "birth",
    "use_feature_id_matching": "assignment",
}
"""The plan's keys -> ours of its tracker."""

_REASONS: Sequence[tuple[str, tuple[str, ...], str]] = (
    ("project", ("name", "version", "description"), "a run has a --name, and records its settings"),
    ("model", ("d_model",), "it is read from the model"),
    ("model", ("device",), "where to work is no part of the settings; say --devices cuda:0,cuda:1"),
    ("sae", ("d_model",), "it is read from the model"),
    (
        "sae",
        ("threshold",),
        "every latent learns a threshold of its own, which begins where the data says; in the plan "
        "it never got a gradient",
    ),
    (
        "sae",
        ("lambda_sparse",),
        "it weighs a mean over activations of another scale; the active latents are what is aimed "
        "at (for relu: train.sae.l1_coefficient)",
    ),
    ("sae_training", ("weight_decay",), "Adam has none here"),
    ("sae_training", ("gradient_clip",), "inputs are scaled to unit variance instead"),
    (
        "sae_training",
        ("target_recon_loss",),
        "it is judged and not aimed at: the report has a gate for it",
    ),
    (
        "tracking",
        (
            "semantic_weight",
            "activation_weight",
            "position_weight",
        ),
        "links are weighed by likelihoods that are estimated from the data; the plan's own costs "
        "(0.6, 0.2 and a third that is always 0) are those of tracking.tracker=seed_cost",
    ),
    ("tracking", ("death_threshold",), "nothing ever used it"),
    (
        "detection",
        (
            "entropy_threshold",
            "churn_threshold",
            "entropy_weight",
            "churn_weight",
            "ml_weight",
            "threshold",
        ),
        "nothing ever used them; a detector is trained on all numbers (detection.detector), and "
        "flags from a probability of 0.5 on",
    ),
    (
        "dataset",
        ("split_train", "split_val", "split_test", "stratify_by"),
        "every answer is scored by detectors that have not seen its question, in detection.folds "
        "folds of whole groups, and labels are spread over them",
    ),
    (
        "paths",
        ("data_dir", "cache_dir", "models_dir", "results_dir", "logs_dir"),
        "a run is one folder below ./runs or $FLUOROSCOPE_RUNS; files of a data set are named by "
        "data.path",
    ),
)


def _left(given: SeedSettings) -> list[tuple[str, str]]:
    """Keys that were given and have no meaning here, with the reason."""
    found = []
    for section, names, why in _REASONS:
        said = getattr(given, section).model_fields_set
        mine = [f"{section}.{name}" for name in names if name in said]
        if mine:
            found.append((", ".join(mine), why))
    relu = _sae(given)["architecture"] == "relu"
    aims = {"target_sparsity_min", "target_sparsity_max"} & given.sae_training.model_fields_set
    if relu and aims:
        keys = ", ".join(f"sae_training.{name}" for name in sorted(aims))
        found.append((keys, "a relu SAE has a penalty (train.sae.l1_coefficient) and no target"))
    return found


def _listed(taken: Mapping[str, str]) -> str:
    return "; ".join(f"{key} -> {ours}" for key, ours in taken.items())
