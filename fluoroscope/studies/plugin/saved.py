"""A classifier that was trained and saved, to be used: one file of what learnt, the rest by name.

    classifier = SavedClassifier.load("models/.../final_model.safetensors")
    classifier.predict(["a stirring film", "a dull one"])

The frozen layer is not in the file: its identity is, and another layer than that is refused.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from fluoroscope.core.errors import MismatchError
from fluoroscope.core.tensors import read_metadata, read_tensors
from fluoroscope.data.labelled.encoding import encode
from fluoroscope.data.labelled.example import Example
from fluoroscope.models.encoder_names import encoder_source
from fluoroscope.models.encoders import load_encoder
from fluoroscope.models.single_layer.known import llm_source
from fluoroscope.models.single_layer.loading import load_layer
from fluoroscope.studies.plugin.classifier import PlugClassifier
from fluoroscope.studies.plugin.form import Form
from fluoroscope.studies.plugin.plugs import make_plug
from fluoroscope.studies.plugin.pooling import pooling_name
from fluoroscope.studies.plugin.predicting import predict


@dataclass(frozen=True, kw_only=True)
class AboutSaved:
    """What a classifier is made of, beside the tensors that learnt."""

    encoder: str
    """Key, folder or hub id of the encoder as it was pretrained."""

    encoder_revision: str | None
    encoder_identity: dict[str, str | None]
    pooling: str
    form: Form | None
    llm: str | None
    """Key, folder or hub id of the large model; None where no layer of it is in."""

    llm_revision: str | None
    layer: dict[str, Any] | None  # Any: JSON values of a LayerIdentity.
    d_layer: int
    target_rms: float | None
    seed: int
    max_length: int
    classes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:  # Any: JSON values.
        return {**asdict(self), "classes": list(self.classes)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "AboutSaved":  # Any: JSON values.
        form = None if values["form"] is None else Form(**values["form"])
        return cls(**{**values, "form": form, "classes": tuple(values["classes"])})


@dataclass(frozen=True)
class SavedClassifier:
    """Made by `load`."""

    classifier: PlugClassifier
    about: AboutSaved

    @classmethod
    def load(cls, path: Path | str, *, cache: Path | None = None) -> "SavedClassifier":
        """`cache` is a folder of borrowed layers. Raises `MismatchError` where the encoder or the
        layer that is there now is not the one that was trained with.
        """
        try:
            about = AboutSaved.from_json(read_metadata(Path(path)))
        except (KeyError, TypeError):
            raise MismatchError(
                f"{path} is not a classifier that a run of the study plugin has saved. Give its "
                "trained.safetensors, checkpoint.safetensors or final_model.safetensors."
            ) from None
        encoder = load_encoder(encoder_source(about.encoder), revision=about.encoder_revision)
        # Where its folder lies says nothing of what it is.
        found = {**encoder.identity.to_json(), "id": about.encoder_identity["id"]}
        _check(found, about.encoder_identity, f"the encoder {about.encoder}", path)
        plug = None
        if about.form is not None:
            tensors = None
            if about.layer is not None and about.llm is not None:
                tensors = load_layer(
                    llm_source(about.llm),
                    int(about.layer["layer"]),
                    revision=about.llm_revision,
                    dtype=about.layer["dtype"],
                    cache=cache,
                    form=about.form.reads,
                )
            plug = make_plug(
                about.form, encoder.d_model, tensors, about.d_layer, about.seed, about.target_rms
            )
            identity = None if plug.identity is None else plug.identity.to_json()
            _check(identity, about.layer, f"the layer of {about.llm}", path)
        classifier = PlugClassifier(
            encoder, about.form, about.pooling, plug, len(about.classes), 0.0, about.seed
        )
        classifier.load_trained(read_tensors(Path(path)))
        return cls(classifier, about)

    def predict(
        self, texts: Sequence[str | tuple[str, str]], *, batch_size: int = 64, device: str = "cpu"
    ) -> pl.DataFrame:
        """A row a text (or pair): `predicted`, and the probability of every class."""
        pairs = [(text, None) if isinstance(text, str) else text for text in texts]
        examples = [
            Example(str(i), text, pair, 0, "test", str(i)) for i, (text, pair) in enumerate(pairs)
        ]
        encoded = encode(examples, self.classifier.encoder.tokenizer, self.about.max_length)
        # It was trained on texts that are all as long.
        counts_padding = pooling_name(self.about.pooling) == "mean"
        logits = predict(
            self.classifier,
            encoded,
            batch_size=batch_size,
            device=device,
            precision="float32",
            pad_to=self.about.max_length if counts_padding else None,
        )
        probabilities = torch.softmax(logits.double(), -1)
        names = [self.about.classes[i] for i in probabilities.argmax(-1).tolist()]
        columns = {name: probabilities[:, i].tolist() for i, name in enumerate(self.about.classes)}
        return pl.DataFrame({"predicted": names, **columns})


def _check(found: object, expected: object, what: str, path: Path | str) -> None:
    if found != expected:
        raise MismatchError(
            f"{path} was trained with {what} as {expected}, and what is there now is {found}. "
            "Put back the old one, or train again."
        )
