"""Run: the folder that a study's work lives in, as steps and reports see it.

runs/<name>/
  run.json        what it is                 events.jsonl   what happened, append-only
  <step>/         artefacts, shards/<key>/, state/<key>.safetensors while a loop goes on,
                  done.json once it is whole: hashes of its inputs' manifests and its files
  progress/       how far each shard is, now     tables/ figures/ report.html   the results
"""

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fluoroscope.core.config import Config, build
from fluoroscope.core.errors import RunError
from fluoroscope.runs.record import FILE, load_class, read_record

T = TypeVar("T")

DONE = "done.json"


class Run:
    """One process's view of a run."""

    def __init__(self, folder: Path, study: str, config: Config, device: str = "cpu") -> None:
        self.folder = Path(folder)
        self.study = study
        self.config: Any = config  # Any: the Config class of the study, which alone knows it.
        self.device = device
        self._memo: dict[Hashable, Any] = {}  # Any: what `cached` was asked to make.

    @classmethod
    def open(cls, folder: Path, device: str = "cpu") -> "Run":
        """The run in `folder`, its settings rebuilt from run.json."""
        record = read_record(Path(folder))
        config = build(load_class(record.config_class), record.config)
        return cls(Path(folder), record.study, config, device)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def threads(self) -> int:
        """Threads of each worker: the setting `threads` of the study, else 1."""
        return getattr(self.config, "threads", 1)

    @property
    def sources(self) -> Mapping[str, str]:
        """Fingerprints of what is read from outside, of the first start; see `Study.sources`."""
        has_record = (self.folder / FILE).exists()
        return (
            self.cached("sources", lambda: read_record(self.folder).sources) if has_record else {}
        )

    def step_folder(self, step: str) -> Path:
        """The folder of a step that is done."""
        folder = self.folder / step
        if not (folder / DONE).exists():
            raise RunError(
                f"Step {step!r} of run {self.name} is not done, so its results cannot be read. "
                f"Run the study again under this name to finish it."
            )
        return folder

    def shard_folder(self, step: str, key: str) -> Path:
        """The folder of a shard that is whole; its step may still be going on."""
        folder = self.folder / step / "shards" / key
        if not folder.is_dir():
            raise RunError(f"Shard {key!r} of step {step!r} of run {self.name} is not done.")
        return folder

    def cached(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, once in this process for each `key`: shards share a model that way."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]
