"""What a user may set of the plug-in study; this module is free of torch."""

from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator

from fluoroscope.core.config import Config, how
from fluoroscope.studies.plugin.form import Control, Variant
from fluoroscope.studies.plugin.selection.ilm_config import IlmConfig
from fluoroscope.studies.plugin.training_config import TrainingConfig

Method = Literal[
    "ilm",
    "ilm_manual",
    "logme",
    "hscore",
    "loo",
    "variability",
    "plug_side",
    "gradient_fit",
    "halving",
]
Beside = Literal["base", "last", "middle", "every_layer"] | Control | Variant


class EncoderSpec(Config):
    """The small model that is trained."""

    bare = "source"

    source: str = "bert"
    """bert, roberta, electra, minilm..., a folder, or a hub id."""

    revision: str | None = None
    """Revision of a hub model."""

    pooling: Literal[
        "cls",
        "mean",
        "masked_mean",
        "last",
        "average_pooling_with_padding",
        "average_pooling_without_padding",
    ] = "cls"
    """How its tokens become one vector; `mean` counts padding, `last` is for decoders."""


class LlmSpec(Config):
    """The large model that a layer is borrowed from."""

    bare = "source"

    source: str = "llama3.1"
    """llama3.1, qwen2_0.5b, gemma2..., a folder, or a hub id."""

    revision: str | None = None
    """Revision of a hub model."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the borrowed layer; the whole model reads in `selection.ilm.dtype`."""


class SelectionSpec(Config):
    """How the layer is chosen (mode=pifi_ilm), never by the test side. Methods read texts of the
    training side; `gradient_fit` and `halving` are judged on the validation side.
    """

    bare = "method"

    method: Method = "ilm"
    """Whose best layer is taken; all of the others are tabled beside it."""

    also: list[Literal["plug_side", "gradient_fit", "halving"]] = Field(
        default_factory=lambda: ["plug_side"]
    )
    """Methods beyond those of one pass over the texts, which cost more."""

    n_samples: PositiveInt = 2000
    """Texts of the training side that are read; ILM takes `ilm.n_samples` of them."""

    batch_size: PositiveInt = how(16)
    """Texts that the large model reads at once."""

    fit_steps: PositiveInt = 300
    """Steps of the gradient-fit probe, at every layer."""

    keep: list[PositiveInt] = Field(default_factory=lambda: [8, 3])
    """Layers that are left before the first and the second round of halving."""

    shares: list[float] = Field(default_factory=lambda: [0.1, 0.4])
    """Of a whole training, that each round gives its layers."""

    ilm: IlmConfig = IlmConfig()
    """With the plan's own names. What is read and how is of all methods; how it is scored, of
    `ilm` and `ilm_manual`."""

    @field_validator("shares")
    @classmethod
    def _shares_are_two(cls, shares: list[float]) -> list[float]:
        if len(shares) != 2 or not 0 < shares[0] <= shares[1] <= 1:
            raise ValueError("two shares are needed, above 0, the second no smaller, at most 1")
        return shares

    @field_validator("keep")
    @classmethod
    def _rounds_shrink(cls, keep: list[int]) -> list[int]:
        if len(keep) != 2 or keep[0] < max(2, keep[1]):
            raise ValueError(
                "two numbers of layers are needed, the second no larger; the first is 2 or more, "
                "as the middle and the last layer are always tried"
            )
        return keep


class OutputsSpec(Config):
    """Where else results go, in the plan's own layout; none of it changes a result."""

    checkpoints: str | None = how(None)
    """Folder for TASK/DATASET/POOLING/MODEL/METHOD/LLM/LAYER/checkpoint.safetensors."""

    models: str | None = how(None)
    """Folder for the same paths with final_model.safetensors."""

    results: str | None = how(None)
    """Folder for layer_selection/TASK/DATASET/MODEL/LLM/selection.json, layer_scores.csv."""

    cache: str | None = how(None)
    """Folder of borrowed layers; by default the user's cache folder."""

    preprocessed: str | None = how(None)
    """Folder of tokenised texts that several runs share; by default each run keeps its own."""

    wandb: bool = how(False)
    """Write the trainings to Weights & Biases too: offline unless WANDB_MODE says otherwise."""


class PluginMaterial(Config):
    """What is trained on what."""

    model: EncoderSpec = EncoderSpec()
    """The small encoder: `model=bert`, with `model.pooling=mean`."""

    llm: LlmSpec = LlmSpec()
    """The large model: `llm=qwen2_0.5b`."""

    datasets: list[str] = Field(default_factory=lambda: ["sst2"])
    """Data sets, as a list or between spaces: `datasets="sst2 cola"`; `file:PATH` is your own."""

    data_dir: str | None = how(None)
    """A folder that has a folder for each data set; without it, the hub's copies."""

    split: Literal["sound", "paper"] = "sound"
    """`paper`: the plan's own sides, which have CoLA's test side chosen on and texts twice."""

    n_train: PositiveInt | None = None
    """Training examples to learn from, classes as in the whole; all of them if not given."""

    test_on: list[str] = Field(default_factory=list)
    """Further data sets of as many classes, on whose test sides the main arm is judged too."""

    seed: int = 2023
    """Of the first training, of sides that are drawn, and of samples."""

    seeds: PositiveInt = 3
    """Trainings of every arm: with `seed`, `seed` + 1 and so on."""

    @field_validator("datasets", "test_on", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:  # Any: pydantic's raw input.
        return value.split() if isinstance(value, str) else value

    @field_validator("datasets")
    @classmethod
    def _none_twice(cls, value: list[str]) -> list[str]:
        if not value or len(set(value)) < len(value):
            raise ValueError("data sets are named once each, and there must be one")
        return value


class PluginSettings(PluginMaterial):
    """What a user says and what is worked on have alike."""

    mode: Literal["base", "pifi", "pifi_ilm"] = "pifi_ilm"
    """The encoder alone; with the layer `layer`; or with a layer that is chosen."""

    layer: int = -1
    """Of mode=pifi, from 0; -1 is the last."""

    variant: Variant = "faithful"
    """What stands between the encoder and the head."""

    beside: list[Beside] = Field(
        default_factory=lambda: ["base", "random_layer", "permuted_layer", "linear"]
    )
    """What is trained beside it, alike in all else: controls, variants, other layers. With
    mode=base nothing is plugged in, and the encoder alone is trained.
    """

    epochs: PositiveInt = 3
    """Passes over the training side."""

    training: TrainingConfig = TrainingConfig()
    """How each classifier is trained."""

    selection: SelectionSpec = SelectionSpec()
    """How a layer is chosen."""

    keep: Literal["main", "all", "nothing"] = "main"
    """Whose trained weights stay in the run."""

    outputs: OutputsSpec = OutputsSpec()
    """The plan's own files, beside those of the run."""

    threads: PositiveInt = Field(default=1)
    """Threads of each worker; a part of the result, as sums are split by them."""
