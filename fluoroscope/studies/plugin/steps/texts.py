"""Data sets are read once, split, cleaned and tokenised; later steps read the run alone.

texts/shards/SET/examples.parquet   a row an example: id, text, pair, label, side, group, part
texts/shards/SET/set.json           task, classes, counts a side, and what was left out and why
texts/shards/SET/tokens/            tokenised sides, unless `outputs.preprocessed` keeps them
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import polars as pl

from fluoroscope.core.config import settings_hash
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import read_json, write_json, write_parquet
from fluoroscope.data.corpus_config import HUB_PREFIX, SPLITS, Split
from fluoroscope.data.labelled.base import check_classes, labelled_place, labelled_set, limited
from fluoroscope.data.labelled.encoding import encode
from fluoroscope.data.labelled.example import Example
from fluoroscope.data.rows import all_files_at
from fluoroscope.models.encoder_names import encoder_source
from fluoroscope.models.loading import load_tokenizer
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import pinned_revision
from fluoroscope.studies.plugin.config import PluginConfig
from fluoroscope.studies.plugin.schedule import steps_of_epoch
from fluoroscope.studies.plugin.sizes import rows_of

TEXTS = "texts"
EXAMPLES, ABOUT, TOKENS = "examples.parquet", "set.json", "tokens"
_NOT_IN_A_KEY = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True)
class TextSet:
    """A data set as the run has it."""

    name: str
    task: str
    classes: tuple[str, ...]
    examples: tuple[Example, ...]

    def side(self, side: Split) -> list[Example]:
        return [one for one in self.examples if one.split == side]


class TextsStep(MapStep):
    name = TEXTS

    def __init__(self, config: PluginConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        names = self.names()
        rows = sum(sum(rows_of(name, self.config.n_train).values()) for name in names)
        return Cost(
            overhead_s=2.0 * len(names) + 2e-4 * rows,
            memory_bytes=2e8 + 4e3 * rows,
            disk_bytes=6e2 * rows,
            parallel=len(names),
            note=f"{rows:,} examples",
        )

    def names(self) -> list[str]:
        config = self.config
        return list(dict.fromkeys([*config.datasets, *config.test_on]))

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(set_key(name), {"dataset": name}) for name in self.names()]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config, name = self.config, str(shard.params["dataset"])
        place = labelled_place(name, config.data_dir)
        commit = pinned_revision(run, data_source(name), None)
        if place == HUB_PREFIX and commit is not None:
            place = f"{HUB_PREFIX}@{commit}"
        gathered = labelled_set(name).read(place, seed=config.seed, splitting=config.split)
        if config.n_train is not None:
            train = limited(gathered.side("train"), config.n_train, config.seed)
            others = [one for one in gathered.items if one.split != "train"]
            gathered = replace(gathered, items=(*train, *others))
            check_classes(gathered.items, gathered.classes, f"{name} (n_train={config.n_train})")
        # Batches are drawn by place: the order of a file's rows must not decide them.
        gathered = replace(gathered, items=tuple(sorted(gathered.items, key=_order)))
        write_parquet(context.folder / EXAMPLES, _frame(gathered.items))
        self._encode(gathered.items, context)
        about = {
            "name": name,
            "task": gathered.task,
            "classes": list(gathered.classes),
            "sides": gathered.counts(),
            "origins": dict(gathered.origins),
            "left_out": gathered.reasons(),
        }
        write_json(context.folder / ABOUT, about)
        context.sink.message(f"{gathered.describe()}; by side and class: {gathered.counts()}")

    def _encode(self, examples: Sequence[Example], context: ShardContext) -> None:
        """Whole sides are tokenised here, once for all workers."""
        config = self.config
        tokenizer = load_tokenizer(encoder_source(config.model.source), config.model.revision)
        cache = token_cache(config, context.folder)
        for side in SPLITS:
            own = [one for one in examples if one.split == side]
            encode(own, tokenizer, config.max_length, cache=cache)

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        """Refuses sets without a single batch, and those that a model of other classes cannot be
        judged on.
        """
        for name in self.config.datasets:
            steps_of_epoch(len(load_texts(folder, name).side("train")), self.config.training)
        own = {name: sorted(load_texts(folder, name).classes) for name in self.names()}
        for name in self.config.test_on:
            for trained in self.config.datasets:
                if own[name] != own[trained]:
                    raise ConfigError(
                        f"test_on={name} has the classes {own[name]} and {trained} has "
                        f"{own[trained]}: a classifier of one cannot be judged on the other. Take "
                        "sets whose classes go by the same names."
                    )


def set_key(name: str) -> str:
    """A data set's name as a folder's: `file:mine.csv` has characters that a folder may not have,
    and other names may differ from it in these alone.
    """
    plain = _NOT_IN_A_KEY.sub("_", name)
    return plain if plain == name else f"{plain[-60:].lstrip('_.-')}-{settings_hash(name)[:8]}"


def token_cache(config: PluginConfig, shard: Path) -> Path:
    """Where the tokens of whole sides are: with the texts, or in the folder that runs share."""
    shared = config.outputs.preprocessed
    return Path(shared).expanduser() if shared else shard / TOKENS


def load_texts(step_folder: Path, name: str) -> TextSet:
    folder = step_folder / "shards" / set_key(name)
    about = read_json(folder / ABOUT)
    rows = pl.read_parquet(folder / EXAMPLES).iter_rows(named=True)
    return TextSet(
        name, about["task"], tuple(about["classes"]), tuple(Example(**row) for row in rows)
    )


def data_source(name: str) -> str:
    """What a data set of the hub is called among the sources of a run."""
    return f"data set {name}"


def files_of(name: str, data_dir: str | None) -> list[Path]:
    """What a data set may be read from, for their fingerprints; none of them is of the hub."""
    return all_files_at(labelled_place(name, data_dir), name)


def _order(example: Example) -> tuple[str, int]:
    return example.id, example.label


def _frame(examples: Sequence[Example]) -> pl.DataFrame:
    schema = {"pair": pl.String, "label": pl.Int64}
    return pl.DataFrame([asdict(one) for one in examples], schema_overrides=schema)
