"""What the presets promise is learnt; minutes, so only where slow tests run."""

import polars as pl
import pytest

from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.studies.connection.study import ConnectionStudy
from fluoroscope.studies.settings import study_spec

FEW = ("arms=[slots]", "seeds=1")


def accuracy_by_depth(preset, root):
    spec = study_spec("connection", f"connection/{preset}", None, FEW)
    run = execute(ConnectionStudy(), spec, preset, How(devices="cpu", retries=0), root=root)
    answers = pl.read_parquet(run.step_folder("train") / "answers.parquet")
    test = answers.filter(pl.col("side") == "test")
    return dict(test.group_by("depth").agg(pl.col("is_right").mean()).iter_rows())


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(("preset", "deepest"), [("babi", 1), ("pointer", 4), ("pointer-text", 3)])
def test_what_the_preset_trains_is_learnt(preset, deepest, tmp_path):
    found = accuracy_by_depth(preset, tmp_path)
    assert min(right for depth, right in found.items() if depth <= deepest) > 0.95
