"""One run of the whole study that many tests look at, and a model that does not follow it."""

from pathlib import Path

import pytest
from quick_study import quick_spec

from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.tiny import tiny_model
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.runs.run import Run
from fluoroscope.sae.formats.native import save_sae
from fluoroscope.sae.jumprelu import JumpReLU, JumpReLUConfig
from fluoroscope.studies.gambling.study import GamblingStudy

D_SAE = 24
_PICTURES = "fluoroscope.runs.report.save_chart"


@pytest.fixture(scope="session")
def quick_run(tmp_path_factory) -> Run:
    """The organism, looked into by two worker processes; tests leave it as it is."""
    root = tmp_path_factory.mktemp("quick")
    how = How(executor="processes", workers=2, devices="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_PICTURES, lambda *_: None)
        return execute(GamblingStudy(), quick_spec(), "quick", how, root=root)


@pytest.fixture
def stranger(random_model, tmp_path) -> Path:
    """A random model that has never seen a game (`model`), and SAEs of it (`saes`)."""
    for name in ("model", "saes"):
        (tmp_path / name).symlink_to(random_model / name)
    return tmp_path


@pytest.fixture(scope="session")
def random_model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("random")
    model = tiny_model("llama", max_position_embeddings=2048)
    model.network.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")
    identity = LanguageModel.load(str(folder / "model")).identity.to_json()
    for layer in (0, 1):
        point = HookPoint(f"{layer}.resid_post")
        sae = JumpReLU(JumpReLUConfig(d_model=16, d_sae=D_SAE, target_l0=8), seed=layer)
        save_sae(sae, folder / "saes" / str(point), point, {"model": identity})
    return folder
