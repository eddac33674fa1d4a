"""How many workers a GPU has where nobody says: one, or as many small shards as fit on it.

A small training waits for its next kernel most of the time, and several of them on one GPU are
done in little more time than one. Steps whose shards are such say so (`Cost.shares_device`), and
what they need of memory is known before they start; any other step wants a GPU for itself.
"""

from collections.abc import Sequence
from pathlib import Path

from fluoroscope.runs.how import How
from fluoroscope.runs.plan import PROCESS_BYTES, TIGHT, free_gpu_bytes
from fluoroscope.runs.process import usable_cores, worker_devices
from fluoroscope.runs.run import DONE
from fluoroscope.runs.step import Cost, MapStep


def with_workers(how: How, steps: Sequence[MapStep], folder: Path, threads: int) -> How:
    """The same, with a number of workers where GPUs may be shared and nobody gave one."""
    if how.executor != "processes" or how.workers is not None:
        return how
    devices = worker_devices(how, threads)
    free = free_gpu_bytes(devices)
    if free is None:
        return how
    costs = [step.cost() for step in steps if not (folder / step.name / DONE).exists()]
    n_gpus = len(devices)
    most = usable_cores() // (threads * n_gpus)
    n = workers_a_gpu(costs, n_gpus, free, most)
    return how if n == 1 else how.model_copy(update={"workers": n * n_gpus})


def workers_a_gpu(costs: Sequence[Cost], n_gpus: int, free_bytes: float, most: int) -> int:
    """As many as have work, fit in `free_bytes` of each GPU, and are at most `most`; 1 where a
    step with several shards wants GPUs for itself.
    """
    several = [cost for cost in costs if cost.parallel > 1]
    if not several or not all(cost.shares_device for cost in several):
        return 1
    busy = -(-max(cost.parallel for cost in several) // n_gpus)
    needed = max(cost.memory_bytes for cost in several) + PROCESS_BYTES
    return max(1, min(busy, int(TIGHT * free_bytes // needed), most))
