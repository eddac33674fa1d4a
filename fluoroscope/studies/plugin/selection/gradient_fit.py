"""Short trainings around every layer, on vectors of an encoder that does not learn.

    u = L_in p    g = L_out layer(u)    logits = Linear(GELU(Linear(g)))

Every layer gets the same initial maps, the same batches and the same number of steps, so that
what is left between layers is theirs. Layers are compared by the loss on held-out rows, which is
smoother than accuracy. There is no dropout: nothing is drawn while training.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional

from fluoroscope.core.config import Config
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream, torch_stream
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.studies.plugin.selection.features import check_labels
from fluoroscope.studies.plugin.selection.plug_side import LayerMap

_ROWS = 512
"""Held-out rows that go through a layer at once."""


class GradientFitConfig(Config):
    """One training; the same for all layers."""

    n_steps: PositiveInt = 300
    batch_size: PositiveInt = 64

    learning_rate: PositiveFloat = 1e-3
    """Of Adam, falling to 0 in a straight line."""

    clip: PositiveFloat = 1.0
    """The largest norm of all gradients together: deep layers amplify."""

    is_residual: bool = False
    """Whether `p` is added to `g`, which a gate brings in from 0."""

    is_rms_matched: bool = False
    """Whether `u` is given the root mean square of what the layer reads at home."""


class Fitting(NamedTuple):
    """Cached vectors of the encoder, where the layers run, and their classes from 0."""

    train: Float[Tensor, "n d"]
    train_labels: Int[np.ndarray, " n"]
    held_out: Float[Tensor, "m d"]
    held_out_labels: Int[np.ndarray, " m"]


class GradientFit(NamedTuple):
    """Of held-out rows, by layer; NaN where a training broke down."""

    nll: Float[np.ndarray, " layers"]
    """In nats; less is better, and the score is its negative."""

    nll_se: Float[np.ndarray, " layers"]
    accuracy: Float[np.ndarray, " layers"]


def gradient_fit(
    data: Fitting,
    layers: Iterable[LayerMap],
    d_layer: int,
    seed: int,
    config: GradientFitConfig | None = None,
    *,
    input_rms: Float[np.ndarray, " layers"] | None = None,
    sink: Sink = SILENT,
) -> GradientFit:
    """`layers` are asked for one at a time; gradients pass through them and change nothing in
    them. Those that match their input need `input_rms`.
    """
    config = config or GradientFitConfig()
    check_labels(data.train_labels)
    if config.is_rms_matched and input_rms is None:
        raise ConfigError("is_rms_matched needs input_rms, what each layer reads at home.")
    n_classes = 1 + int(max(data.train_labels.max(), data.held_out_labels.max()))
    start = _start(data.train.shape[1], d_layer, n_classes, seed)
    batches = _batches(len(data.train), config, seed)
    found = []
    for number, layer in enumerate(layers):
        rms = float(input_rms[number]) if config.is_rms_matched and input_rms is not None else None
        weights = {
            name: one.to(data.train.device, copy=True).requires_grad_()
            for name, one in start.items()
        }
        _train(weights, data, layer, batches, config, rms)
        found.append(_judged(weights, data, layer, config, rms))
        sink.progress(number + 1, number + 1 if input_rms is None else len(input_rms), "layers")
    return GradientFit(*np.array(found).T)


def _start(d: int, d_layer: int, n_classes: int, seed: int) -> dict[str, Tensor]:
    """As PyTorch initialises linear maps: U(-1, 1) / sqrt(fan in)."""
    shapes = {
        "into": (d_layer, d),
        "out_of": (d, d_layer),
        "hidden": (d, d),
        "hidden_bias": (d,),
        "logits": (n_classes, d),
        "logits_bias": (n_classes,),
    }
    fan_in = {"out_of": d_layer}
    start = {"gate": torch.zeros(())}
    for name, shape in shapes.items():
        bound = fan_in.get(name, d) ** -0.5
        values = torch.rand(shape, generator=torch_stream(seed, "gradient fit", name))
        start[name] = (2 * values - 1) * bound
    return start


def _batches(n: int, config: GradientFitConfig, seed: int) -> list[np.ndarray]:
    """Epochs of all rows, cut into batches; as many as there are steps."""
    size = min(config.batch_size, n)
    per_epoch = n // size
    found: list[np.ndarray] = []
    for epoch in range(-(-config.n_steps // per_epoch)):
        order = stream(seed, "gradient fit", "order", epoch).permutation(n)
        found += np.split(order[: per_epoch * size], per_epoch)
    return found[: config.n_steps]


def _train(
    weights: dict[str, Tensor],
    data: Fitting,
    layer: LayerMap,
    batches: list[np.ndarray],
    config: GradientFitConfig,
    rms: float | None,
) -> None:
    labels = torch.from_numpy(data.train_labels).to(data.train.device)
    learning = [one for name, one in weights.items() if name != "gate" or config.is_residual]
    optimiser = torch.optim.Adam(learning, lr=config.learning_rate)
    for step, batch in enumerate(batches):
        rows = torch.from_numpy(batch).to(data.train.device)
        logits = _logits(weights, data.train[rows], layer, config, rms)
        loss = functional.cross_entropy(logits, labels[rows])
        if not bool(loss.isfinite()):
            return
        optimiser.zero_grad()
        # Gradients of these alone, whatever else in the layer could learn.
        for one, gradient in zip(learning, torch.autograd.grad(loss, learning), strict=True):
            one.grad = gradient
        torch.nn.utils.clip_grad_norm_(learning, config.clip)
        optimiser.param_groups[0]["lr"] = config.learning_rate * (1 - step / len(batches))
        optimiser.step()


@torch.no_grad()
def _judged(
    weights: dict[str, Tensor],
    data: Fitting,
    layer: LayerMap,
    config: GradientFitConfig,
    rms: float | None,
) -> tuple[float, float, float]:
    parts = [_logits(weights, part, layer, config, rms) for part in data.held_out.split(_ROWS)]
    logits = torch.cat(parts).double().cpu()
    labels = torch.from_numpy(data.held_out_labels)
    nll = functional.cross_entropy(logits, labels, reduction="none")
    if not bool(nll.isfinite().all()):
        return np.nan, np.nan, np.nan
    is_right = (logits.argmax(dim=1) == labels).double()
    return float(nll.mean()), float(nll.std() / len(nll) ** 0.5), float(is_right.mean())


def _logits(
    weights: dict[str, Tensor],
    p: Float[Tensor, "n d"],
    layer: LayerMap,
    config: GradientFitConfig,
    rms: float | None,
) -> Float[Tensor, "n classes"]:
    u = p.float() @ weights["into"].T
    if rms is not None:
        u = u * (rms / u.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-12))
    g = layer(u) @ weights["out_of"].T
    if config.is_residual:
        g = p + weights["gate"] * g
    hidden = functional.gelu(functional.linear(g, weights["hidden"], weights["hidden_bias"]))
    return functional.linear(hidden, weights["logits"], weights["logits_bias"])
