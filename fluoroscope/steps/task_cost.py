"""What it costs to have a model do a task: known before any data is read."""

from functools import cache

from fluoroscope.data.tasks.base import TASKS, FileTask
from fluoroscope.data.tasks.samples import in_split
from fluoroscope.runs.step import Cost
from fluoroscope.steps.subject import Subject
from fluoroscope.steps.task_spec import TaskSpec
from fluoroscope.steps.texts_cost import texts_cost

PROMPT_TOKENS = 120
"""Of a prompt, as a plan reckons."""

SAMPLES = 4000
"""Of a side, as a plan reckons where no limit says otherwise; CorrSteer takes as many."""


@cache
def known_size(task: str) -> int | None:
    """Training samples of a task that is made here, not read."""
    kind = TASKS.load(task)
    if isinstance(kind, FileTask):
        return None
    return len(in_split(kind.read().items, "train"))


def task_cost(
    subject: Subject,
    task: TaskSpec,
    times: float,
    *,
    extra_flops: float = 0.0,
    extra_memory: float = 0.0,
    disk_row: float = 0.0,
    samples: int | None = None,
) -> Cost:
    """Of replying `times` times to every sample of a side; extra arithmetic is by token drawn."""
    kind = TASKS.load(task.name)
    n = min(samples or SAMPLES, task.limit or SAMPLES, known_size(task.name) or SAMPLES)
    drawn = task.max_tokens or kind.max_tokens
    is_written = task.way == "texts" or kind.kind not in ("choice", "pairs")
    steps = drawn if is_written else 1
    passes = times * n / task.rows * (1 + steps)
    cost = texts_cost(
        subject.shape,
        subject.model.dtype,
        n_tokens=times * n * (PROMPT_TOKENS + steps),
        columns=PROMPT_TOKENS + steps,
        rows=task.rows,
        passes=passes,
        n_texts=times * n,
        parallel=max(1, int(times)),
        note=f"about {n} samples",
    )
    is_half = subject.model.dtype != "float32"
    extra = extra_flops * times * n * steps
    return Cost(
        flops=cost.flops + (0.0 if is_half else extra),
        half_flops=cost.half_flops + (extra if is_half else 0.0),
        bytes_moved=cost.bytes_moved,
        overhead_s=cost.overhead_s,
        memory_bytes=cost.memory_bytes + extra_memory,
        disk_bytes=cost.disk_bytes + disk_row * n,
        parallel=cost.parallel,
        note=cost.note,
    )
