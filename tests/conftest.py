"""What many tests share: checked signatures, and the real model and data where they are."""

import os
from pathlib import Path

# One thread in tests and in the workers that they start: on a busy machine threads that wait
# for each other cost more than they save.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numba  # noqa: E402 - reads the environment when it is imported
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
numba.set_num_threads(1)
from hypothesis import HealthCheck, settings  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
# Every signature of the package is checked, but where numba compiles the functions itself.
install_import_hook(
    [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in (ROOT / "fluoroscope").rglob("[!_]*.py")
        if "from numba import" not in file.read_text(encoding="utf-8")
    ],
    "typechecker.check",
)

# A slow machine is slow, not wrong; and a suite that is green once is green again.
settings.register_profile(
    "fluoroscope", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fluoroscope")

SHARED = ROOT.parent / "shared"


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


@pytest.fixture(scope="session")
def organism_model():
    """The small trained model that ships with the package; tests leave it as it is."""
    from fluoroscope.models.language_model import LanguageModel

    return LanguageModel.load("organism")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: a file is one worker's, and none should be left alone with a long one."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(params=["by size", "together", "copied"])
def sharing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How `generate` reads what few short prompts have in common, which their size would decide."""
    sizes = {"by size": None, "together": (1, 10**9), "copied": (10**9, 1)}[request.param]
    for name, size in zip(("MIN_GROUP", "MIN_SAVED"), sizes or (), strict=False):
        monkeypatch.setattr(f"fluoroscope.models.prompt_sharing.{name}", size)
    return request.param


@pytest.fixture
def no_pictures(monkeypatch) -> None:
    """Reports without files of figures, which take longer than the numbers in them."""
    monkeypatch.setattr("fluoroscope.runs.report.save_chart", lambda *_: None)
