import pytest
from fake_hub import Hub

from fluoroscope.models import hub


@pytest.fixture
def fake_hub(tmp_path, monkeypatch):
    found = Hub(tmp_path / "hub")
    monkeypatch.setenv("FLUOROSCOPE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(hub, "HfApi", lambda: found)
    monkeypatch.setattr(hub, "hf_hub_download", found.download)
    return found
