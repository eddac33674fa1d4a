"""A study that is struck in every one of its steps, as by an error, a power cut or `kill -9`.

As a script it is killed with SIGKILL in every step, once each; started again and again, it comes
to its end:

    python -P strikes.py STUDY SPEC.json NAME ROOT STRUCK
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fluoroscope.core.config import Config, build
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.study import Study
from fluoroscope.studies import SPECS, STUDIES


def strike_each_step(study: type[Study], strike: Callable[[str], None], struck: Path) -> None:
    """From now on every step of the study calls `strike` with its name once in all: when its
    second shard begins, or, where there is one, when that has been written but not sealed; and
    again when it has been merged. `struck` is a folder that remembers.
    """
    own_steps = study.steps

    def steps(self: Study, config: Config) -> Sequence[MapStep]:
        found = own_steps(self, config)
        for step in found:
            _arm(step, strike, struck)
        return found

    study.steps = steps


def _arm(step: MapStep, strike: Callable[[str], None], struck: Path) -> None:
    shards, work, merge = step.shards, step.work, step.merge
    known = {"n_shards": 0, "begun": 0}

    def once(name: str) -> None:
        if not (struck / name).exists():
            (struck / name).touch()
            strike(name)

    def counted(run):
        found = shards(run)
        known["n_shards"] = len(found)
        return found

    def worked(run, shard, context):
        known["begun"] += 1
        if known["begun"] == 2:
            once(step.name)
        work(run, shard, context)
        if known["n_shards"] == 1:
            once(step.name)

    def merged(run, folder, sink):
        merge(run, folder, sink)
        once(f"{step.name}-merge")

    step.shards, step.work, step.merge = counted, worked, merged


class StruckError(BaseException):
    """Passes by whatever catches errors, as the end of a process does."""


def end_after_strikes(
    study: type[Study], start: Callable[[], Run], merges: Sequence[str], struck: Path
) -> tuple[Run, set[str]]:
    """Calls `start` until every step, and the merges that are named, were struck once in this
    process; gives the run and what was struck. Whoever asks puts `study.steps` back.
    """

    def strike(name: str) -> None:
        if not name.endswith("-merge") or name in merges:
            raise StruckError(name)

    struck.mkdir()
    strike_each_step(study, strike, struck)
    strikes = set()
    while True:
        try:
            return start(), strikes
        except StruckError as one:
            strikes.add(str(one))


def end_after_kills(study: str, spec: Config, name: str, root: Path) -> list[int]:
    """Starts the script until it is not killed, and gives the exit code of each start."""
    struck, file = root / "struck", root / "spec.json"
    struck.mkdir()
    write_json(file, spec.model_dump(mode="json"))
    words = [study, str(file), name, str(root), str(struck)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    codes: list[int] = []
    while not codes or codes[-1] == -signal.SIGKILL:
        command = [sys.executable, "-P", __file__, *words]
        codes.append(subprocess.run(command, env=environment, check=False).returncode)
    return codes


def main() -> None:
    study, spec, name, root, struck = sys.argv[1:]
    kind = STUDIES.load(study)
    strike_each_step(kind, lambda _: os.kill(os.getpid(), signal.SIGKILL), Path(struck))
    settings = build(SPECS.load(study), read_json(Path(spec)))
    execute(kind(), settings, name, How(devices="cpu"), root=Path(root))


if __name__ == "__main__":
    main()
