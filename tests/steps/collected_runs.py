"""Steering runs on the organism that only collect."""

from fluoroscope.core.config import build
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.studies.steering.spec import SteeringSpec
from fluoroscope.studies.steering.study import SteeringStudy

SPEC = {
    "model": "organism",
    "saes": {"source": "organism:batch_topk", "hook_points": "2-3.resid_post"},
    "task": {"name": "organism-bias", "limit": 60, "way": "texts", "max_tokens": 4},
    "against": [],
    "steer": {"sign": "either"},
    "collect": {"pools": ["max", "mean", "last"], "shuffles": 20, "resamples": 10},
}


def spec(**changes):
    collect = {**SPEC["collect"], **changes.pop("collect", {})}
    return build(SteeringSpec, {**SPEC, **changes, "collect": collect})


def collected(root, name="collected", **changes):
    how = How(devices="cpu")
    return execute(SteeringStudy(), spec(**changes), name, how, root=root, until="collect")
