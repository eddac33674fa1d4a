"""Parts `step` and `padding`: steps of the study's own trainer, at the size of MiniLM.

A step is all of it: batch, forward, backward, clipping, AdamW, on texts as long as SST-2's.

- `step`: the classifier alone and with a layer plugged in, on the same batches in turns; at most
  1.10 times as long with a layer cut to d 1024.
- `padding`: epochs of the same texts, each text padded to 100 tokens (as the plan's code has it)
  and in buckets of texts of about one length.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from benchmarks.harness import Contender
from benchmarks.plugin_layers import CUT, LLAMA_31, loaded
from benchmarks.plugin_parts import N_ROUNDS, WARM_UP, Part, compare, sst2
from fluoroscope.core.errors import ModelError
from fluoroscope.data.corpus_config import Split
from fluoroscope.data.labelled.batches import epoch_batches
from fluoroscope.data.labelled.encoding import Encoded, encode
from fluoroscope.models.encoders import Encoder, load_encoder
from fluoroscope.models.single_layer.layer_tensors import LayerTensors
from fluoroscope.studies.plugin.classifier import PlugClassifier
from fluoroscope.studies.plugin.form import Form
from fluoroscope.studies.plugin.plugs import make_plug
from fluoroscope.studies.plugin.training import PlugTrainer
from fluoroscope.studies.plugin.training_config import TrainingConfig

ALLOWED = 1.10
BATCH, MAX_LENGTH = 32, 100
EPOCHS = 1000
"""More than are ever trained, so that rates hardly fall."""

N_VALIDATION = 4
BASE = "base"
Padding = Literal["max_length", "longest", "buckets"]
WAYS: Mapping[Padding, str] = {
    "max_length": f"padded to {MAX_LENGTH}",
    "longest": "to the longest of a batch",
    "buckets": "in buckets",
}


def steps(rounds: int, is_quick: bool) -> Part:
    encoder = _encoder()
    if isinstance(encoder, Part):
        return encoder
    n_steps = 2 if is_quick else 4
    texts, source = _texts(encoder, n_steps * (rounds + WARM_UP) * BATCH + BATCH)
    # At the end of an epoch weights are copied and a side is read, which is no part of a step.
    n_steps = min(n_steps, (len(texts) // BATCH - 1) // (rounds + WARM_UP))
    assert n_steps > 0, f"{rounds} rounds need more texts than the {len(texts)} that there are"
    ways: dict[str, LayerTensors | None] = {BASE: None, f"pifi, {CUT.name}": loaded(CUT, "token")}
    if not is_quick:
        ways[f"pifi, {LLAMA_31.name}"] = loaded(LLAMA_31, "token")
    config = TrainingConfig(batch_size=BATCH, max_length=MAX_LENGTH, precision="float32")
    contenders = [
        Contender(name, _some(_trainer(encoder, texts, layer, config), n_steps), n_steps)
        for name, layer in ways.items()
    ]
    found = compare(contenders, rounds)
    part = found.part("training step", "a step")
    times = found.times(f"pifi, {CUT.name}")
    goal = f"a step of pifi takes at most {ALLOWED:.2f} times that of base, upper end"
    part.goals[f"{goal} {times.high:.3f}"] = times.high <= ALLOWED
    part.conditions["training step"] = f"batch {BATCH} in buckets, {n_steps} a round, {source}"
    return part


def padding(rounds: int, is_quick: bool) -> Part:
    encoder = _encoder()
    if isinstance(encoder, Part):
        return encoder
    n = 64 if is_quick else 320
    texts, source = _texts(encoder, n)
    layer = loaded(CUT, "token")
    contenders = []
    for how, name in WAYS.items():
        config = TrainingConfig(
            batch_size=BATCH, max_length=MAX_LENGTH, padding=how, patience=None, precision="float32"
        )
        run = _some(_trainer(encoder, texts, layer, config), -(-n // BATCH))
        note = f"{_positions(encoder, how):.1f} positions a text in an epoch of all"
        contenders.append(Contender(name, run, n, note))
    part = compare(contenders, min(rounds, N_ROUNDS)).part("padding", "a text")
    part.conditions["padding"] = f"pifi, epochs of {n} texts in batches of {BATCH}, {source}"
    return part


def _encoder() -> Encoder | Part:
    try:
        return load_encoder("minilm")
    except ModelError as error:
        return Part(conditions={"training": f"left out: {error}"})


def _texts(encoder: Encoder, n: int) -> tuple[Encoded, str]:
    """Tokens of `n` texts at most, and what they are."""
    found = sst2(n)
    if found is not None:
        return encode(found, encoder.tokenizer, MAX_LENGTH), "SST-2's training texts"
    luck = np.random.default_rng(0)
    # Median 22 and a tenth above 42, about as those of SST-2 are.
    lengths = np.exp(luck.normal(3.1, 0.5, n)).round().astype(np.int64).clip(4, 70)
    tokens = luck.integers(1000, 30_000, lengths.sum()).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = tuple(str(row) for row in range(n))
    made = Encoded(tokens, starts, None, luck.integers(0, 2, n), ids)
    return made, "made-up texts of lengths like SST-2's"


def _positions(encoder: Encoder, how: Padding) -> float:
    """Positions that the encoder computes for a text of a whole training side, in the mean."""
    if how == "max_length":
        return MAX_LENGTH
    lengths = _texts(encoder, 6920)[0].lengths
    batches = epoch_batches(lengths, BATCH, 0, 0, drop_last=False, bucketed=how == "buckets")
    return sum(len(rows) * int(lengths[rows].max()) for rows in batches) / len(lengths)


def _trainer(
    encoder: Encoder, texts: Encoded, layer: LayerTensors | None, config: TrainingConfig
) -> PlugTrainer:
    form = None if layer is None else Form()
    plug = None
    if form is not None and layer is not None:
        plug = make_plug(form, encoder.d_model, layer, layer.d_model, 0, None)
    classifier = PlugClassifier(
        copy.deepcopy(encoder), form, "cls", plug, 2, config.dropout, seed=0
    )
    last = int(texts.starts[N_VALIDATION])
    few = Encoded(
        texts.tokens[:last],
        texts.starts[: N_VALIDATION + 1],
        None if texts.segments is None else texts.segments[:last],
        texts.labels[:N_VALIDATION],
        texts.ids[:N_VALIDATION],
    )
    sides: Mapping[Split, Encoded] = {"train": texts, "validation": few}
    return PlugTrainer(classifier, sides, config, epochs=EPOCHS, seed=0, device="cpu")


def _some(trainer: PlugTrainer, n_steps: int) -> Callable[[], None]:
    """The next `n_steps` steps, each time it is called."""
    done = 0

    def run() -> None:
        nonlocal done
        for iteration in range(done, done + n_steps):
            trainer.advance(iteration)
        done += n_steps

    return run
