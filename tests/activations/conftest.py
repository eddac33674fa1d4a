"""A tiny model, a small corpus, and the store of its activations."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fluoroscope.activations.extract_config import ExtractConfig
from fluoroscope.activations.store import ActivationStore, finish_store
from fluoroscope.activations.store_writer import write_activation_shard
from fluoroscope.data.corpora import write_token_store
from fluoroscope.data.corpus_config import CorpusConfig
from fluoroscope.data.token_store import TokenStore
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.tiny import tiny_model

Extract = Callable[..., ActivationStore]

WINDOWS_IN_A_SHARD = 40


@pytest.fixture(scope="session")
def model() -> LanguageModel:
    return tiny_model("llama")


@pytest.fixture(scope="session")
def points() -> list[HookPoint]:
    return [HookPoint("0.resid_post"), HookPoint("1.mlp_out"), HookPoint("2.resid_post")]


@pytest.fixture(scope="session")
def tokens(model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    folder = tmp_path_factory.mktemp("tokens")
    texts = [f"story {i} tells of {'a very ' * (i % 7)}big number {i * i}" for i in range(100)]
    (folder / "stories.txt").write_text("\n".join(texts))
    config = CorpusConfig(source=str(folder / "stories.txt"), context=16, held_out=0.2)
    return write_token_store(config, model.tokenizer, folder / "store")


@pytest.fixture(scope="session")
def extract(model: LanguageModel, tokens: TokenStore, points: list[HookPoint]) -> Extract:
    """Writes a store of all splits under a folder."""

    def write(folder: Path, **settings: object) -> ActivationStore:
        config = ExtractConfig(**{"tile_windows": 4, **settings})
        for split in ("train", "validation", "test"):
            for shard in tokens.ranges(split, WINDOWS_IN_A_SHARD):
                place = folder / "shards" / shard.key
                write_activation_shard(model, tokens, shard, points, config, place)
        return finish_store(folder)

    return write


@pytest.fixture(scope="session")
def store(extract: Extract, tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return extract(tmp_path_factory.mktemp("activations"))
