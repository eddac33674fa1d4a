"""What a user may set of the connection study; this module is free of torch."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, field_validator, model_validator

from fluoroscope.core.config import Config, how
from fluoroscope.data.questions.generated_config import GeneratedConfig
from fluoroscope.data.questions.names import canonical_name
from fluoroscope.data.questions.tokenizer_config import TokenizerConfig
from fluoroscope.studies.connection.arms import SLOTS, check_arm
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.sweep_config import SweepConfig
from fluoroscope.studies.connection.training_config import TrainingConfig

ArmName = Annotated[str, AfterValidator(check_arm)]
SetName = Annotated[str, AfterValidator(canonical_name)]


class QuestionsConfig(Config):
    """What is asked, and how much of it."""

    bare = "sets"

    sets: list[SetName] = Field(default_factory=lambda: ["pointer_fixed"])
    """logiqa, gsm8k, strategyqa, commonsenseqa, sst2, mnli; pointer_fixed, pointer_text, babi1...,
    graph_reach... are made; file:PATH is a table with the columns source and target."""

    n_train: PositiveInt | None = None
    """Questions of the training side at most; null takes all."""

    n_test: PositiveInt | None = None
    """Questions of the test side at most; null takes all."""

    made: GeneratedConfig = GeneratedConfig()
    """What sets that are made are like."""

    tokenizer: TokenizerConfig = TokenizerConfig()

    cut: Literal["end", "start"] = "end"
    """Where a text that is too long is cut; how many are cut is reported, and none is left out."""

    max_answer: int | None = Field(default=None, ge=2)
    """Tokens that are written at most, the end among them; null writes as many as the longest
    answer has."""

    @field_validator("sets", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return value.split() if isinstance(value, str) else value


class ConnectionSettings(Config):
    data: QuestionsConfig = QuestionsConfig()

    data_dir: str | None = None
    """Folder with a folder a data set; else $FLUOROSCOPE_DATA, else the hub."""

    network: NetworkConfig = NetworkConfig()
    """The slot network; its vocabulary is the tokenizer's."""

    arms: list[ArmName] = Field(
        default_factory=lambda: [SLOTS, "none", "transformer", "transformer_flops"]
    )
    """What is trained, alike in all else: see `studies.connection.arms`."""

    training: TrainingConfig = TrainingConfig()
    sweep: SweepConfig = SweepConfig()

    eval_batch: PositiveInt = 64
    """Texts that are answered together [eval_batch]."""

    seeds: PositiveInt = 3
    """Trainings of each arm; batches and first weights differ."""

    seed: int = 42
    """Of the first; sides that are drawn are the same for all."""

    keep: Literal["all", "main", "nothing"] = "main"
    """Whose weights stay: of all trainings, of the first arm's, or of none."""

    wandb: bool = how(False)
    """Write the trainings to Weights & Biases too: offline unless WANDB_MODE says otherwise."""

    @model_validator(mode="after")
    def _it_thinks(self) -> Self:
        if self.network.max_steps == 0:
            raise ValueError(
                "network.max_steps must be 1 at least, got 0; a network that does not think at "
                "all is the arm steps_0, beside one that does."
            )
        if self.training.prices.ponder and not (
            self.network.halting.name == "learned" or self.sweep.is_on
        ):
            raise ValueError(
                "training.prices.ponder is paid where stopping is learnt, and network.halting.name "
                f"is {self.network.halting.name}; take network.halting.name=learned."
            )
        return self
