"""A training that is killed in the middle of an epoch goes on there, and ends with the same bytes.

As a script it is the run that kills itself with SIGKILL, once before each of the steps it is told:

    python test_plug_killed.py SPEC.json ROOT STRUCK STEP...
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_plug_study import STEPS, run_small, small, step_bytes
from strikes import StruckError

from fluoroscope.core.config import build
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.runs.engine import execute
from fluoroscope.runs.events import read_events, read_metrics
from fluoroscope.runs.how import How
from fluoroscope.runs.run import Run
from fluoroscope.studies.plugin.spec import PluginSpec
from fluoroscope.studies.plugin.steps.training_loop import TrainLoop
from fluoroscope.studies.plugin.study import PluginStudy

STRUCK_AT = (1, 4, 9)
"""Steps of each training, of which six are an epoch: none is at an epoch's end."""

OFTEN = How(devices="cpu", retries=0, checkpoint_s=1e-9)
CHANGES = {"beside": [], "seeds": 2}


def strike_trainings(steps, strike, folder: Path):
    """From now on each training is struck once before each of `steps`; `folder` remembers."""
    folder.mkdir(exist_ok=True)
    advance = TrainLoop.advance

    def struck(self: TrainLoop, iteration: int, sink: object) -> None:
        mark = folder / f"{self.training.key}.{iteration}"
        if iteration in steps and not mark.exists():
            mark.touch()
            strike()
        advance(self, iteration, sink)

    TrainLoop.advance = struck


@pytest.fixture(scope="module")
def whole(small_material: Path, tmp_path_factory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fluoroscope.runs.report.save_chart", lambda *_: None)
        return run_small(small_material, tmp_path_factory.mktemp("whole"), **CHANGES)


def check(run: Run, whole: Run, n_strikes: int) -> None:
    assert step_bytes(run) == step_bytes(whole)
    gone_on = [event["text"] for event in read_events(run.folder, "message")]
    assert sum(text.startswith("Goes on at iteration") for text in gone_on) == n_strikes
    # What led to the training was done once, the choice of the layer with it.
    started = [event["step"] for event in read_events(run.folder, "shard started")]
    assert {name: started.count(name) for name in STEPS[:-1]} == dict.fromkeys(STEPS[:-1], 1)
    (shard, _) = (run.step_folder("train") / "shards").iterdir()
    # Both epochs are there once, and the order of the second is not that of the first.
    assert len(list(read_metrics(run.folder, "train", shard.name))) == 2


@pytest.mark.usefixtures("no_pictures")
def test_struck_in_the_middle_of_epochs_it_ends_with_the_same_bytes(
    whole,
    small_material,
    tmp_path,
    monkeypatch,
):
    monkeypatch.setattr(TrainLoop, "advance", TrainLoop.advance)

    def strike():
        raise StruckError

    strike_trainings(STRUCK_AT, strike, tmp_path / "struck")
    n_strikes = 0
    while True:
        try:
            run = run_small(small_material, tmp_path, how=OFTEN, **CHANGES)
            break
        except StruckError:
            n_strikes += 1
    assert n_strikes == 2 * len(STRUCK_AT)
    check(run, whole, n_strikes)


@pytest.mark.slow
def test_killed_in_the_middle_of_epochs_it_ends_with_the_same_bytes(
    whole,
    small_material,
    tmp_path,
):
    file = tmp_path / "spec.json"
    write_json(file, small(small_material, **CHANGES).model_dump(mode="json"))
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}"}
    words = [str(file), str(tmp_path), str(tmp_path / "struck"), *map(str, STRUCK_AT)]
    codes = []
    while not codes or codes[-1] == -signal.SIGKILL:
        command = [sys.executable, __file__, *words]
        codes.append(subprocess.run(command, env=environment, check=False).returncode)
    assert codes == [-signal.SIGKILL] * 2 * len(STRUCK_AT) + [0]
    check(Run(tmp_path / "small", "plugin", whole.config), whole, 2 * len(STRUCK_AT))


def main() -> None:
    spec, root, struck, *steps = sys.argv[1:]
    strike_trainings(
        {int(step) for step in steps}, lambda: os.kill(os.getpid(), signal.SIGKILL), Path(struck)
    )
    execute(
        PluginStudy(), build(PluginSpec, read_json(Path(spec))), "small", OFTEN, root=Path(root)
    )


if __name__ == "__main__":
    main()
