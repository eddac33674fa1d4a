"""The large model reads texts of the training side once, and every layer's vectors are kept.

read/shards/SET/features.safetensors   see `LayerFeatures`
"""

from collections.abc import Sequence

from fluoroscope.data.labelled.base import limited
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.shape import ModelShape
from fluoroscope.models.single_layer.known import llm_source
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import pinned_revision
from fluoroscope.steps.texts_cost import texts_cost
from fluoroscope.studies.plugin.config import PluginConfig
from fluoroscope.studies.plugin.selection.features import LayerFeatures, read_layers
from fluoroscope.studies.plugin.sizes import rows_of, tokens_of
from fluoroscope.studies.plugin.steps.texts import TEXTS, load_texts, set_key

READ = "read"
FEATURES = "features.safetensors"


class ReadStep(MapStep):
    name = READ
    inputs = (TEXTS,)

    def __init__(self, config: PluginConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        config = self.config
        shape = ModelShape.of(llm_source(config.llm.source), config.llm.revision)
        rows = {name: _n_read(config, name) for name in config.datasets}
        most = max(tokens_of(name, config.selection.ilm.max_length) for name in rows)
        cost = texts_cost(
            shape,
            config.selection.ilm.dtype,
            n_tokens=sum(n * most for n in rows.values()),
            columns=most,
            rows=config.selection.batch_size,
            passes=sum(rows.values()) / config.selection.batch_size,
            n_texts=0,
            parallel=len(rows),
        )
        kept = 4.0 * shape.d_model * shape.n_layers
        return Cost(
            flops=cost.flops,
            half_flops=cost.half_flops,
            bytes_moved=cost.bytes_moved,
            overhead_s=cost.overhead_s + 5.0,
            memory_bytes=cost.memory_bytes + 2 * kept * max(rows.values()),
            disk_bytes=kept * sum(rows.values()),
            parallel=len(rows),
            note=f"{sum(rows.values()):,} texts, {shape.n_layers} layers at once",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(set_key(name), {"dataset": name}) for name in self.config.datasets]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config, name = self.config, str(shard.params["dataset"])
        selection, ilm = config.selection, config.selection.ilm
        texts = load_texts(run.step_folder(TEXTS), name)
        tested = {one.group_id for one in texts.side("test")}
        # In the plan's own splits some texts are on two sides.
        own = [one for one in texts.side(ilm.split) if one.group_id not in tested]
        chosen = limited(own, selection.n_samples, config.seed)
        features = read_layers(
            load_llm(run, config, context.device),
            [(one.text, one.pair) for one in chosen],
            [one.label for one in chosen],
            [one.id for one in chosen],
            pooling=ilm.pooling,
            max_length=ilm.max_length,
            batch_size=selection.batch_size,
            pair_text=ilm.pair_text,
            is_last_normed=ilm.is_last_normed,
            sink=context.sink,
        )
        features.write(context.folder / FEATURES)


def load_llm(run: Run, config: PluginConfig, device: str) -> LanguageModel:
    """The whole large model, at the commit that the run was started with."""
    source = llm_source(config.llm.source)
    revision = pinned_revision(run, "llm", config.llm.revision)
    return run.cached(
        ("llm", source, device),
        lambda: LanguageModel.load(
            source, dtype=config.selection.ilm.dtype, device=device, revision=revision
        ),
    )


def load_features(run: Run, dataset: str) -> LayerFeatures:
    return LayerFeatures.read(run.step_folder(READ) / "shards" / set_key(dataset) / FEATURES)


def input_rms(run: Run, dataset: str) -> list[float]:
    """Root mean square of what each layer reads at home, in the texts of this data set."""
    return run.cached(
        ("input rms", dataset), lambda: load_features(run, dataset).input_rms.tolist()
    )


def _n_read(config: PluginConfig, name: str) -> int:
    return min(config.selection.n_samples, rows_of(name, config.n_train)["train"])
