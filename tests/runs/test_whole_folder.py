"""What a killed process left beside a folder goes when the folder is made again."""

import os
import subprocess
import sys

import pytest

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.storage import write_json
from fluoroscope.runs.whole_folder import whole_folder


def make(to):
    with whole_folder(to, "made.json", "made") as folder:
        write_json(folder / "made.json", {"format": "made", "files": {}})


@pytest.fixture
def dead():
    """The number of a process that was, and is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left(folder, name):
    (folder / name / "tables").mkdir(parents=True)
    (folder / name / "tables" / "half.csv").write_text("half")


def test_leftovers_of_dead_processes_are_removed_and_nothing_else(tmp_path, dead):
    living = os.getppid()
    left(tmp_path, f".a+b.{dead}.part")
    others = [
        f".a+b.{living}.part",
        f".aab.{dead}.part",
        f".a+b.c.{dead}.part",
        f"a+b.{dead}.part",
        ".a+b.0.part",
        ".a+b.half.part",
    ]
    for name in others:
        left(tmp_path, name)
    make(tmp_path / "a+b")
    assert {path.name for path in tmp_path.iterdir()} == {"a+b", *others}
    assert all((tmp_path / name / "tables" / "half.csv").exists() for name in others)


def test_a_half_written_file_of_the_name_is_left_to_who_writes_files(tmp_path, dead):
    (tmp_path / f".to.{dead}.part").write_text("half")
    make(tmp_path / "to")
    assert (tmp_path / f".to.{dead}.part").exists()


def test_where_the_place_is_refused_nothing_is_touched(tmp_path, dead):
    left(tmp_path, "to")
    left(tmp_path, f".to.{dead}.part")
    with pytest.raises(ConfigError, match="did not write"):
        make(tmp_path / "to")
    assert (tmp_path / f".to.{dead}.part").exists()
