"""What every layer of a large model makes of labelled texts, pooled, in one pass over the texts.

States are read by hooks behind each block: the last of the library's own `hidden_states` is after
the final norm, and no other is. They are pooled while a batch is there, so that memory is that of
`layers` x [n, d_model], never of all positions.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluoroscope.core.errors import ConfigError, CorpusError, ModelError, NumericsError
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.core.tensors import read_metadata, read_tensors, write_tensors
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.requests import writable_context
from fluoroscope.models.sinks import find_sinks
from fluoroscope.studies.plugin.selection.ilm_config import PairText, Pooling

MIN_ROWS = 10
"""Texts below which nothing can be said of a layer."""

JOINS: Mapping[PairText, str] = {"newline": "\n", "sep": " [SEP] "}


@dataclass(frozen=True)
class LayerFeatures:
    """Row i of every layer is of text i. Raises `CorpusError` where no layer can be told from
    another: too few texts, or a class with fewer than two of them.
    """

    states: tuple[Float[Tensor, "n d_model"], ...]
    """One a layer, in float32; those of a file stay there until they are looked at."""

    labels: Int[np.ndarray, " n"]

    ids: tuple[str, ...]

    input_rms: Float[np.ndarray, " layers"]
    """Median root mean square of the vectors that each layer reads, first tokens and attention
    sinks left out."""

    def __post_init__(self) -> None:
        check_labels(self.labels)
        if not self.states or len(self.input_rms) != len(self.states):
            raise ConfigError(
                f"Features of {len(self.states)} layers need as many input_rms, and one at least; "
                f"got {len(self.input_rms)}."
            )
        if any(len(one) != len(self.labels) for one in (*self.states, self.ids)):
            raise ConfigError(f"Each layer and `ids` must have {len(self.labels)} rows.")
        if len(set(self.ids)) < len(self.ids):
            raise CorpusError("Two texts have the same id; give each its own.")

    @property
    def n_layers(self) -> int:
        return len(self.states)

    def layer(self, layer: int) -> Float[np.ndarray, "n d_model"]:
        """In float64. Raises `NumericsError` for what is not finite."""
        values = self.states[layer].double().numpy()
        if not np.isfinite(values).all():
            raise NumericsError(
                f"The states of layer {layer} are not finite; read them in float32 or bfloat16."
            )
        return values

    def by_id(self) -> "LayerFeatures":
        """Rows sorted by their ids, so that the order in which texts came plays no part."""
        return self.take(sorted(range(len(self.ids)), key=lambda row: self.ids[row]))

    def take(self, rows: Sequence[int]) -> "LayerFeatures":
        """These rows, in this order; `input_rms` stays that of all."""
        index = np.array(rows, dtype=np.int64)
        return LayerFeatures(
            tuple(one[torch.from_numpy(index)] for one in self.states),
            self.labels[index],
            tuple(self.ids[row] for row in rows),
            self.input_rms,
        )

    def write(self, path: Path) -> None:
        """As one safetensors file."""
        tensors = {f"layer.{layer:04d}": one for layer, one in enumerate(self.states)}
        tensors["labels"] = torch.from_numpy(self.labels)
        tensors["input_rms"] = torch.from_numpy(self.input_rms)
        write_tensors(path, tensors, {"ids": list(self.ids)})

    @classmethod
    def read(cls, path: Path) -> "LayerFeatures":
        tensors = read_tensors(path)
        return cls(
            tuple(tensors[name] for name in sorted(tensors) if name.startswith("layer.")),
            tensors["labels"].numpy(),
            tuple(read_metadata(path)["ids"]),
            tensors["input_rms"].numpy(),
        )


def check_labels(labels: Int[np.ndarray, " n"]) -> None:
    """Raises `CorpusError` where labels are too few, or a class has one row or is the only one."""
    classes, counts = np.unique(labels, return_counts=True)
    if len(labels) < MIN_ROWS or len(classes) < 2 or counts.min() < 2:
        found = dict(zip(classes.tolist(), counts.tolist(), strict=True))
        raise CorpusError(
            f"A layer is chosen by {MIN_ROWS} texts or more, of two classes or more with two texts "
            f"or more each; got texts by class {found}. Draw more; no layer is taken unseen."
        )


def check_apart(chosen_by: Iterable[str], tested_by: Iterable[str]) -> None:
    """Raises `CorpusError` where an id (or a text) that chooses a layer is also tested on."""
    shared = sorted(set(chosen_by) & set(tested_by))
    if shared:
        raise CorpusError(
            f"{len(shared)} samples both choose the layer and test it, such as {shared[0][:60]!r}; "
            "draw the selection from the training side."
        )


def read_layers(
    model: LanguageModel,
    texts: Sequence[tuple[str, str | None]],
    labels: Sequence[int],
    ids: Sequence[str],
    *,
    pooling: Pooling = "mean",
    max_length: int = 128,
    batch_size: int = 16,
    pair_text: PairText = "newline",
    is_last_normed: bool = False,
    keeps_sinks: bool = True,
    sink: Sink = SILENT,
) -> LayerFeatures:
    """All layers in one pass. A text is `(text, None)`, a pair `(premise, hypothesis)`.

    Without `keeps_sinks` first tokens and attention sinks stay out of the mean, too: they carry no
    content, and outweigh what does. `is_last_normed` as in `IlmReadingConfig`.

    Raises `CorpusError` for a text without tokens, and `ModelError` where `pooling` is `first` and
    every row would be the same.
    """
    if not len(texts) == len(labels) == len(ids):
        raise ConfigError(
            f"{len(texts)} texts, {len(labels)} labels and {len(ids)} ids were given."
        )
    known = np.asarray(labels, dtype=np.int64)
    check_labels(known)
    tokens = _tokens(model, texts, pair_text, max_length)
    if (
        pooling == "first"
        and model.family.kind == "decoder"
        and len({one[0] for one in tokens}) == 1
    ):
        raise ModelError(
            f"The first token of {model.name} is the same in every text and sees no other, so "
            "every row would be the same. Take pooling mean or last."
        )
    reading = _Reading(model, len(tokens), pooling, is_last_normed, keeps_sinks)
    # The longest first, so that a batch that does not fit fails soon.
    order = sorted(range(len(tokens)), key=lambda row: (-len(tokens[row]), row))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        reading.read(rows, [tokens[row] for row in rows])
        sink.progress(start + len(rows), len(order), "texts")
    return LayerFeatures(tuple(reading.states), known, tuple(ids), reading.input_rms())


def _tokens(
    model: LanguageModel,
    texts: Sequence[tuple[str, str | None]],
    pair_text: PairText,
    max_length: int,
) -> list[list[int]]:
    longest = min(max_length, writable_context(model))
    found = []
    for first, second in texts:
        text = first if second is None else first + JOINS[pair_text] + second
        row = model.tokenizer(text, truncation=True, max_length=longest)["input_ids"]
        if not row:
            raise CorpusError(f"The tokenizer of {model.name} makes no token of {text[:60]!r}.")
        found.append(row)
    return found


class _Reading:
    """Pools what the hooks see, batch by batch."""

    def __init__(
        self,
        model: LanguageModel,
        n_rows: int,
        pooling: Pooling,
        is_last_normed: bool,
        keeps_sinks: bool,
    ) -> None:
        self.model = model
        self.states = [torch.zeros(n_rows, model.d_model) for _ in range(model.n_layers)]
        self._rms: list[list[Tensor]] = [[] for _ in range(model.n_layers)]
        self._pooling: Pooling = pooling
        self._keeps_sinks = keeps_sinks
        norm = model.family.final_norm if is_last_normed else None
        self._norm = None if norm is None else model.network.base_model.get_submodule(norm)

    def read(self, rows: list[int], tokens: list[list[int]]) -> None:
        width = max(map(len, tokens))
        ids = torch.full((len(rows), width), self.model.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, one in enumerate(tokens):
            ids[row, : len(one)] = torch.tensor(one)
            mask[row, : len(one)] = 1
        is_real = mask.bool().to(self.model.device)
        is_content = is_real & (ids != self.model.bos_token_id).to(self.model.device)

        def keep_input(layer: int, value: Tensor) -> None:
            kept = is_content & ~find_sinks(value, is_real)
            self._rms[layer].append(value.float().square().mean(-1).sqrt()[kept].cpu())

        def keep_output(layer: int, value: Tensor) -> None:
            is_last = layer == self.model.n_layers - 1
            value = self._norm(value) if is_last and self._norm is not None else value
            kept = is_real
            if not self._keeps_sinks:
                kept = is_content & ~find_sinks(value, is_real)
                # A text of nothing else keeps what it has.
                kept = torch.where(kept.any(dim=1, keepdim=True), kept, is_real)
            self.states[layer][rows] = _pooled(value, kept, self._pooling).cpu()

        hooks = {}
        for layer in range(self.model.n_layers):
            hooks[HookPoint(layer, "resid_pre")] = lambda x, layer=layer: keep_input(layer, x)
            hooks[HookPoint(layer, "resid_post")] = lambda x, layer=layer: keep_output(layer, x)
        self.model.run_until(hooks, ids.to(self.model.device), mask.to(self.model.device))

    def input_rms(self) -> Float[np.ndarray, " layers"]:
        seen = [torch.cat(parts) for parts in self._rms]
        if not all(map(len, seen)):
            raise CorpusError("All texts are of first tokens and attention sinks alone.")
        return np.array([float(one.median()) for one in seen])


def _pooled(
    value: Float[Tensor, "rows pos d_model"], kept: Bool[Tensor, "rows pos"], pooling: Pooling
) -> Float[Tensor, "rows d_model"]:
    match pooling:
        case "mean":
            # Sums of many positions need float32 at least; padding may hold a NaN.
            real = torch.where(kept[..., None], value.float(), 0.0)
            return real.sum(dim=1) / kept.sum(dim=1, keepdim=True)
        case "first":
            return value[:, 0].float()
        case "last":
            places = torch.arange(kept.shape[1], device=kept.device)
            last = (places * kept).argmax(dim=1)
            return value[torch.arange(len(value), device=value.device), last].float()
