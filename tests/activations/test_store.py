from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fluoroscope.activations.capture import capture
from fluoroscope.activations.extract_config import ExtractConfig, StoreDtype
from fluoroscope.activations.store import ActivationStore, estimate_bytes, finish_store
from fluoroscope.activations.store_writer import write_activation_shard
from fluoroscope.core.errors import (
    ConfigError,
    DamagedError,
    MismatchError,
    ModelError,
)
from fluoroscope.core.storage import sha256_folder
from fluoroscope.data.token_store import TokenStore, WindowRange
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.tiny import tiny_model

Extract = Callable[..., ActivationStore]


def test_a_row_is_what_capture_gives_for_its_window_and_place(
    store: ActivationStore, tokens: TokenStore, model: LanguageModel, points: list[HookPoint]
):
    index = store.index("train")
    assert len(index) == store.n_rows("train") == tokens.n_tokens("train")
    for row in index.sample(40, seed=0).iter_rows(named=True):
        window = tokens.windows("train", row["window"], row["window"] + 1)
        assert window.tokens[0, row["place"]] == row["token"]
        assert window.document[0, row["place"]] == row["document"]
        assert window.position[0, row["place"]] == row["position"]
        cache = capture(model, window.tokens, points, window.attention_mask)
        for point in points:
            stored = store.read(point, "train", row["row"], row["row"] + 1)[0]
            torch.testing.assert_close(stored, cache[point][0, row["place"]])


def test_any_range_of_rows_is_that_part_of_the_whole(
    store: ActivationStore, points: list[HookPoint]
):
    n_rows = store.n_rows("train")
    whole = store.read(points[0], "train", 0, n_rows)
    assert whole.shape == (n_rows, store.d_model)
    assert len(store.manifest["shards"]) > 3
    for start, stop in [(0, 5), (n_rows // 3, n_rows - 1), (n_rows - 2, n_rows), (9, 9)]:
        assert torch.equal(store.read(points[0], "train", start, stop), whole[start:stop])
    with pytest.raises(IndexError):
        store.read(points[0], "train", 0, n_rows + 1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_the_rounding_of_the_whole(
    store: ActivationStore, extract: Extract, tmp_path: Path, dtype: StoreDtype
):
    half = extract(tmp_path, dtype=dtype)
    for point in store.points:
        exact = store.read(point, "test", 0, store.n_rows("test"))
        kept = half.read(point, "test", 0, half.n_rows("test"))
        assert kept.dtype == getattr(torch, dtype)
        assert torch.equal(kept, exact.to(kept.dtype))


def test_extracting_twice_gives_the_same_bytes_anywhere(
    store: ActivationStore, extract: Extract, tmp_path: Path
):
    again = extract(tmp_path)
    assert sha256_folder(again.folder) == sha256_folder(store.folder)
    assert again.sha256 == store.sha256
    assert str(tmp_path) not in (tmp_path / "manifest.json").read_text()


def test_the_size_of_shards_changes_no_row(
    store: ActivationStore,
    model: LanguageModel,
    tokens: TokenStore,
    points: list[HookPoint],
    tmp_path: Path,
):
    for shard in tokens.ranges("train", 8):
        config = ExtractConfig(tile_windows=4)
        place = tmp_path / "shards" / shard.key
        write_activation_shard(model, tokens, shard, points, config, place)
    finer = finish_store(tmp_path)
    assert len(finer.manifest["shards"]) > len(store.manifest["shards"])
    assert finer.tile_rows("train").tolist() == store.tile_rows("train").tolist()
    n_rows = store.n_rows("train")
    for point in points:
        assert torch.equal(
            finer.read(point, "train", 0, n_rows), store.read(point, "train", 0, n_rows)
        )


def test_shards_that_cut_a_tile_are_refused(
    model: LanguageModel, tokens: TokenStore, points: list[HookPoint], tmp_path: Path
):
    with pytest.raises(ConfigError, match="tile_windows=4"):
        write_activation_shard(
            model,
            tokens,
            WindowRange("train", 6, 10),
            points,
            ExtractConfig(tile_windows=4),
            tmp_path,
        )


def test_the_estimate_of_the_disk_is_an_upper_bound_and_near(store: ActivationStore):
    n_rows = sum(store.n_rows(split) for split in ("train", "validation", "test"))
    used = sum(f.stat().st_size for f in store.folder.rglob("*") if f.is_file())
    estimated = estimate_bytes(n_rows, len(store.points), store.d_model, "float32")
    assert used <= estimated <= used + (1 << 20)


def test_a_damaged_shard_is_found_when_it_is_first_read(
    extract: Extract, tmp_path: Path, points: list[HookPoint]
):
    store = extract(tmp_path)
    path = next(tmp_path.glob(f"shards/validation-*/{points[1]}.safetensors"))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    store.read(points[0], "validation", 0, 5)
    with pytest.raises(DamagedError, match=f"{points[1]}.safetensors is damaged"):
        store.read(points[1], "validation", 0, 5)


def test_a_missing_shard_file_is_named(extract: Extract, tmp_path: Path, points: list[HookPoint]):
    store = extract(tmp_path)
    next(tmp_path.glob(f"shards/test-*/{points[0]}.safetensors")).unlink()
    with pytest.raises(DamagedError, match="missing"):
        store.read(points[0], "test", 0, 1)


def test_a_store_of_another_model_is_refused_with_both_names(
    store: ActivationStore, model: LanguageModel
):
    store.check_model(model.identity)
    with pytest.raises(MismatchError, match=r"model tiny-llama-0 .* not of tiny-llama-1 "):
        store.check_model(tiny_model("llama", seed=1).identity)


def test_shards_of_two_models_make_no_store(
    extract: Extract, tokens: TokenStore, points: list[HookPoint], tmp_path: Path
):
    extract(tmp_path)
    other = tiny_model("llama", seed=1)
    shard = tokens.ranges("train", 40)[1]
    place = tmp_path / "shards" / shard.key
    write_activation_shard(other, tokens, shard, points, ExtractConfig(tile_windows=4), place)
    with pytest.raises(MismatchError, match="another model"):
        finish_store(tmp_path)


def test_a_hook_point_that_was_not_kept_is_named_with_those_that_were(store: ActivationStore):
    with pytest.raises(ModelError, match=r"no hook point 1\.attn_out, only 0\.resid_post, 1"):
        store.read(HookPoint("1.attn_out"), "train", 0, 1)


def test_an_unfinished_store_says_so(tmp_path: Path):
    with pytest.raises(DamagedError, match="no finished activation store"):
        ActivationStore(tmp_path)
