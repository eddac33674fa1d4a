"""Who does the shards. Every executor ends with the same bytes."""

from fluoroscope.core.registry import Registry
from fluoroscope.runs.executors.base import Executor

EXECUTORS: Registry[type[Executor]] = Registry(
    "executor",
    {
        "local": "fluoroscope.runs.executors.local:LocalExecutor",
        "processes": "fluoroscope.runs.executors.processes:ProcessExecutor",
        "ray": "fluoroscope.runs.executors.ray:RayExecutor",
    },
)
