from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from fluoroscope.core.errors import CorpusError, DamagedError, MismatchError
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import sha256_folder
from fluoroscope.data.corpora import token_shards, write_token_store
from fluoroscope.data.corpus_config import SPLITS, CorpusConfig
from fluoroscope.data.documents import corpus_fingerprint, split_of, text_id
from fluoroscope.data.token_store import TokenStore
from fluoroscope.models.tiny import tiny_model


class Messages(Sink):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def config(story_file: Path) -> CorpusConfig:
    return CorpusConfig(source=str(story_file), context=16, held_out=0.2)


@pytest.fixture
def store(config: CorpusConfig, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> TokenStore:
    return write_token_store(config, tokenizer, tmp_path / "tokens")


def documents_of(store: TokenStore, tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    ids: dict[int, list[int]] = {}
    for split in SPLITS:
        windows = store.windows(split, 0, store.n_windows(split))
        is_text = windows.attention_mask.bool() & ~windows.is_start
        for document, token in zip(
            windows.document[is_text].tolist(), windows.tokens[is_text].tolist(), strict=True
        ):
            ids.setdefault(document, []).append(token)
    return {document: tokenizer.decode(tokens) for document, tokens in sorted(ids.items())}


def test_every_document_can_be_read_back(
    store: TokenStore, tokenizer: PreTrainedTokenizerBase, story_texts: list[str]
):
    assert documents_of(store, tokenizer) == dict(enumerate(story_texts))


def test_a_window_never_mixes_splits(store: TokenStore, story_texts: list[str]):
    for split in SPLITS:
        windows = store.windows(split, 0, store.n_windows(split))
        documents = windows.document[windows.attention_mask.bool()].unique().tolist()
        assert documents
        assert all(split_of(story_texts[document], 0.2) == split for document in documents)


def test_the_table_of_documents_agrees_with_the_windows(store: TokenStore, story_texts: list[str]):
    table = store.documents()
    assert table["document"].to_list() == list(range(200))
    assert table["id"].to_list() == [text_id(text) for text in story_texts]
    for split in SPLITS:
        n_tokens = table.filter(table["split"] == split)["n_tokens"].sum()
        assert n_tokens == store.n_tokens(split) == store.counts(split)[:, 1].sum()


def test_any_range_of_windows_is_that_part_of_the_whole(store: TokenStore):
    whole = store.windows("train", 0, store.n_windows("train"))
    part = store.windows("train", 7, 23)
    assert torch.equal(part.tokens, whole.tokens[7:23])
    assert torch.equal(part.position, whole.position[7:23])
    assert len(store.windows("train", 5, 5)) == 0
    with pytest.raises(IndexError):
        store.windows("train", 0, store.n_windows("train") + 1)


def test_parts_of_bounded_size_hold_the_same_windows(
    config: CorpusConfig,
    tokenizer: PreTrainedTokenizerBase,
    store: TokenStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("fluoroscope.data.token_writer._PART_TOKENS", 500)
    monkeypatch.setattr("fluoroscope.data.token_writer._PART_DOCUMENTS", 30)
    small = write_token_store(config, tokenizer, tmp_path / "small")
    assert len(small.manifest["parts"]) > len(store.manifest["parts"])
    n_windows = store.n_windows("train")
    assert small.n_windows("train") == n_windows
    for start, stop in [(0, n_windows), (30, 40), (n_windows - 1, n_windows)]:
        mine, whole = small.windows("train", start, stop), store.windows("train", start, stop)
        assert torch.equal(mine.tokens, whole.tokens)
        assert torch.equal(mine.document, whole.document)
    assert small.documents().equals(store.documents())


def test_writing_twice_gives_the_same_bytes_anywhere(
    config: CorpusConfig, tokenizer: PreTrainedTokenizerBase, store: TokenStore, tmp_path: Path
):
    again = write_token_store(config, tokenizer, tmp_path / "elsewhere")
    assert sha256_folder(again.folder) == sha256_folder(store.folder)
    assert str(tmp_path) not in (again.folder / "manifest.json").read_text()


def test_reading_stops_when_there_are_tokens_enough(
    config: CorpusConfig, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    store = write_token_store(config, tokenizer, tmp_path, n_tokens=1000)
    assert 1000 <= store.n_tokens("train") < 1100
    n_windows = store.n_windows_for("train", 500)
    assert store.counts("train")[:n_windows, 1].sum() >= 500
    assert store.counts("train")[: n_windows - 1, 1].sum() < 500


def test_more_tokens_than_there_are_means_epochs_and_says_so(
    config: CorpusConfig, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    sink = Messages()
    store = write_token_store(config, tokenizer, tmp_path, n_tokens=20_000, sink=sink)
    (said,) = sink.texts
    assert f"{20_000 / store.n_tokens('train'):.2f} epochs" in said
    assert store.n_windows_for("train", 20_000) == store.n_windows("train")


@pytest.mark.parametrize("content", ["", "\n\n \n"])
def test_a_corpus_of_zero_tokens_is_refused(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, content: str
):
    (tmp_path / "empty.txt").write_text(content)
    config = CorpusConfig(source=str(tmp_path / "empty.txt"))
    with pytest.raises(CorpusError, match=r"empty\.txt gives zero tokens"):
        write_token_store(config, tokenizer, tmp_path / "tokens")


def test_a_held_out_share_that_no_document_falls_to_is_refused(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    (tmp_path / "short.txt").write_text("a single document")
    config = CorpusConfig(source=str(tmp_path / "short.txt"))
    with pytest.raises(CorpusError, match="held_out"):
        write_token_store(config, tokenizer, tmp_path / "tokens")
    everything = config.model_copy(update={"held_out": 0.0})
    assert write_token_store(everything, tokenizer, tmp_path / "all").n_windows("train") == 1


def test_a_damaged_part_is_found_when_it_is_read(store: TokenStore):
    part = store.folder / store.manifest["parts"][0]["file"]
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    with pytest.raises(DamagedError, match=part.name):
        TokenStore(store.folder).windows("train", 0, 1)


def test_tokens_of_another_tokenizer_are_refused(
    store: TokenStore, tokenizer: PreTrainedTokenizerBase
):
    store.check_tokenizer(tokenizer)
    other = tiny_model("llama").tokenizer
    other.add_tokens(["new"])
    with pytest.raises(MismatchError, match="made with tokenizer"):
        store.check_tokenizer(other)


def test_a_folder_without_tokens_says_so(tmp_path: Path):
    with pytest.raises(CorpusError, match="holds no tokens"):
        TokenStore(tmp_path)


def test_shards_are_known_without_reading(config: CorpusConfig):
    assert [shard.key for shard in token_shards(config, 10**9)] == ["text"]
    sampled = CorpusConfig(source="model:", held_out=0)
    shards = token_shards(sampled, 1_000_000)
    assert shards[0].start == 0
    assert all(a.stop == b.start for a, b in pairwise(shards))
    assert (shards[-1].stop or 0) * sampled.sampled.max_tokens >= 1_000_000
    with pytest.raises(CorpusError, match="how much"):
        token_shards(sampled, None)


def test_made_text_is_read_for_as_long_as_it_is_wanted(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    config = CorpusConfig(source="organism:", context=64, held_out=0.3)
    store = write_token_store(config, tokenizer, tmp_path / "a", n_tokens=4000)
    assert 4000 <= store.n_tokens("train") < 8000
    again = write_token_store(config, tokenizer, tmp_path / "b", n_tokens=4000)
    assert store.sha256 == again.sha256
    assert corpus_fingerprint(config) == corpus_fingerprint(config)
    with pytest.raises(CorpusError, match="no end"):
        token_shards(config, None)
    few = CorpusConfig(source="organism:", context=64, take="first:7", held_out=0.0)
    assert write_token_store(few, tokenizer, tmp_path / "c").documents().height == 7


def test_windows_of_single_documents_give_the_same_documents(
    config: CorpusConfig,
    tokenizer: PreTrainedTokenizerBase,
    story_texts: list[str],
    tmp_path: Path,
):
    apart = config.model_copy(update={"pack": False, "context": 128})
    store = write_token_store(apart, tokenizer, tmp_path / "apart")
    assert documents_of(store, tokenizer) == dict(enumerate(story_texts))
    windows = store.windows("train", 0, 4)
    # Only as wide as the longest of them.
    assert windows.tokens.shape[1] == int(windows.attention_mask.sum(dim=1).amax()) < 128
    for document in store.windows("train", 0, store.n_windows("train")).document:
        assert len(set(document[document >= 0].tolist())) == 1
