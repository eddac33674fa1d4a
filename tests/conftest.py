"""What many tests share: the real model and data, where they are."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A slow machine is slow, not wrong; and a suite that is green once is green again.
settings.register_profile(
    "fluoroscope", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fluoroscope")

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """$FLUOROSCOPE_DATA, or `shared/data` beside the repository."""
    folder = Path(os.environ.get("FLUOROSCOPE_DATA", SHARED / "data"))
    if not folder.is_dir():
        pytest.skip(f"the data is not here ({folder}); set FLUOROSCOPE_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def stories_folder() -> Path:
    """The folder of stories260K, a real pretrained model: $FLUOROSCOPE_DATA/../weights/..."""
    data = Path(os.environ.get("FLUOROSCOPE_DATA", SHARED / "data"))
    folder = data.parent / "weights" / "stories260K"
    if not (folder / "config.json").is_file():
        pytest.skip(f"the real model is not here ({folder}); set FLUOROSCOPE_DATA beside it")
    return folder


@pytest.fixture(scope="session")
def stories_model(stories_folder: Path):
    from fluoroscope.models.language_model import LanguageModel

    return LanguageModel.load(str(stories_folder))
