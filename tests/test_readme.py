"""The README's lines of Python work as they stand."""

import re
from pathlib import Path

import pytest
import torch

from fluoroscope.core.config import build
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.tiny import tiny_model
from fluoroscope.sae.architectures import SAES
from fluoroscope.sae.formats.native import save_sae

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.fixture
def demo_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `make demo` leaves, with random weights in it."""
    model = tiny_model("llama", max_position_embeddings=128)
    model.network.save_pretrained(tmp_path / "runs" / "demo-model")
    model.tokenizer.save_pretrained(tmp_path / "runs" / "demo-model")
    kind = SAES.load("batch_topk")
    sae = kind(build(kind.config_type, {"d_model": model.d_model, "d_sae": 32, "k": 4}))
    sae.calibrate(torch.randn(100, model.d_model, generator=torch.Generator().manual_seed(0)))
    for layer in range(model.n_layers):
        point = HookPoint(layer, "resid_post")
        folder = tmp_path / "runs" / "demo" / "saes" / "shards" / str(point) / str(point) / "best"
        save_sae(sae, folder, point)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_of_the_readme_works_on_what_the_demo_leaves(demo_folder, capsys):
    [code] = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    exec(code, {})  # Our own README: this is what it is tested for.
    latents, replaced, clean = capsys.readouterr().out.splitlines()
    assert re.search(r"\{(\d+: [\d.e-]+(, )?){5}\}$", latents)
    loss_replaced, loss_clean = (float(line.split()[1]) for line in (replaced, clean))
    assert 0 < loss_clean != loss_replaced > 0
