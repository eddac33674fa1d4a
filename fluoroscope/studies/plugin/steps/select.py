"""Every layer is scored by every method, never from texts of the test side.

Methods read texts of the training side; the gradient-fit probe is judged on the validation side.

select/shards/SET/layer_scores.csv    a row a layer (see `LayerScores`)
select/shards/SET/components.json     of ILM: |r| of each principal component with the label
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.plain_values import without_nan
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_json
from fluoroscope.data.labelled.base import limited
from fluoroscope.data.labelled.encoding import Encoded
from fluoroscope.models.encoders import Encoder
from fluoroscope.models.single_layer.one_token import OneTokenLayer, one_token_layer
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.studies.plugin.config import PluginConfig
from fluoroscope.studies.plugin.form import VARIANTS
from fluoroscope.studies.plugin.pooling import pool
from fluoroscope.studies.plugin.schedule import padded_length
from fluoroscope.studies.plugin.selection.features import LayerFeatures, check_apart
from fluoroscope.studies.plugin.selection.gradient_fit import (
    Fitting,
    GradientFit,
    GradientFitConfig,
    gradient_fit,
)
from fluoroscope.studies.plugin.selection.ilm import ilm_scores
from fluoroscope.studies.plugin.selection.methods import LayerScores, score_table
from fluoroscope.studies.plugin.selection.plug_side import PlugScores, plug_scores
from fluoroscope.studies.plugin.selection.transferability import text_scores
from fluoroscope.studies.plugin.sizes import rows_of
from fluoroscope.studies.plugin.steps.loaded import (
    encoded_examples,
    encoder_of,
    layer_of,
    texts_of,
)
from fluoroscope.studies.plugin.steps.read import READ, load_features
from fluoroscope.studies.plugin.steps.texts import TEXTS, set_key
from fluoroscope.studies.plugin.steps.training_loop import resolved_training

SELECT = "select"
SCORES_CSV, COMPONENTS = "layer_scores.csv", "components.json"


class SelectStep(MapStep):
    name = SELECT
    inputs = (TEXTS, READ)

    def __init__(self, config: PluginConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        config = self.config
        rows = [
            min(config.selection.n_samples, rows_of(name, config.n_train)["train"])
            for name in config.datasets
        ]
        layers, d = config.n_layers, config.d_layer
        # A decomposition of the rows by layer and draw, the shorter side cubed; a layer's own
        # weights are about 12 d^2.
        scored = sum(40.0 * min(n, d + config.d_model) ** 3 + 6.0 * n * d**2 for n in rows)
        plugged = sum(3 * 24.0 * n * d**2 for n in rows)
        fitted = len(rows) * config.selection.fit_steps * 64 * 72.0 * d**2
        is_fitted = "gradient_fit" in self._asked()
        return Cost(
            flops=layers * (scored + plugged + (fitted if is_fitted else 0.0)),
            overhead_s=len(rows) * layers * (1.0 + (3e-3 * config.selection.fit_steps)),
            memory_bytes=5e8 + 16.0 * max(rows) * (2 * d + config.d_model) + 60.0 * d**2,
            disk_bytes=300.0 * layers * len(rows),
            parallel=len(rows),
            note=f"{layers} layers",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(set_key(name), {"dataset": name}) for name in self.config.datasets]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config, name = self.config, str(shard.params["dataset"])
        ilm, seed, sink = config.selection.ilm, config.seed, context.sink
        features = load_features(run, name)
        texts = texts_of(run, name)
        groups = {one.id: one.group_id for one in texts.examples}
        tested = {one.group_id for one in texts.side("test")}
        check_apart((groups[one] for one in features.ids), tested)
        own = ilm_scores(features, ilm, seed, sink=_Part(sink, "ILM"))
        plug, gradient = self._plugged(run, name, features, context.device, sink)
        scores = score_table(
            config.n_layers,
            ilm=own,
            ilm_manual=ilm_scores(features, ilm, seed, "manual", sink=_Part(sink, "ILM's manual")),
            text=text_scores(features, _Part(sink, "texts")),
            plug=plug,
            gradient=gradient,
            method=config.selection.method,
        )
        scores.write(context.folder / SCORES_CSV)
        write_json(context.folder / COMPONENTS, without_nan(own.correlations.tolist()))

    def _asked(self) -> set[str]:
        """Methods beyond those of the texts; halving begins with the best of both."""
        selection = self.config.selection
        asked = {selection.method, *selection.also}
        return asked | {"plug_side", "gradient_fit"} if "halving" in asked else asked

    def _plugged(
        self, run: Run, name: str, features: LayerFeatures, device: str, sink: Sink
    ) -> tuple[PlugScores | None, GradientFit | None]:
        """Scores of the layers' weights, on what the encoder makes of the same texts."""
        config, asked = self.config, self._asked()
        plug = gradient = None
        if not asked & {"plug_side", "gradient_fit"}:
            return None, None
        wanted = set(features.ids)
        by_id = {one.id: one for one in texts_of(run, name).examples if one.id in wanted}
        chosen = encoded_examples(run, config, [by_id[one] for one in features.ids])
        encoder = encoder_of(run, config)
        pooling, pad_to = config.model.pooling, padded_length(resolved_training(config))
        pooled = pooled_vectors(encoder, chosen, pooling, device, pad_to)
        d_layer, seed = config.d_layer, config.seed
        if "plug_side" in asked:
            layers = self._layers(run, device)
            plug = plug_scores(
                pooled,
                features.labels,
                layers,
                features.input_rms,
                d_layer,
                seed,
                sink=_Part(sink, "plug-side scores"),
            )
        if "gradient_fit" in asked:
            others = limited(
                texts_of(run, name).side("validation"), config.selection.n_samples, seed
            )
            held_out = encoded_examples(run, config, others)
            data = Fitting(
                pooled,
                features.labels,
                pooled_vectors(encoder, held_out, pooling, device, pad_to),
                held_out.labels,
            )
            gradient = gradient_fit(
                data,
                self._layers(run, device),
                d_layer,
                seed,
                GradientFitConfig(
                    n_steps=config.selection.fit_steps,
                    is_residual=VARIANTS[config.variant].is_residual,
                    is_rms_matched=VARIANTS[config.variant].is_rms_matched,
                ),
                input_rms=features.input_rms,
                sink=_Part(sink, "gradient fits"),
            )
        return plug, gradient

    def _layers(self, run: Run, device: str) -> Iterator[OneTokenLayer]:
        """One after the other; none is kept."""
        for layer in range(self.config.n_layers):
            tensors = layer_of(run, self.config, layer, "token", keeps=False)
            yield one_token_layer(tensors).float().to(device)


class _Part(Sink):
    """Hands progress on; what it is of is said once."""

    def __init__(self, beyond: Sink, name: str) -> None:
        self._beyond, self._name, self._has_begun = beyond, name, False

    def progress(self, done: int, total: int, unit: str = "items") -> None:
        if not self._has_begun:
            self._beyond.message(f"Layers are scored: {self._name}.")
            self._has_begun = True
        self._beyond.progress(done, total, unit)


@torch.no_grad()
def pooled_vectors(
    encoder: Encoder, encoded: Encoded, pooling: str, device: str, pad_to: int | None = None
) -> Float[Tensor, "n d_model"]:
    """What the encoder, as pretrained, makes of each row; float32, in the rows' order. Rows are as
    long as the longest of their batch, or `pad_to`.
    """
    from fluoroscope.data.labelled.batches import side_batches

    encoder.to(device).eval()
    found = torch.zeros(len(encoded), encoder.d_model)
    for rows in side_batches(encoded.lengths, 64):
        batch = encoded.batch(np.asarray(rows), pad_id=encoder.pad_id, pad_to=pad_to)
        batch = batch.to(device)
        hidden = encoder(batch.tokens, batch.attention_mask, batch.segments)
        found[torch.as_tensor(rows)] = pool(pooling, hidden, batch.attention_mask).float().cpu()
    return found.to(device)


def load_scores(run: Run, dataset: str) -> LayerScores:
    return LayerScores.read(run.step_folder(SELECT) / "shards" / set_key(dataset) / SCORES_CSV)
