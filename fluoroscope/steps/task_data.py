"""A task's samples as a run works on them: read once in each process, split, and put to a model."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import stream
from fluoroscope.core.storage import fingerprints
from fluoroscope.data.corpus_config import SPLITS, Split
from fluoroscope.data.rows import HUB_PREFIX, LeftOut, files_at
from fluoroscope.data.tasks.base import TASKS, FileTask, Task
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.data.tasks.stereotype_judge import TRAIN_FILES
from fluoroscope.interventions.replies.answering import Asking, usable, way_of
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.sampling import Sampling
from fluoroscope.runs.run import Run
from fluoroscope.steps.models import ModelConfig, load_model
from fluoroscope.steps.task_spec import TaskSpec


@dataclass(frozen=True, eq=False)
class TaskData:
    """Samples by side, how they are put to the model, and what could not be used."""

    task: Task
    asking: Asking
    sides: Mapping[Split, Sequence[Sample]]
    left_out: Sequence[LeftOut]

    def asking_with(self, instruction: str) -> Asking:
        """The same with an instruction before every prompt."""
        return replace(self.asking, instruction=instruction)


def place_of(spec: TaskSpec, data_dir: str | None) -> str | None:
    """Where the task's files are: as said, or a folder of its name under `data_dir` or
    $FLUOROSCOPE_DATA; None for tasks that have no files.
    """
    task = TASKS.load(spec.name)
    if spec.data is not None or not isinstance(task, FileTask):
        return spec.data
    root = data_dir or os.environ.get("FLUOROSCOPE_DATA")
    if root is None:
        raise ConfigError(
            f"The task {spec.name} is read from files: say where with data_dir=FOLDER (which has a "
            f"folder for each task), task.data=PATH, or task.data={HUB_PREFIX} for the hub's copy."
        )
    names = (spec.name, spec.name.replace("-", "_"), spec.name.partition("-")[0])
    folders = [Path(root).expanduser() / name for name in names]
    return str(next((folder for folder in folders if folder.is_dir()), Path(root)))


def task_sources(spec: TaskSpec, data_dir: str | None) -> Mapping[str, str]:
    """Fingerprints of the task's files."""
    task, place = TASKS.load(spec.name), place_of(spec, data_dir)
    if place is None or not isinstance(task, FileTask):
        return {}
    files = files_at(place, task.files, task.name)
    if task.kind == "judged" and not place.startswith(HUB_PREFIX):
        files += files_at(str(Path(files[0]).parent), TRAIN_FILES, f"the judge of {task.name}")
    return {f"task {spec.name} {name}": sha256 for name, sha256 in fingerprints(files)}


def check_task(spec: TaskSpec) -> None:
    """Refuses a task that is not there, or a way that it is not judged by."""
    task = TASKS.load(spec.name)
    if task.kind != "judged":
        way_of(task, task.scorer(), spec.way)


def check_readable(spec: TaskSpec, data_dir: str | None, seed: int) -> None:
    """Reads a task whose files are at hand, so that what is wrong with them is said at once."""
    place = place_of(spec, data_dir)
    if place is None or not place.startswith(HUB_PREFIX):
        TASKS.load(spec.name).read(place, seed=seed, splitting=spec.splitting)


def load_task(
    run: Run,
    model: ModelConfig,
    spec: TaskSpec,
    data_dir: str | None,
    seed: int,
    device: str,
    instruction: str = "",
) -> TaskData:
    """Read once in each process."""

    def load() -> TaskData:
        language_model = load_model(run, model, device)
        return read_task(language_model, spec, data_dir, seed, instruction)

    return run.cached(("task", spec.model_dump_json(), data_dir, seed, instruction), load)


def read_task(
    model: LanguageModel, spec: TaskSpec, data_dir: str | None, seed: int, instruction: str = ""
) -> TaskData:
    """Samples that do not fit into the model are left out, and said to be; with the instruction
    where there is one, so that all that is compared is asked of the same samples.
    """
    task, place = TASKS.load(spec.name), place_of(spec, data_dir)
    gathered = task.read(place, seed=seed, splitting=spec.splitting)
    scorer = task.scorer(place)
    plain = Asking(
        scorer,
        way_of(task, scorer, spec.way),
        max_tokens=spec.max_tokens or task.max_tokens,
        stop=task.stop,
        sampling=Sampling(**spec.sampling.model_dump()),
        rows=spec.rows,
        tile_tokens=spec.tile_tokens,
        seed=seed,
    )
    kept, too_long = usable(model, gathered.items, replace(plain, instruction=instruction))
    sides: dict[Split, Sequence[Sample]] = {
        side: limited(kept, side, spec.limit, seed) for side in SPLITS
    }
    empty = [side for side in SPLITS if not sides[side]]
    if empty:
        raise ConfigError(
            f"{spec.name} has no sample on the {' and the '.join(empty)} side: "
            f"{len(gathered.items)} were read and {len(too_long)} of them are too long for "
            f"{model.name}. Give more data, a shorter instruction, or task.splitting=drawn."
        )
    return TaskData(task, plain, sides, (*gathered.left_out, *too_long))


def limited(samples: Sequence[Sample], side: Split, limit: int | None, seed: int) -> list[Sample]:
    """Of one side, whole groups in the order that the seed gives them, until there are enough."""
    own = sorted((one for one in samples if one.split == side), key=lambda one: one.id)
    groups: dict[str, list[Sample]] = {}
    for sample in own:
        groups.setdefault(sample.group_id, []).append(sample)
    names = sorted(groups)
    kept: list[Sample] = []
    for place in stream(seed, "task order", side).permutation(len(names)).tolist():
        members = groups[names[place]]
        if limit is not None and kept and len(kept) + len(members) > limit:
            break
        kept += members
    return kept
