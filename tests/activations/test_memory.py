"""Peak memory must not follow the number of tokens, from a store or from the model."""

import subprocess
import sys
from pathlib import Path

import pytest

# A process of its own, as the peak of a process never goes down.
SCRIPT = """
import resource, sys
from pathlib import Path
from fluoroscope.activations.extract_config import ExtractConfig
from fluoroscope.activations.sources import ModelSource, StoreSource
from fluoroscope.activations.store import finish_store, write_activation_shard
from fluoroscope.activations.stream import ActivationStream
from fluoroscope.data.corpora import write_token_store
from fluoroscope.data.corpus_config import CorpusConfig
from fluoroscope.models.hook_points import parse_hook_points
from fluoroscope.models.tiny import tiny_model

folder, n_tokens = Path(sys.argv[1]), int(sys.argv[2])
model = tiny_model("llama", hidden_size=256, num_hidden_layers=2, intermediate_size=32)
(folder / "text.txt").write_text("\\n".join(f"line {i} of a text" for i in range(n_tokens // 12)))
config = CorpusConfig(source=str(folder / "text.txt"), context=32)
tokens = write_token_store(config, model.tokenizer, folder / "tokens", n_tokens=n_tokens)
points, extract = parse_hook_points("all.resid_post", 2), ExtractConfig(tile_windows=32)
for shard in tokens.ranges("train", 1024):
    place = folder / "store" / "shards" / shard.key
    write_activation_shard(model, tokens, shard, points, extract, place)
store = finish_store(folder / "store")
for source in (StoreSource(store), ModelSource(model, tokens, config=extract)):
    for batch in ActivationStream(
        source, points, batch_size=1024, seed=0, n_samples=2 * n_tokens, buffer_rows=8192
    ):
        assert batch[points[0]].shape == (1024, 256)
assert store.n_rows("train") >= n_tokens
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_mib(folder: Path, n_tokens: int) -> int:
    folder.mkdir()
    command = [sys.executable, "-c", SCRIPT, str(folder), str(n_tokens)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_four_times_the_tokens_take_no_more_memory(tmp_path: Path):
    # The larger store is 400 MB on disk.
    few, many = peak_mib(tmp_path / "few", 50_000), peak_mib(tmp_path / "many", 200_000)
    assert many < few + 40
