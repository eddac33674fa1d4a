"""Our end of the child process that trains SAEs with SAELens."""

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
SCRIPT = Path(__file__).with_name("saelens_training.py")

Json = dict[str, Any]  # Any: JSON values.


class SAELens:
    """`with SAELens(log) as peer: peer.ask("steps", name="topk", n_steps=4)`."""

    def __init__(self, log: Path) -> None:
        if not PYTHON.exists():
            raise SystemExit(f"{PYTHON} is not there. Make it with `make bench-peers`.")
        self._log = log.open("w")
        # The core that we are pinned to is inherited.
        self._process = subprocess.Popen(
            [PYTHON, SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.version = _version()

    def ask(self, do: str, **arguments: object) -> Json:
        """Waits for the answer; what each `do` takes stands in `saelens_training.py`."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            stdin.flush()
            answer = stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise SystemExit(f"SAELens stopped:\n{Path(self._log.name).read_text()[-3000:]}")
        return json.loads(answer)

    def __enter__(self) -> "SAELens":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
        self._log.close()


def _version() -> str:
    script = "import importlib.metadata as m; print(m.version('sae-lens'), m.version('torch'))"
    command = [PYTHON, "-c", script]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return f"{found[0]} (torch {found[1]})"
