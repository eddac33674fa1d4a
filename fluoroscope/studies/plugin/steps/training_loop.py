"""One training as a loop, and what is written when it ends; whatever step it belongs to."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import torch

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_json, write_parquet
from fluoroscope.core.tensors import State, write_tensors
from fluoroscope.data.labelled.encoding import Encoded
from fluoroscope.data.labelled.example import Example
from fluoroscope.models.training.shared_training import SharedTrainer
from fluoroscope.runs.process import resolve_devices
from fluoroscope.runs.record import read_record
from fluoroscope.runs.run import Run
from fluoroscope.steps.models import pinned_revision
from fluoroscope.studies.plugin.classifier import PlugClassifier
from fluoroscope.studies.plugin.config import Arm, PluginConfig
from fluoroscope.studies.plugin.form import Form
from fluoroscope.studies.plugin.metrics import SCORES, scores_of
from fluoroscope.studies.plugin.predicting import predict
from fluoroscope.studies.plugin.saved import AboutSaved
from fluoroscope.studies.plugin.schedule import padded_length
from fluoroscope.studies.plugin.steps.loaded import (
    encoded_examples,
    encoded_sides,
    new_classifier,
    texts_of,
)
from fluoroscope.studies.plugin.steps.texts import set_key
from fluoroscope.studies.plugin.training import PlugTrainer, TrainedPlug
from fluoroscope.studies.plugin.training_config import TrainingConfig

CURVE, PREDICTIONS, TRAINED, STATE = (
    "curve.parquet",
    "predictions.parquet",
    "trained.safetensors",
    "state.json",
)

_CURVE_COLUMNS = [
    *("epoch", "step", "train_loss", "train_accuracy"),
    *(f"validation_{name}" for name in SCORES),
    *("learning_rate", "is_stopped_early"),
]


@dataclass(frozen=True)
class Training:
    """One classifier to be trained."""

    dataset: str
    arm: Arm
    seed: int

    @property
    def key(self) -> str:
        return f"{set_key(self.dataset)}.{self.arm.key}.{self.seed}"

    @property
    def params(self) -> dict[str, Any]:  # Any: JSON values.
        return {
            "dataset": self.dataset,
            "arm": self.arm.name,
            "layer": self.arm.layer,
            "seed": self.seed,
        }

    def to_json(self) -> dict[str, Any]:  # Any: JSON values.
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Training":  # Any: JSON values.
        arm = values["arm"]
        form = None if arm["form"] is None else Form(**arm["form"])
        return cls(values["dataset"], Arm(arm["name"], form, arm["layer"]), values["seed"])


def new_trainer(
    run: Run,
    config: PluginConfig,
    training: Training,
    classifier: PlugClassifier,
    device: str,
    share: float,
) -> PlugTrainer:
    """Before its first step."""
    return PlugTrainer(
        classifier,
        encoded_sides(run, config, training.dataset),
        resolved_training(config),
        epochs=config.epochs,
        seed=training.seed,
        device=device,
        share=share,
    )


def resolved_training(config: PluginConfig) -> TrainingConfig:
    """With what only the encoder and the machine tell."""
    known = {"precision": config.precision, "max_length": config.max_length}
    return config.training.model_copy(update=known)


def trainer_of_process(
    *, run: str, training: dict[str, Any], share: float, device: str
) -> PlugTrainer:
    """The trainer of one of the processes that share a training; arguments are JSON."""
    opened = Run.open(Path(run), device)
    one = Training.from_json(training)
    classifier = new_classifier(opened, opened.config, one.dataset, one.arm, one.seed)
    return new_trainer(opened, opened.config, one, classifier, device, share)


class TrainLoop:
    """One training, and what is written when it ends."""

    def __init__(
        self,
        run: Run,
        config: PluginConfig,
        training: Training,
        device: str,
        *,
        is_main: bool,
        share: float = 1.0,
    ) -> None:
        self.run, self.config, self.training, self.device = run, config, training, device
        self.is_main = is_main
        self.classifier = new_classifier(run, config, training.dataset, training.arm, training.seed)
        self.trainer = self._new_trainer(share)
        self.n_iterations = self.trainer.n_iterations

    def _new_trainer(self, share: float) -> PlugTrainer | SharedTrainer[TrainedPlug]:
        run, config, training, n = self.run, self.config, self.training, self._n_processes
        if n == 1:
            return new_trainer(run, config, training, self.classifier, self.device, share)
        self._between = TemporaryDirectory(prefix="fluoroscope-shared-")
        on_gpus = self.device.startswith("cuda")
        asked = read_record(run.folder).how.devices
        arguments = {
            "run": str(run.folder.resolve()),
            "training": training.to_json(),
            "share": share,
        }
        return SharedTrainer(
            f"{__name__}:trainer_of_process",
            arguments,
            resolve_devices(asked)[:n] if on_gpus else ["cpu"] * n,
            Path(self._between.name),
            TrainedPlug,
            threads=run.threads,
        )

    @property
    def _n_processes(self) -> int:
        return self.config.training.processes

    def advance(self, iteration: int, sink: Sink) -> None:
        self.trainer.advance(iteration, sink)

    def state(self) -> State:
        return self.trainer.state()

    def load(self, state: State) -> None:
        self.trainer.load(state)

    def finish(self, folder: Path, sink: Sink) -> None:
        done = self.trainer.result()
        if isinstance(self.trainer, SharedTrainer):
            self.trainer.close()
        self.classifier.load_trained(done.tensors)
        # A state that was saved has its names in another order.
        curve = pl.DataFrame(done.curve, infer_schema_length=None).select(_CURVE_COLUMNS)
        write_parquet(folder / CURVE, curve)
        self._say_left_out(sink)
        frames = [self._judged(side, encoded) for side, encoded in self._sides().items()]
        predictions = pl.concat(frames)
        write_parquet(folder / PREDICTIONS, predictions)
        if self.config.keep == "all" or (self.config.keep == "main" and self.is_main):
            write_tensors(folder / TRAINED, done.tensors, self._about().to_json())
        state = {
            **self.training.params,
            "made_of": self._about().to_json(),
            "best_epoch": done.best_epoch,
            "steps": done.n_steps,
            "scores": _scores(predictions),
        }
        write_json(folder / STATE, state)

    def _sides(self) -> dict[str, Encoded]:
        """What is judged: the test side once, with the best epoch's weights."""
        own = encoded_sides(self.run, self.config, self.training.dataset)
        found = {"validation": own["validation"], "test": own["test"]}
        if self.is_main:
            for name in self.config.test_on:
                examples = others_test(self.run, self.training.dataset, name)
                found[f"test of {name}"] = encoded_examples(self.run, self.config, examples)
        return found

    def _say_left_out(self, sink: Sink) -> None:
        for name in self.config.test_on if self.is_main else ():
            n = len(texts_of(self.run, name).side("test"))
            n_left = n - len(others_test(self.run, self.training.dataset, name))
            if n_left:
                sink.message(f"{n_left} of {n} test texts of {name} were learnt from: left out.")

    def _judged(self, side: str, encoded: Encoded) -> pl.DataFrame:
        logits = predict(
            self.classifier,
            encoded,
            batch_size=4 * self.config.training.batch_size,
            device=self.device,
            precision=self.config.precision,
            pad_to=padded_length(resolved_training(self.config)),
        )
        name = side.removeprefix("test of ") if side.startswith("test of") else None
        by_id = {one.id: one for one in texts_of(self.run, name or self.training.dataset).examples}
        log_probs = torch.log_softmax(logits.double(), -1)
        return pl.DataFrame(
            {
                "side": [side] * len(encoded),
                "id": list(encoded.ids),
                "group": [by_id[one].group_id for one in encoded.ids],
                "part": [by_id[one].part for one in encoded.ids],
                "label": encoded.labels.tolist(),
                "predicted": log_probs.argmax(-1).tolist(),
                "log_probs": log_probs.tolist(),
            }
        )

    def _about(self) -> AboutSaved:
        """What the trained tensors are no use without."""
        config, plug = self.config, self.classifier.plug
        layer = None if plug is None else plug.identity
        target = getattr(plug.middle, "target_rms", None) if plug is not None else None
        return AboutSaved(
            encoder=config.model.source,
            encoder_revision=pinned_revision(self.run, "model", config.model.revision),
            encoder_identity=self.classifier.encoder.identity.to_json(),
            pooling=self.classifier.pooling,
            form=self.training.arm.form,
            llm=None if layer is None else config.llm.source,
            llm_revision=pinned_revision(self.run, "llm", config.llm.revision),
            layer=None if layer is None else layer.to_json(),
            d_layer=config.d_layer,
            target_rms=target,
            seed=self.training.seed,
            max_length=config.max_length,
            classes=texts_of(self.run, self.training.dataset).classes,
        )


def others_test(run: Run, trained: str, name: str) -> list[Example]:
    """The test side of another set, in the classes of the one that was trained on, and without
    texts that were there to learn from or to choose by.
    """
    own, other = texts_of(run, trained), texts_of(run, name)
    place = {label: own.classes.index(each) for label, each in enumerate(other.classes)}
    seen = {one.group_id for one in own.examples if one.split != "test"}
    return [
        replace(one, label=place[one.label])
        for one in other.side("test")
        if one.group_id not in seen
    ]


def _scores(predictions: pl.DataFrame) -> list[dict[str, object]]:
    """Of each side, whole and by its parts where it has several."""
    rows: list[dict[str, object]] = []
    for (side,), frame in predictions.group_by(["side"], maintain_order=True):
        parts = frame["part"].unique(maintain_order=True).to_list()
        for part in [None, *(parts if len(parts) > 1 else [])]:
            some = frame if part is None else frame.filter(pl.col("part") == part)
            logits = torch.tensor(some["log_probs"].to_list(), dtype=torch.float64)
            labels = torch.tensor(some["label"].to_list())
            scores = scores_of(logits, labels)
            rows.append({"side": side, "part": part, "n": len(some), **scores})
    return rows
